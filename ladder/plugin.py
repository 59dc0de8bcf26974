"""The plugin of pytest: its options, and how a run begins.

torch, Numba and the rungs are imported when a run is configured, after the machine was looked at.
"""

import os
import signal
import sys
import threading
import traceback
import warnings
from collections import Counter
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

from ladder import hooks, machine
from ladder.mnist import find_mnist
from ladder.session import Session
from ladder.shape import Shape

LIBRARIES = "torch", "numba", "numba-cuda", "numpy", "fastcore", "pytest-benchmark"


def pytest_addhooks(pluginmanager):
    pluginmanager.add_hookspecs(hooks)


def pytest_addoption(parser, pluginmanager):
    if not pluginmanager.hasplugin("benchmark"):
        how = "python -m pip install -r requirements.txt, and no -p no:benchmark"
        raise pytest.UsageError(f"pytest-benchmark is not there, which times the rungs: {how}")
    group = parser.getgroup("ladder")
    what = "auto (default) takes data/mnist.pkl.gz, downloads it there, or else takes the sample"
    group.addoption("--mnist", default="auto", metavar="auto|sample|PATH", help=what)
    what = "make a ladder of this shape, instead of the default ones; may be repeated"
    group.addoption("--shape", action="append", default=[], metavar="MxKxN", help=what)
    group.addoption("--figures", metavar="DIR", help="draw the ladder and the lesson there")
    group.addoption("--page", metavar="FILE", help="write the run there as a page of HTML")


def pytest_configure(config):
    refuse_what_cannot_work(config)
    shapes = asked_shapes(config)
    data = find_data(config)
    end_as_by_ctrl_c(config)
    cores, why = machine.cores()
    about = {
        "data": data[0].name,
        "cores": cores,
        "why_cores": why,
        "settings": machine.settings(),
        "environment": machine.fingerprints(),
        "clock": str(config.getoption("benchmark_timer")),
        "libraries": versions(),
    }
    machine.limit_threads(cores)
    with warnings.catch_warnings(record=True) as caught:
        about |= import_rungs(config)
    about["notes"] = notes(str(warning.message).partition("\n")[0] for warning in caught)
    config.pluginmanager.import_plugin("ladder.fixtures")
    session = Session(config, about, data, shapes)
    config.pluginmanager.register(session, "ladder-session")


def refuse_what_cannot_work(config):
    if not __debug__:
        raise pytest.UsageError("python -O drops assert, and with it every check")
    if config.getoption("forked", False):
        raise pytest.UsageError("--forked would hang: torch's threads don't survive a fork")
    if config.getoption("codspeed", False):
        what = "pytest-codspeed takes pytest-benchmark's place, which this suite needs"
        raise pytest.UsageError(f"--codspeed: {what}: leave it out, and add -p no:codspeed")


def asked_shapes(config):
    """Return the shapes of ``--shape``, without repetition."""
    try:
        return list(dict.fromkeys(map(Shape.parse, config.getoption("shape"))))
    except ValueError as error:
        raise pytest.UsageError(f"--shape={error}") from None


def find_data(config):
    """Return the path of the data and why it is that one; make the folders for pictures and a page."""
    here = config.invocation_params.dir
    if config.getoption("help") or config.getoption("collectonly"):
        return find_mnist("sample", here)
    try:
        if folder := config.getoption("figures"):
            (here / folder).mkdir(parents=True, exist_ok=True)
        if page := config.getoption("page"):
            (here / page).parent.mkdir(parents=True, exist_ok=True)
        return find_mnist(config.getoption("mnist"), here)
    except (OSError, ValueError) as error:
        raise pytest.UsageError(str(error)) from None


def end_as_by_ctrl_c(config):
    """End a run as Ctrl-C does, results and all, when a batch system or a container stops it."""
    in_main_thread = threading.current_thread() is threading.main_thread()
    if in_main_thread and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        config.add_cleanup(lambda: signal.signal(signal.SIGTERM, signal.SIG_DFL))


def versions():
    """Return ``{library: version}`` of those that are installed."""
    found = {}
    for name in LIBRARIES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def import_rungs(config):
    """Import torch, Numba and the rungs, and return what a run says of them."""
    try:
        import torch

        if not torch.cuda.is_available():
            choose_simulator()
        os.environ.setdefault("NUMBA_CUDA_LOW_OCCUPANCY_WARNINGS", "0")  # of each small product
        import numba

        threads = start_threads(torch, numba)
        about = config.hook.pytest_ladder_import_rungs() or {}
        from ladder.gpu import SIMULATED, has_gpu
    except Exception as error:  # whoever writes a rung makes mistakes
        raise pytest.UsageError(f"{place_of(error, config.rootpath)}{one_line(error)}") from None
    if numba.config.DISABLE_JIT:
        raise pytest.UsageError("NUMBA_DISABLE_JIT is set: no rung could be compiled")
    about |= {"threads": threads, "simulated": SIMULATED}
    return about | ({"gpu": torch.cuda.get_device_name()} if has_gpu() else {})


def choose_simulator():
    """Let Numba simulate a GPU: it looks when its CUDA part is imported, for the first time."""
    os.environ.setdefault("NUMBA_ENABLE_CUDASIM", "1")
    numba = sys.modules.get("numba")
    if numba and "numba.cuda" not in sys.modules:  # it has read the environment already
        numba.config.ENABLE_CUDASIM = int(os.environ["NUMBA_ENABLE_CUDASIM"] or 0)


def start_threads(torch, numba):
    """Start Numba's threads, and return how many threads both libraries use.

    Numba's OpenMP layer sets the number of torch's threads when it starts. So it starts now, and
    torch gets its own number back.
    """
    own = torch.get_num_threads()
    try:
        numba.get_num_threads()
    except ValueError as error:  # there is no such threading layer
        warnings.warn(str(error), stacklevel=1)
    if torch.get_num_threads() != own:
        torch.set_num_threads(own)
    return f"torch {own}, numba {numba.config.NUMBA_NUM_THREADS} threads"


def place_of(error, root):
    """Return "file:line: " of the project's innermost line in a traceback, or ""."""
    place = ""
    for frame in traceback.extract_tb(error.__traceback__):
        path = Path(frame.filename)
        ours = root in path.parents and "site-packages" not in path.parts
        if ours and root / "ladder" not in path.parents:
            place = f"{frame.filename}:{frame.lineno}: "
    return place


def one_line(error):
    return f"{type(error).__name__}: {error}"


def notes(messages):
    """Return each message once, with how often it came."""
    counts = Counter(messages)
    return [f"{text} ({n} times)" if n > 1 else text for text, n in counts.items()]
