"""The plugin of pytest: options, what is collected, what a run says and saves.

torch and the rungs are imported when a run is configured, after the machine has been looked at.
"""

import os
import re
import sys
import traceback
import warnings
from argparse import ArgumentTypeError
from contextlib import nullcontext
from importlib import metadata
from pathlib import Path

import pytest

from ladder import machine, tables
from ladder.mnist import find_mnist
from ladder.result import Result, Run
from ladder.rungs import RUNGS

LIBRARIES = "torch", "numba", "numba-cuda", "numpy", "fastcore", "pytest-benchmark"
LADDER = "test_rung", "test_read_limit", "test_multiply_add_limit"
chosen_data, facts, news, untimed, shown = (pytest.StashKey() for _ in range(5))


def pytest_addoption(parser):
    group = parser.getgroup("matmul from the foundations")
    group.addoption(
        "--mnist",
        default="auto",
        metavar="auto|sample|PATH",
        help="the data: auto takes data/mnist.pkl.gz, or else downloads it there, or "
        "else takes the embedded sample (default: auto)",
    )
    group.addoption(
        "--shape",
        action="append",
        default=[],
        type=shape,
        metavar="MxKxN",
        help="make a ladder of this shape, instead of those of the course; may be repeated",
    )
    group.addoption(
        "--figures", metavar="DIR", help="draw the ladder, and what the course draws, there"
    )


def shape(text):
    """Return the shape "MxKxN" that a user gives, if it is one."""
    if not re.fullmatch(r"[1-9]\d{0,8}x[1-9]\d{0,8}x[1-9]\d{0,8}", text):
        raise ArgumentTypeError(f"a shape is MxKxN, such as 64x784x10, not {text}")
    return text


def pytest_configure(config):
    if not __debug__:
        raise pytest.UsageError("python -O drops assert, and with it every check")
    if config.getoption("forked", False):
        raise pytest.UsageError("--forked would hang: torch's threads don't survive a fork")
    try:
        if folder := config.getoption("figures"):
            (config.invocation_params.dir / folder).mkdir(parents=True, exist_ok=True)
        choice = config.getoption("mnist")
        config.stash[chosen_data] = find_mnist(choice, config.invocation_params.dir)
    except (OSError, ValueError) as error:
        raise pytest.UsageError(str(error)) from None
    cores, why = machine.cores()
    config.stash[facts] = {
        "data": config.stash[chosen_data][0].name,
        "cores": f"{cores} ({why})",
        "settings": machine.settings(),
        "load": getattr(os, "getloadavg", lambda: [0.0])()[0],
    }
    machine.limit_threads(cores)
    config.stash[untimed] = {}
    with warnings.catch_warnings(record=True) as caught:
        import_rungs()
    config.stash[news] = [str(warning.message).partition("\n")[0] for warning in caught]
    config.pluginmanager.import_plugin("ladder.fixtures")
    config.stash[facts] |= about_libraries()
    if config.pluginmanager.has_plugin("warnings"):  # no news: what fails is not timed
        config.addinivalue_line("filterwarnings", "ignore:Benchmark fixture was not used")


def import_rungs():
    try:
        import torch

        if not torch.cuda.is_available():
            os.environ.setdefault("NUMBA_ENABLE_CUDASIM", "1")  # read when Numba is imported
        import numba

        if numba.config.DISABLE_JIT:
            raise pytest.UsageError("NUMBA_DISABLE_JIT is set: no rung could be compiled")
        import beyond  # noqa: F401
    except Exception as error:  # whoever writes a rung makes mistakes
        if isinstance(error, pytest.UsageError):
            raise
        raise pytest.UsageError(f"{place_of(error)}: {type(error).__name__}: {error}") from None


def place_of(error):
    """Return the file and the line, of this project, in which an import failed."""
    if isinstance(error, SyntaxError):
        return f"{error.filename}:{error.lineno}"
    here = str(Path(__file__).parent.parent)
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename.startswith(here)]
    frame = [f for f in frames if "site-packages" not in f.filename][-1]
    return f"{frame.filename}:{frame.lineno}"


def about_libraries():
    """Return what is known of the libraries once they are imported."""
    import numba
    import torch

    from beyond.microkernel import LANES
    from ladder.gpu import has_gpu

    found = {"simd": f"{32 * LANES}-bit SIMD", "libraries": {}}
    found["threads"] = (
        f"threads: torch {torch.get_num_threads()}, numba {numba.config.NUMBA_NUM_THREADS}"
    )
    for name in LIBRARIES:
        try:
            found["libraries"][name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            pass
    if has_gpu():
        found["gpu"] = torch.cuda.get_device_name()
    return found


def pytest_report_header(config):
    known, (path, why) = config.stash[facts], config.stash[chosen_data]
    gpu = known.get("gpu", "none; its rungs are tested in Numba's simulator, and not timed")
    lines = [
        f"mnist: {path} ({why})",
        f"gpu: {gpu}",
        f"cores: {known['cores']}; {known['threads']}; {known['simd']}",
    ]
    if known["settings"]:
        lines.append("set: " + " ".join(f"{k}={v}" for k, v in known["settings"].items()))
    return lines


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
    kept = items[:]
    if config.getoption("benchmark_only") or config.getoption("shape"):
        kept = [item for item in items if "benchmark" in item.fixturenames]
    if config.getoption("shape"):
        kept = [item for item in kept if item.originalname in LADDER]
    if dropped := set(items) - set(kept):
        config.hook.pytest_deselected(items=[*dropped])
    items[:] = kept


# ---- What is said and saved --------------------------------------------------------


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Note why a rung of the ladder was not timed."""
    report = yield
    if getattr(item, "originalname", "") == "test_rung" and "time_rung" in item.fixturenames:
        name, shape = (item.callspec.params[key] for key in ("rung", "shape"))
        result = Result.of(RUNGS[name], shape, list(RUNGS).index(name))
        if report.skipped:
            result.reason = report.longrepr[2].removeprefix("Skipped: ")
        elif report.failed:
            error = call.excinfo
            result.reason = f"it failed: {error.typename}: {error.value}".partition("\n")[0]
        if result.reason or report.when == "call":
            item.config.stash[untimed][name, shape] = result
    return report


def what_was_measured(config):
    """Return what a run adds to pytest-benchmark's JSON."""
    skipped = [result.written() for result in config.stash[untimed].values() if result.reason]
    return {"suite": config.stash[facts], "skipped": skipped}


@pytest.hookimpl(optionalhook=True)
def pytest_benchmark_update_machine_info(machine_info):
    for key in "hz_actual", "hz_actual_friendly":  # they would make every two runs differ
        machine_info["cpu"].pop(key, None)


@pytest.hookimpl(optionalhook=True)
def pytest_benchmark_update_json(config, output_json):
    output_json |= what_was_measured(config)
    if not config.getoption("benchmark_save_data"):
        for bench in output_json["benchmarks"]:
            bench["stats"].pop("data", None)


def summarize(config):
    """Say once, and draw, what the run has measured, whatever else has failed."""
    if config.stash.get(shown, False):
        return
    config.stash[shown] = True
    session = config._benchmarksession
    found = [b for b in session.benchmarks if b and not b.has_error]
    saved = {"benchmarks": [b.as_dict(include_data=False, flat=False) for b in found]}
    run = Run(saved | what_was_measured(config))
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    columns = reporter._tw.fullwidth if reporter else 100
    for line, style in tables.report(run, columns, config.getoption("verbose") > 0):
        say(config, line, style)
    busy = config.stash[facts]["load"] > max(1, int(config.stash[facts]["cores"].split()[0]) / 2)
    if busy and run.shapes:
        say(config, "Something else was running when this began: expect times that are too long.")
    for line in config.stash[news]:
        say(config, f"a library says: {line}")
    if (folder := config.getoption("figures")) and run.shapes:
        run.saved["machine_info"] = session.get_machine_info()
        say(config, draw(config, run, config.invocation_params.dir / folder))


def draw(config, run, folder):
    """Draw a run and the lesson; return what to say of it."""
    from kernels import rand, seed
    from ladder import figures
    from ladder.fixtures import load_once

    try:
        (x_train, _), *_ = load_once(config.stash[chosen_data][0])
        seed(457428938475)
        numbers = [rand() for _ in range(10_000)]
        names = figures.draw_run(run, folder) + figures.draw_lesson(x_train[0], numbers, folder)
        return f"drawn in {folder}: {', '.join(names)}"
    except Exception as error:  # the times matter more than their picture
        return f"not drawn: {type(error).__name__}: {error}".replace("\n", " ")


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
        reporter = session.config.pluginmanager.get_plugin("terminalreporter")
        if session.exitstatus == pytest.ExitCode.INTERNAL_ERROR or not reporter:
            summarize(session.config)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(config):
    try:
        return (yield)
    finally:  # also if pytest-benchmark raises, as it does for a regression
        summarize(config)
