"""The options of this suite, and its two plugins.

bench_fixtures.py has the data, the operands and the check of correctness; report.py has what a
run says and saves. `pytest-benchmark compare` imports this file, too, and should not wait for
torch: so that is imported, and the plugins are loaded, when a run is configured.
"""

import os
from importlib.util import find_spec

import pytest

pytest_plugins = ["pytester"]  # test_report.py and test_compare.py run pytest
# requirements-dev.txt has hypothesis; who only wants to time needs none.
collect_ignore = [] if find_spec("hypothesis") else ["test_properties.py"]


def pytest_addoption(parser):
    parser.addoption(
        "--mnist",
        default="auto",
        metavar="auto|sample|PATH",
        help="the data: auto takes data/mnist.pkl.gz, or else downloads it there, or "
        "else takes the embedded sample (default: auto)",
    )
    parser.addoption(
        "--figures",
        metavar="DIR",
        help="draw the ladder, and what the course draws, into this folder",
    )


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
    if not collect_ignore:
        from hypothesis import settings

        # The same examples in each run; --hypothesis-profile=soak looks for new ones.
        fixed = {"derandomize": True, "database": None, "max_examples": 50}
        settings.register_profile("fixed", deadline=None, **fixed)
        settings.register_profile("soak", deadline=None, max_examples=3000, print_blob=True)
        settings.load_profile("fixed")

    import torch

    if not torch.cuda.is_available():
        os.environ.setdefault("NUMBA_ENABLE_CUDASIM", "1")  # read when Numba is imported
    config.pluginmanager.import_plugin("bench_fixtures")
    config.pluginmanager.import_plugin("report")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config, items):
    """Deselect what times nothing, instead of skipping it test by test."""
    if config.getoption("benchmark_only"):
        others = [item for item in items if "benchmark" not in item.fixturenames]
        items[:] = [item for item in items if "benchmark" in item.fixturenames]
        config.hook.pytest_deselected(items=others)
