"""What a run says and saves: the header, the ladder, the JSON file, and the progress on a terminal."""

import os
import sys
from collections import Counter
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import chain
from platform import node

import numba
import pytest
import torch
from pytest_benchmark.utils import get_machine_id

import ladder
from bench_fixtures import choose_data, has_gpu, load_once, place
from figures import figures
from kernels import rand, seed
from machine import cores
from rungs import RUNGS

COURSE_SEED = 457428938475
LIBRARIES = "torch", "numba", "numpy", "fastcore", "pytest-benchmark"
FEW = 6  # rungs, up to which a run compares each with what it was
load_before = pytest.StashKey()


def pytest_configure(config):
    if sys.stdout.isatty() and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Progress(config), "progress")


def pytest_report_header(config):
    if config.option.collectonly:
        return []
    path, why = choose_data(config)
    gpu = "none; its rungs are tested in Numba's simulator, and not timed"
    if has_gpu():
        gpu = torch.cuda.get_device_name()
    count, why_so_many = cores()
    threads = f"torch {torch.get_num_threads()}, numba {numba.get_num_threads()}"
    threads += f" ({numba.threading_layer()}); {count} cores available ({why_so_many})"
    config.stash[load_before] = load = getattr(os, "getloadavg", lambda: [0.0])()[0]
    lines = [f"mnist: {path} ({why})", f"gpu: {gpu}", f"threads: {threads}"]
    if load > 1:
        lines.append(
            f"load: {load:.1f}; something else is running, and it can slow down rungs with "
            "several threads by a factor of up to 1000"
        )
    return lines


# ---- The ladder at the end ---------------------------------------------------------


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_sessionfinish(session):
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    try:
        result = yield
        if session.exitstatus == pytest.ExitCode.INTERNAL_ERROR and reporter:
            summarize(reporter, session.config)  # as pytest doesn't come to that
        return result
    except OSError as error:  # pytest-benchmark could not write; show what it measured
        if reporter:
            summarize(reporter, session.config)
            reporter.write_line(f"ERROR: this run could not be saved: {error}", red=True)
        session.exitstatus = pytest.ExitCode.INTERNAL_ERROR


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(terminalreporter, config):
    # Also if pytest-benchmark raises in between, as it does for a regression.
    try:
        return (yield)
    finally:
        summarize(terminalreporter, config)


def summarize(terminalreporter, config):
    session = config._benchmarksession
    run = {
        "benchmarks": [
            bench.as_dict(include_data=False, flat=False)
            for bench in session.benchmarks
            if bench and not bench.has_error
        ]
    }
    complete(config, run)
    write = terminalreporter.write_line
    reasons = Counter(skip_reason(item) for item in terminalreporter.stats.get("skipped", []))
    for reason, count in reasons.items():
        write(f"{count} skipped: {reason}")
    try:
        shown, compared = with_last_run(config, run), [*hints(config, run)]
    except ladder.FAULTS:  # the cache was written by another version of this suite
        shown, compared = run, []
    verbose = config.getoption("verbose") > 0
    tables = ladder.report(shown, min(100, terminalreporter._tw.fullwidth), verbose)
    for line, style in chain(tables, compared):
        line = ladder.encodable(line, getattr(sys.stdout, "encoding", None))
        write(line, **{style: True} if style else {})
    if folder := config.getoption("figures"):
        run["machine_info"] = session.get_machine_info()
        describe(config, run)
        folder = config.invocation_params.dir / folder
        try:
            names = [path.name for _, path in figures(run, folder)]
            write(f"Drawn in {folder}: {', '.join(names)}, and the same as SVG")
        except OSError as error:
            write(f"ERROR: the run could not be drawn: {error}", red=True)


def rungs_of(run):
    """Return ``{(rung, shape): benchmark}`` of the ladder's groups in a run."""
    benches = ((bench, bench["extra_info"]) for bench in run["benchmarks"])
    return {
        (info["rung"], info["shape"]): bench
        for bench, info in benches
        if bench["group"] == f"matmul {info.get('shape')}"
    }


def with_last_run(config, run):
    """Return the run with what it did not time, as the last whole run on this machine timed it.

    That is kept in pytest's cache: it is shown, and not saved with the run.
    """
    cache, machine_id = getattr(config, "cache", None), f"{get_machine_id()} {node()}"
    if not cache:  # -p no:cacheprovider
        return run
    found, rates = rungs_of(run), ladder.rates(run["benchmarks"])
    here = {r.name: r.shapes for r in RUNGS.values() if r.device == "cpu" or has_gpu()}
    if len(rates) >= 2 and all((name, s) in found for name in here for s in here[name]):
        infos = (bench["extra_info"] for bench in found.values())
        if all(info.get("limit_share", 0) <= ladder.DISTURBED for info in infos):
            now = datetime.now().isoformat(" ", "minutes")
            limits = [bench for bench in run["benchmarks"] if "limit" in bench["extra_info"]]
            kept = {"machine": machine_id, "date": now, "benchmarks": [*limits, *found.values()]}
            cache.set("ladder/last", kept)
        return run
    last = cache.get("ladder/last", {})
    if last.get("machine") != machine_id:
        return run
    shapes = {shape for _, shape in found} | {skip["shape"] for skip in run["skipped"]}
    accounted_for = {(s["rung"], s["shape"]) for s in run["skipped"]} | {*found}
    older = [
        bench | {"extra_info": bench["extra_info"] | {"since": last["date"]}}
        for (rung, shape), bench in rungs_of(last).items()
        if rung in RUNGS and shape in shapes and (rung, shape) not in accounted_for
    ]
    shown = run | {"benchmarks": run["benchmarks"] + older}
    known = ladder.rates(last["benchmarks"])
    if known.keys() - rates.keys():
        shown["roofline_since"] = last["date"]
    ladder.add_limits(shown["benchmarks"], known | rates)
    return shown


def hints(config, run):
    """Yield how each of a few rungs compares with the run before."""
    if not getattr(config, "cache", None):
        return
    before, now = config.cache.get("ladder/medians", {}), {}
    for (rung, shape), bench in rungs_of(run).items():
        now[f"{rung} ({shape})"] = bench["stats"]["median"]
    if len(now) <= FEW and (both := now.keys() & before.keys()):
        changes = (f"{name} {ladder.factor(before[name] / now[name])}" for name in sorted(both))
        hint = "python compare.py HEAD tells whether that is noise"
        yield f"compared with the previous run: {', '.join(changes)}; {hint}", ""
    if now:
        config.cache.set("ladder/medians", before | now)


def skip_reason(report):
    return report.longrepr[2].removeprefix("Skipped: ")


def failure(report):
    """Return in one line why a test failed."""
    crash = getattr(report.longrepr, "reprcrash", None)
    return f"it failed: {crash.message.splitlines()[0]}" if crash else "it failed"


# ---- The saved run -----------------------------------------------------------------


@pytest.hookimpl(optionalhook=True)
def pytest_benchmark_update_machine_info(config, machine_info):
    # The clock rate of the moment would make every two runs differ in their machine.
    for key in "hz_actual", "hz_actual_friendly":
        machine_info["cpu"].pop(key, None)


@pytest.hookimpl(optionalhook=True)
def pytest_benchmark_update_json(config, benchmarks, output_json):
    complete(config, output_json)
    describe(config, output_json)
    if not config.getoption("benchmark_save_data"):
        for bench in output_json["benchmarks"]:
            bench["stats"].pop("data", None)


def complete(config, run):
    """Add to a run's benchmarks what the ladder's tables need beside them."""
    run["load"] = config.stash.get(load_before, 0.0)
    run["skipped"] = untimed(config.pluginmanager.get_plugin("terminalreporter"))
    ladder.add_limits(run["benchmarks"], ladder.rates(run["benchmarks"]))


def untimed(terminalreporter):
    """Return what the ladder says of the rungs that were to be timed, but were not."""
    if terminalreporter is None:  # -p no:terminal
        return []
    found = []
    for outcome in "skipped", "failed", "error":
        for report in terminalreporter.stats.get(outcome, []):
            file, _, case = report.nodeid.rpartition("::test_rung[")
            rung, _, shape = case.removesuffix("]").partition("-")
            if file and rung in RUNGS:
                reason = skip_reason(report) if outcome == "skipped" else failure(report)
                found.append(place(RUNGS[rung]) | {"shape": shape, "reason": reason})
    return found


def describe(config, run):
    """Add to a run which data, libraries and GPU it used, and what the lesson draws from them."""
    path, why = choose_data(config)
    run["mnist"] = {"file": path.name, "why": why}
    run["libraries"] = {name: version(name) for name in LIBRARIES}
    run.setdefault("datetime", datetime.now(UTC).isoformat())
    if has_gpu():
        run["gpu"] = torch.cuda.get_device_name()
    (x_train, _), *_ = load_once(path)
    digit = (x_train[0] * 256).astype("u1").reshape(28, 28)
    seed(COURSE_SEED)
    fifty, counts = [rand() for _ in range(50)], [0] * 10
    for _ in range(10_000):
        counts[int(rand() * 10)] += 1
    run["lesson"] = {
        "digit": [row.tobytes().hex() for row in digit],
        "rand": fifty,
        "histogram": counts,
    }


# ---- What is going on --------------------------------------------------------------


class Progress:
    """Shows below the line of dots, on a terminal, which benchmark is under way."""

    def __init__(self, config):
        self.config, self.item, self.done, self.total = config, None, 0, 0

    def pytest_collection_finish(self, session):
        self.total = sum(
            "benchmark" in item.fixturenames
            and not any(all(mark.args) for mark in item.iter_markers("skipif"))
            for item in session.items
        )

    def pytest_runtest_logreport(self, report):
        if report.when == "call":
            self.write("")

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logfinish(self):
        self.write("")

    def show(self, item, doing):
        if item is not self.item:
            self.item, self.done = item, self.done + 1
        self.write(f"benchmark {self.done} of {self.total}: {doing} {item.name}")

    def write(self, text):
        """Write into the next line of the terminal, and go back to where the cursor was."""
        plugins = self.config.pluginmanager
        tw = plugins.get_plugin("terminalreporter")._tw
        capture = plugins.get_plugin("capturemanager")
        column, text = tw.width_of_current_line + 1, text[: tw.fullwidth - 1]
        with capture.global_and_fixture_disabled():
            tw._file.write(f"\n\x1b[K{text}\x1b[A\x1b[{column}G")
            tw.flush()
