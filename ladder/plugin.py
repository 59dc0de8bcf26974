"""The plugin of pytest: options, what is collected, what a run says and saves.

torch and the rungs are imported when a run is configured, after the machine has been looked at.
"""

import os
import re
import sys
import traceback
import warnings
from argparse import ArgumentTypeError
from contextlib import nullcontext, suppress
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
from packaging.version import Version

from ladder import machine, tables
from ladder.mnist import find_mnist
from ladder.result import Result, Run
from ladder.rungs import RUNGS

LIBRARIES = "torch", "numba", "numba-cuda", "numpy", "fastcore", "pytest-benchmark"
TRIED = {"torch": "2.11", "numba": "0.60", "numpy": "2.0"}  # the oldest versions
LADDER = "test_rung", "test_read_limit", "test_multiply_add_limit"
suite, news, untimed, summarized = (pytest.StashKey() for _ in range(4))


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
    parser.addoption("--figures", metavar="DIR", help="draw the ladder and the lesson there")


def shape(text):
    """Return the shape "MxKxN" that a user gives, if it is one."""
    if not re.fullmatch(r"[1-9]\d{0,8}x[1-9]\d{0,8}x[1-9]\d{0,8}", text):
        what = "a shape is MxKxN, such as 64x784x10, of sizes from 1 to 999999999"
        raise ArgumentTypeError(f"{what}, not {text}")
    return text


def pytest_configure(config):
    if not __debug__:
        raise pytest.UsageError("python -O drops assert, and with it every check")
    if config.getoption("forked", False):
        raise pytest.UsageError("--forked would hang: torch's threads don't survive a fork")
    here = config.invocation_params.dir
    idle = config.getoption("help") or config.getoption("collectonly")  # and nothing is downloaded
    try:
        if folder := config.getoption("figures"):
            (here / folder).mkdir(parents=True, exist_ok=True)
        mnist = find_mnist("sample" if idle else config.getoption("mnist"), here)
    except (OSError, ValueError) as error:
        raise pytest.UsageError(str(error)) from None
    cores, why = machine.cores()
    config.option.mnist = mnist  # from here on the path, and why it is that one
    about = config.stash[suite] = {"data": mnist[0].name}
    about |= {"cores": cores, "why": why, "settings": machine.settings()}
    config.stash[untimed], config.stash[news] = {}, check_versions()
    machine.limit_threads(cores)
    with warnings.catch_warnings(record=True) as caught:
        import_rungs()
    config.stash[news] += [str(warning.message).partition("\n")[0] for warning in caught]
    config.pluginmanager.import_plugin("ladder.fixtures")
    about |= libraries()
    if config.pluginmanager.has_plugin("warnings"):
        # No news: where a check fails, nothing is timed.
        config.addinivalue_line("filterwarnings", "ignore:Benchmark fixture was not used")


def versions():
    """Return ``{library: version}`` of those that are installed."""
    found = {}
    for name in LIBRARIES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def check_versions():
    """Return news of libraries that were not tried; raise UsageError for what can't work."""
    found = {name: Version(text) for name, text in versions().items()}
    cuda, numpy = (found.get(name, Version("0")) for name in ("numba-cuda", "numpy"))
    if Version("0") < cuda < Version("0.31") and numpy >= Version("2.5"):
        advice = "pip install 'numpy<2.5'"
        raise pytest.UsageError(f"numba-cuda {cuda} doesn't work with numpy {numpy}: {advice}")
    old = [x for x in found if x in TRIED and found[x] < Version(TRIED[x])]
    return [f"{x} {found[x]} is older than {TRIED[x]}, the oldest that was tried" for x in old]


def import_rungs():
    try:
        import torch

        if not torch.cuda.is_available():
            os.environ.setdefault("NUMBA_ENABLE_CUDASIM", "1")  # read when Numba is imported
        os.environ.setdefault("NUMBA_CUDA_LOW_OCCUPANCY_WARNINGS", "0")  # of each small product
        import numba

        import beyond  # noqa: F401
    except Exception as error:  # whoever writes a rung makes mistakes
        place = f"{place_of(error)}: {type(error).__name__}"
        raise pytest.UsageError(f"{place}: {error}") from None
    if numba.config.DISABLE_JIT:
        raise pytest.UsageError("NUMBA_DISABLE_JIT is set: no rung could be compiled")


def place_of(error):
    """Return the file and the line, of this project, in which an import failed."""
    if isinstance(error, SyntaxError):
        return f"{error.filename}:{error.lineno}"
    root = Path(__file__).parent.parent
    ours = {root, root / "beyond", root / "ladder"}
    frames = traceback.extract_tb(error.__traceback__)
    frame = [frame for frame in frames if Path(frame.filename).parent in ours][-1]
    return f"{frame.filename}:{frame.lineno}"


def libraries():
    """Return what a run says of the libraries, once they are imported."""
    import numba
    import torch

    from beyond.microkernel import LANES
    from ladder.gpu import has_gpu

    threads = f"torch {torch.get_num_threads()}, numba {numba.config.NUMBA_NUM_THREADS} threads"
    gpu = {"gpu": torch.cuda.get_device_name()} if has_gpu() else {}
    return {"simd": f"{32 * LANES}-bit SIMD", "threads": threads, "libraries": versions()} | gpu


def pytest_report_header(config):
    about, (path, why) = config.stash[suite], config.getoption("mnist")
    gpu = about.get("gpu", "none; its rungs are tested in Numba's simulator, and not timed")
    cpu = f"{about['cores']} cores ({about['why']}), {about['threads']}, {about['simd']}"
    lines = [f"mnist: {path} ({why})", f"gpu: {gpu}", f"cpu: {cpu}"]
    return lines + [f"set: {name}={value}" for name, value in about["settings"].items()]


# ---- What is collected -------------------------------------------------------------


def pytest_generate_tests(metafunc):
    """Give a test of ``rung, shape`` all rungs of its device, with their shapes or ``--shape``."""
    test, own = metafunc.definition, metafunc.config.getoption("shape")
    given = any("rung" in mark.args[0] for mark in test.iter_markers("parametrize"))
    if {"rung", "shape"} <= {*metafunc.fixturenames} and not given:
        device = "cuda" if test.get_closest_marker("cuda") else "cpu"
        rungs = [rung for rung in RUNGS.values() if rung.device == device]
        cases = [(rung.name, shape) for rung in rungs for shape in own or rung.shapes]
        metafunc.parametrize("rung, shape", cases)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config, items):
    """Deselect what times nothing, instead of skipping it; and for --shape all but the ladder."""
    kept, own = items[:], config.getoption("shape")
    if "tile" not in config.getoption("markexpr"):
        kept = [item for item in kept if not item.get_closest_marker("tile")]
    if own or config.getoption("benchmark_only"):
        kept = [item for item in kept if "benchmark" in item.fixturenames]
    if own:
        kept = [item for item in kept if item.originalname in LADDER]
    if dropped := [item for item in items if item not in kept]:
        config.hook.pytest_deselected(items=dropped)
    items[:] = kept


# ---- What is said and saved --------------------------------------------------------


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Note why a rung of the ladder was not timed."""
    report = yield
    if getattr(item, "originalname", "") == "test_rung" and "time_rung" in item.fixturenames:
        name, shape = (item.callspec.params[key] for key in ("rung", "shape"))
        result = Result.of(RUNGS[name], shape)
        if report.failed:
            what = f"{call.excinfo.typename}: {call.excinfo.value}"
            result.reason = f"it failed: {what}".partition("\n")[0]
        elif report.skipped:
            result.reason = report.longrepr[2].removeprefix("Skipped: ")
        if result.reason or report.when == "call":
            item.config.stash[untimed][name, shape] = result
    return report


@pytest.hookimpl(optionalhook=True)
def pytest_benchmark_update_machine_info(machine_info):
    for key in "hz_actual", "hz_actual_friendly":  # they would make every two runs differ
        machine_info["cpu"].pop(key, None)


@pytest.hookimpl(optionalhook=True)
def pytest_benchmark_update_json(config, output_json):
    skipped = [result.written() for result in config.stash[untimed].values() if result.reason]
    output_json |= {"suite": config.stash[suite], "skipped": skipped}
    if not config.getoption("benchmark_save_data"):
        for bench in output_json["benchmarks"]:
            bench["stats"].pop("data", None)


def summarize(config):
    """Say once, and draw, what the run has measured, whatever else has failed."""
    if config.stash.setdefault(summarized, False):
        return
    config.stash[summarized] = True
    session, folder = config._benchmarksession, config.getoption("figures")
    found = [bench for bench in session.benchmarks if bench and not bench.has_error]
    saved = {"benchmarks": [bench.as_dict(include_data=False, flat=False) for bench in found]}
    pytest_benchmark_update_json(config, saved)
    saved["datetime"] = datetime.now().isoformat()
    if folder and found:
        saved["machine_info"] = session.get_machine_info()
    run, reporter = Run(saved), config.pluginmanager.get_plugin("terminalreporter")
    columns = reporter._tw.fullwidth if reporter else 100
    for line, style in tables.report(run, columns):
        say(config, line, style)
    for line in config.stash[news]:
        say(config, f"note: {line}")
    if folder:
        say(config, draw(config, run, config.invocation_params.dir / folder))


def draw(config, run, folder):
    """Draw a run and the lesson; return what to say of it."""
    from kernels import rand, seed
    from ladder import figures
    from ladder.fixtures import load_once

    try:
        (x_train, _), *_ = load_once(config.getoption("mnist")[0])
        seed(457428938475)
        numbers = [rand() for _ in range(10_000)]
        names = figures.draw_run(run, folder)
        names += [figures.draw_lesson(x_train[0], numbers, folder)]
        return f"drawn in {folder}: {', '.join(names)}"
    except Exception as error:  # the times matter more than their picture
        return f"not drawn: {type(error).__name__}: {error}".partition("\n")[0]


def say(config, line, style=""):
    line = tables.encodable(line, getattr(sys.stdout, "encoding", None))
    if reporter := config.pluginmanager.get_plugin("terminalreporter"):
        reporter.write_line(line, **{style: True} if style else {})
        return
    capture = config.pluginmanager.get_plugin("capturemanager")
    with capture.global_and_fixture_disabled() if capture else nullcontext():
        print(line)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_sessionfinish(session):
    try:
        return (yield)
    except OSError as error:  # pytest-benchmark could not write
        say(session.config, f"ERROR: this run could not be saved: {error}", "red")
        session.exitstatus = pytest.ExitCode.INTERNAL_ERROR
    finally:  # where pytest doesn't come to its summary
        terminal = session.config.pluginmanager.has_plugin("terminalreporter")
        if session.exitstatus == pytest.ExitCode.INTERNAL_ERROR or not terminal:
            summarize(session.config)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(config):
    try:
        return (yield)
    finally:  # also if pytest-benchmark raises, as it does for a regression
        summarize(config)
