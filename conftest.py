"""The options of this suite, and its two plugins.

bench_fixtures.py has the data, the operands and the check of correctness; report.py has what a
run says and saves. `pytest-benchmark compare` imports this file, too, and should not wait for
torch: so that is imported, and the plugins are loaded, when a run is configured.
"""

import os
import re
import traceback
import warnings
from argparse import ArgumentTypeError
from importlib.util import find_spec
from pathlib import Path

import pytest

from machine import limit_threads

pytest_plugins = ["pytester"]  # test_report.py and test_compare.py run pytest
has_hypothesis = find_spec("hypothesis")  # which requirements-dev.txt installs
collect_ignore = [] if has_hypothesis else ["test_properties.py"]


def pytest_addoption(parser):
    parser.addoption(
        "--mnist",
        default="auto",
        metavar="auto|sample|PATH",
        help="the data: auto takes data/mnist.pkl.gz, or else downloads it there, or "
        "else takes the embedded sample (default: auto)",
    )
    parser.addoption(
        "--shape",
        action="append",
        default=[],
        type=shape,
        metavar="MxKxN",
        help="make a ladder of this shape, instead of those of the course; may be repeated",
    )
    parser.addoption(
        "--figures",
        metavar="DIR",
        help="draw the ladder, and what the course draws, into this folder",
    )


def shape(text):
    """Return the shape "MxKxN" that a user gives, if it is one."""
    if not re.fullmatch(r"[1-9]\d{0,8}x[1-9]\d{0,8}x[1-9]\d{0,8}", text):
        raise ArgumentTypeError(f"a shape is MxKxN, such as 64x784x10, not {text}")
    return text


def pytest_configure(config):
    if not __debug__:
        raise pytest.UsageError("python -O drops assert, and with it every check")
    if os.environ.get("NUMBA_DISABLE_JIT", "0") != "0":
        raise pytest.UsageError("NUMBA_DISABLE_JIT is set: no rung could be compiled")
    if folder := config.getoption("figures"):
        try:
            (config.invocation_params.dir / folder).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise pytest.UsageError(f"--figures: {error}") from None
    if has_hypothesis:
        from hypothesis import settings

        # The same examples in each run; --hypothesis-profile=soak looks for new ones.
        fixed = {"derandomize": True, "database": None, "max_examples": 50}
        settings.register_profile("fixed", deadline=None, **fixed)
        settings.register_profile("soak", deadline=None, max_examples=3000, print_blob=True)
        settings.load_profile("fixed")

    limit_threads()  # before the libraries are imported
    with warnings.catch_warnings(record=True) as caught:
        load_plugins(config)
    for warning in caught:  # pytest shows them at the end
        config.issue_config_time_warning(warning.message, stacklevel=2)


def load_plugins(config):
    import torch

    if not torch.cuda.is_available():
        os.environ.setdefault("NUMBA_ENABLE_CUDASIM", "1")  # read when Numba is imported
    try:
        import kernels  # noqa: F401

        import beyond  # noqa: F401
    except Exception as error:  # whoever writes a rung makes mistakes
        raise pytest.UsageError(f"{place_of(error)}: {type(error).__name__}: {error}") from None
    config.pluginmanager.import_plugin("bench_fixtures")
    config.pluginmanager.import_plugin("report")


def place_of(error):
    """Return the file and the line of the rungs in which an import failed."""
    if isinstance(error, SyntaxError):
        return f"{error.filename}:{error.lineno}"
    here = Path(__file__).parent
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if Path(f.filename).parent in (here, here / "beyond")]
    return f"{own[-1].filename}:{own[-1].lineno}"


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config, items):
    """Deselect what times nothing, instead of skipping it; and for --shape all but the ladder."""
    kept = items[:]
    if config.getoption("benchmark_only") or config.getoption("shape"):
        kept = [item for item in items if "benchmark" in item.fixturenames]
    if config.getoption("shape"):
        ladder = "test_rung", "test_read_limit", "test_multiply_add_limit"
        kept = [item for item in kept if item.originalname in ladder]
    if dropped := set(items) - set(kept):
        config.hook.pytest_deselected(items=[*dropped])
    items[:] = kept
