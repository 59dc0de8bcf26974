"""The plugin of pytest: options, what is collected, what a run says and saves. torch and the rungs
are imported when a run is configured, after the machine has been looked at."""

import os
import sys
import traceback
import warnings
from contextlib import nullcontext, suppress
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
from packaging.version import Version

from ladder import figures, machine, tables
from ladder.mnist import find_mnist
from ladder.result import Result, Run
from ladder.rungs import RUNGS
from ladder.shape import Shape

LIBRARIES = "torch", "numba", "numba-cuda", "numpy", "fastcore", "pytest-benchmark"
LADDER = "test_rung", "test_read_limit", "test_multiply_add_limit"
suite, untimed = pytest.StashKey(), pytest.StashKey()


def pytest_addoption(parser):
    what = "auto (default) takes data/mnist.pkl.gz, downloads it there, or else takes the sample"
    parser.addoption("--mnist", default="auto", metavar="auto|sample|PATH", help=what)
    what = "make a ladder of this shape, instead of those of the course; may be repeated"
    parser.addoption("--shape", action="append", default=[], metavar="MxKxN", help=what)
    parser.addoption("--figures", metavar="DIR", help="draw the ladder and the lesson there")


def pytest_configure(config):
    if not __debug__:
        raise pytest.UsageError("python -O drops assert, and with it every check")
    if config.getoption("forked", False):
        raise pytest.UsageError("--forked would hang: torch's threads don't survive a fork")
    for shape in config.getoption("shape"):
        try:
            Shape.parse(shape)
        except ValueError as error:
            raise pytest.UsageError(f"--shape={error}") from None
    here = config.invocation_params.dir
    idle = config.getoption("help") or config.getoption("collectonly")  # and nothing is downloaded
    try:
        if folder := config.getoption("figures"):
            (here / folder).mkdir(parents=True, exist_ok=True)
        mnist = find_mnist("sample" if idle else config.getoption("mnist"), here)
    except (OSError, ValueError) as error:
        raise pytest.UsageError(str(error)) from None
    config.option.mnist = mnist  # from here on the path, and why it is that one
    cores, why = machine.cores()
    about = {"data": mnist[0].name, "cores": cores, "why": why, "settings": machine.settings()}
    machine.limit_threads(cores)
    with warnings.catch_warnings(record=True) as caught:
        about |= {"libraries": versions()} | import_rungs()
    about["notes"] = [str(warning.message).partition("\n")[0] for warning in caught]
    config.stash[suite], config.stash[untimed] = about, {}
    config.pluginmanager.import_plugin("ladder.fixtures")


def versions():
    """Return ``{library: version}`` of those that are installed, if they work together."""
    found = {}
    for name in LIBRARIES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    numba_cuda, numpy = (Version(found.get(name, "1")) for name in ("numba-cuda", "numpy"))
    if numba_cuda < Version("0.31") and numpy >= Version("2.5"):
        what = f"numba-cuda {numba_cuda} doesn't work with numpy {numpy}"
        raise pytest.UsageError(f"{what}: pip install 'numpy<2.5'")
    return found


def import_rungs():
    """Import torch, Numba and the rungs, and return what a run says of them."""
    try:
        import torch

        if not torch.cuda.is_available():
            os.environ.setdefault("NUMBA_ENABLE_CUDASIM", "1")  # read when Numba is imported
        os.environ.setdefault("NUMBA_CUDA_LOW_OCCUPANCY_WARNINGS", "0")  # of each small product
        import numba

        import beyond  # which registers the rungs, those of kernels.py first
        from ladder.gpu import has_gpu
    except Exception as error:  # whoever writes a rung makes mistakes
        root, frames = Path(__file__).parent.parent, traceback.extract_tb(error.__traceback__)
        ours = [x for x in frames if Path(x.filename).parent in (root, root / "beyond")]
        place = "".join(f"{x.filename}:{x.lineno}: " for x in ours[-1:])
        raise pytest.UsageError(f"{place}{type(error).__name__}: {error}") from None
    if numba.config.DISABLE_JIT:
        raise pytest.UsageError("NUMBA_DISABLE_JIT is set: no rung could be compiled")
    threads = f"torch {torch.get_num_threads()}, numba {numba.config.NUMBA_NUM_THREADS} threads"
    gpu = {"gpu": torch.cuda.get_device_name()} if has_gpu() else {}
    return {"simd": f"{32 * beyond.cpu.registers.LANES}-bit SIMD", "threads": threads} | gpu


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
    if {"rung", "shape"} <= {*metafunc.fixturenames}:
        device = "cuda" if test.get_closest_marker("cuda") else "cpu"
        rungs = [rung for rung in RUNGS.values() if rung.device == device]
        cases = [
            (rung.name, str(shape)) for rung in rungs for shape in dict.fromkeys(own or rung.shapes)
        ]
        metafunc.parametrize("rung, shape", cases)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config, items):
    """Deselect what times nothing, instead of skipping it; and for --shape all but the ladder."""
    kept, own = items[:], config.getoption("shape")
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
    if {"time_rung", "rung", "shape"} <= {*getattr(item, "fixturenames", ())}:
        name, shape = (item.callspec.params[key] for key in ("rung", "shape"))
        result = Result.of(RUNGS[name], shape)
        if report.failed:
            what = f"{call.excinfo.typename}: {call.excinfo.value}"
            result.reason = f"it failed: {what}".partition("\n")[0]
        elif report.skipped:
            result.reason = report.longrepr[2].removeprefix("Skipped: ")
        if result.reason or report.when == "call":  # what failed may pass when it is run again
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


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_sessionfinish(session):
    """Say at the very end, and draw, what the run has measured, whatever else has failed."""
    config = session.config
    try:
        return (yield)
    except OSError as error:  # pytest-benchmark could not write
        say(config, f"ERROR: this run could not be saved: {error}", "red")
        session.exitstatus = pytest.ExitCode.INTERNAL_ERROR
    finally:  # also if pytest-benchmark raises, as it does for a regression
        run, reporter = run_so_far(config), config.pluginmanager.get_plugin("terminalreporter")
        for line, style in tables.report(run, reporter._tw.fullwidth if reporter else 100):
            say(config, line, style)
        for line in config.stash[suite]["notes"]:
            say(config, f"note: {line}")
        if folder := config.getoption("figures"):
            say(config, draw(config, run, config.invocation_params.dir / folder))


def run_so_far(config):
    session = config._benchmarksession
    found = [x.as_dict(include_data=False) for x in session.benchmarks if x and not x.has_error]
    saved = {"benchmarks": found, "datetime": datetime.now().isoformat()}
    if config.getoption("figures"):  # which takes a second
        saved["machine_info"] = session.get_machine_info()
    pytest_benchmark_update_json(config, saved)
    return Run(saved)


def draw(config, run, folder):
    """Draw a run and the lesson; return what to say of it."""
    from kernels import rand, seed
    from ladder.fixtures import load_once

    try:
        (x_train, _), *_ = load_once(config.getoption("mnist")[0])
        seed(457428938475)
        names = [figures.draw_lesson(folder, x_train[0], [rand() for _ in range(10_000)])]
        names += [figures.draw_ladder(folder, run)] if run.shapes else []
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
