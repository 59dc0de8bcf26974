"""What a launch by addresses needs, and what is said where it is missing."""

from pathlib import Path

from numba import cuda

from ladder.gpu import SIMULATED, versions_at_odds

try:
    import numba_cuda
    from cuda import core
    from cuda.core import Device, LaunchConfig, Stream, launch  # noqa: F401 (older ones lack some)
except ImportError as error:
    numba_cuda = core = None
    not_found = str(error)


def what_is_missing():
    """Return what keeps this machine from launching a kernel by addresses; "" if nothing does."""
    if SIMULATED:
        return ""
    if numba_cuda is None:
        return f"numba-cuda is missing, or too old ({not_found}): install requirements-cuda.txt"
    if Path(numba_cuda.__file__).parent not in Path(cuda.__file__).parents:
        return "numba.cuda is Numba's own, though numba-cuda is there: install numba-cuda beside it"
    return versions_at_odds()


MISSING = what_is_missing()
