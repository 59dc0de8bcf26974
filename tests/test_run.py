"""A run of pytest on a few rungs, in a project of its own: what it shows, saves and survives."""

import json
import os
import shutil
import subprocess
import sys
import time
import warnings
from dataclasses import replace
from pathlib import Path

import numba
import pytest
import torch

import kernels
from ladder import plugin
from ladder.mnist import path_sample
from ladder.result import Run
from ladder.rungs import RUNGS, SMALL, Rung

ROOT = Path(__file__).parent.parent
# This imports parts of torch that can be imported only once; pytester forgets what a run imports.
torch.testing.assert_close(torch.ones(1), torch.ones(1))
SUITE = """
import pytest

def test_rung(time_rung, rung, shape, product):
    if rung == "matmul_numba_dot":
        pytest.skip("it has no time today")
    time_rung("matmul " + shape, rung, product)

@pytest.mark.parametrize("rung", ["matmul_torch"])
def test_rows(time_rung, rung, small_product):
    time_rung("rows", rung, small_product)

@pytest.mark.parametrize("limit", ["bytes", "flops"])
def test_read_limit(timed, limit):
    timed("limit", bool, sum, [1], limit=limit, device="cpu", work=10**12)

def test_times_nothing():
    pass
"""


def add(**fns):
    """Add rungs with these names to those of the suite."""
    for name, fn in fns.items():
        fn.__doc__ = "New."
        RUNGS[name] = Rung(name, fn, (SMALL,), order=len(RUNGS))


@pytest.fixture
def suite(pytester, monkeypatch):
    """``suite(*args)`` runs four rungs of the course, one of which is skipped."""
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)  # this one may be of -n 2
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("COLUMNS", "200")
    names = "matmul_numba_dot", "matmul_elementwise", "matmul_torch", "matmul_numpy"
    few, all_rungs = {name: replace(RUNGS[name], shapes=(SMALL,)) for name in names}, dict(RUNGS)
    RUNGS.clear()
    RUNGS.update(few)
    for name in "conftest.py", "pytest.ini":
        shutil.copy(ROOT / name, pytester.path)
    pytester.makepyfile(test_it=SUITE)
    monkeypatch.setattr(kernels, "matmul_loops", kernels.matmul_torch)  # the slow reference
    args = f"--mnist={path_sample}", "-p", "no:randomly", "--benchmark-max-time=0.01"

    def run(*more):
        with warnings.catch_warnings(action="default"):  # not an error, as in CI, in this test
            return pytester.runpytest_inprocess(*args, *more)

    yield run
    RUNGS.clear()
    RUNGS.update(all_rungs)


def test_what_a_run_shows_and_saves(suite):
    result = suite("--benchmark-json=run.json", "--figures=drawn", "-v")
    result.assert_outcomes(passed=7, skipped=1)
    result.stdout.fnmatch_lines([
        "mnist: *mnist-sample.pkl.gz (chosen by --mnist)",
        "cpu: * cores (*), torch *, numba * threads, *-bit SIMD",
        "5x784x10 *",
        "matmul_elementwise *",
        "-- beyond the course *",
        "fastest at 5x784x10: matmul_*",
        "limit of the CPU: 78.4 kFLOP take *",
        "not timed at 5x784x10: matmul_numba_dot: it has no time today",
        "drawn in *: lesson.png, ladder.png",
    ])  # fmt: skip
    run = Run.load("run.json")
    rungs = {r.rung: r for r in run.results}
    assert [*rungs] == [*RUNGS]
    medians = [b["stats"]["median"] for b in run.saved["benchmarks"] if "torch" in b["name"]]
    assert medians[0] == medians[1]  # one measurement, in both groups
    assert rungs["matmul_torch"].calls == 1 < rungs["matmul_elementwise"].calls
    assert all("waited" in bench["extra_info"] for bench in run.saved["benchmarks"])
    assert run.suite["data"] == path_sample.name and "torch" in run.suite["libraries"]
    assert "data" not in run.saved["benchmarks"][0]["stats"]
    assert len(os.listdir("drawn")) == 2


def warn(text):
    warnings.warn_explicit(text, DeprecationWarning, "library.py", 1, module="library")


MISTAKES = {
    "raises": (lambda a, b: 1 // 0, "it failed: ZeroDivisionError: *"),
    "none": (lambda a, b: None, "it failed: AssertionError: a <class 'NoneType'>*"),
    "float64": (lambda a, b: a.double() @ b.double(), "it failed: AssertionError: the dtype is*"),
    "its_input": (lambda a, b: a, "it failed: AssertionError: the shape is torch.Size([[]3, 50*"),
    "wrong_for_5": (lambda a, b: a @ b * (1 + (len(a) == 5)), "it failed: *of 50 cells differ*"),
    "in_place": (lambda a, b: a.mul_(2) @ b / 2, "it failed: *in_place has changed*"),
    "lacks": (lambda a, b: __import__("no_such"), "No module named 'no_such'"),
    "warns": (lambda a, b: a @ b if warn("news") is None else a, None),
}


def test_mistakes_are_told_in_one_line_and_the_others_are_timed(suite):
    add(**{name: fn for name, (fn, _) in MISTAKES.items()})
    result = suite("-k", "test_rung")
    result.assert_outcomes(passed=4, failed=6, skipped=2, deselected=4)
    lines = [f"not timed at 5x784x10: {name}: {why}" for name, (_, why) in MISTAKES.items() if why]
    result.stdout.fnmatch_lines(["*DeprecationWarning: news*", "matmul_torch *", "warns *", *lines])


def test_a_shape_of_ones_own(suite):
    """What is wrong for it only is not timed; what takes too long is found by a part of it."""
    add(
        wrong=lambda a, b: a @ b * (1 + (len(a) == 2000)),
        slow=lambda a, b: time.sleep(a.numel() * 1e-6) or a @ b,
        slow_to_start=lambda a, b: time.sleep(0.02) or a @ b,
    )
    result = suite("--shape=2000x8000x1", "-k", "slow or wrong")
    result.assert_outcomes(passed=1, failed=1, skipped=1, deselected=8)
    result.stdout.fnmatch_lines([
        "slow_to_start *",
        "not timed at 2000x8000x1: wrong: it failed: *of 2000 cells*",
        "not timed at 2000x8000x1: slow: it would take about 1? s",
    ])  # fmt: skip


OPTIONS = {  # what is said at the end, and the outcomes
    "--benchmark-only": ("fastest at*", {"passed": 6, "skipped": 1, "deselected": 1}),
    "--benchmark-disable": ("*7 passed*", {"passed": 7, "skipped": 1}),
    "--shape=6x7x8": ("6x7x8 *", {"passed": 5, "skipped": 1, "deselected": 2}),
    "-p no:warnings": ("fastest at*", {"passed": 7, "skipped": 1}),
    "-p no:terminal": ("fastest at*", None),
    "--benchmark-autosave --benchmark-storage=pytest.ini": ("ERROR: this run could not*", None),
    "-p breaks": ("fastest at*", None),
}


@pytest.mark.parametrize("options", OPTIONS)
def test_options(suite, pytester, options):
    """What was measured is shown with any of them, and with each failure around it."""
    pytester.makepyfile(
        breaks="def pytest_runtest_logfinish(nodeid): assert 'nothing' not in nodeid"
    )
    pytester.syspathinsert()
    line, outcomes = OPTIONS[options]
    result = suite(*options.split())
    if outcomes:
        result.assert_outcomes(**outcomes)
    result.stdout.fnmatch_lines([line])
    if "autosave" in options:
        assert result.ret == pytest.ExitCode.INTERNAL_ERROR
    if "disable" in options:
        result.stdout.no_fnmatch_line("*fastest*")
    if "breaks" not in options:
        result.stdout.no_fnmatch_line("*Traceback*")


def test_a_regression(suite, pytester):
    suite("--benchmark-save=first")
    (first,) = pytester.path.rglob("0001_first.json")
    run = json.loads(first.read_text())
    for bench in run["benchmarks"]:
        bench["stats"]["min"] = 1e-9
    first.write_text(json.dumps(run))
    result = suite("--benchmark-compare", "--benchmark-compare-fail=min:5%")
    result.stdout.fnmatch_lines(["*(0001_first)*", "fastest at*"])
    result.stderr.fnmatch_lines(["*Performance has regressed*"])


JIT, OLD = (numba.config, "DISABLE_JIT", 1), {"numba-cuda": "0.30.4", "numpy": "2.5.2"}
REFUSED = {  # an option and what to change before, and the line
    "--mnist=missing": (None, "--mnist=missing: there is no such file"),
    "--mnist=pytest.ini": (None, "*pytest.ini: damaged, or not MNIST*"),
    "--figures=pytest.ini": (None, "*pytest.ini*"),
    "--shape=5x0x1": (None, "--shape=5x0x1: a shape is MxKxN, such as 64x784x10, of sizes from 1*"),
    "-rA": (JIT, "NUMBA_DISABLE_JIT is set: no rung could be compiled"),
    "-rs": (
        (plugin, "version", {**dict.fromkeys(plugin.LIBRARIES, "9"), **OLD}.get),
        "numba-cuda 0.30.4 doesn't work with numpy 2.5.2: pip install 'numpy<2.5'",
    ),
}


@pytest.mark.parametrize("option", REFUSED)
def test_refused(suite, monkeypatch, option):
    change, line = REFUSED[option]
    if change:
        monkeypatch.setattr(*change)
    result = suite(option)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    pytest.LineMatcher(result.outlines + result.errlines).fnmatch_lines([f"*{line}"])


def test_a_broken_file_is_told_in_one_line(suite, pytester):
    pytester.makepyfile(kernels="1 +")
    result = pytester.runpytest_subprocess("--mnist=sample")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: *SyntaxError: invalid syntax (kernels.py, line 1)"])
    assert len(result.stderr.lines) <= 2


def run_suite(*args, python=(), **env):
    """Run two rungs of this project in a process of its own; return its status and its output."""
    command = [sys.executable, *python, "-m", "pytest", "test_matmul.py", "--mnist=sample", *args]
    command += ["--benchmark-max-time=0.01", "-krung and 5x784x10 and (numpy or parallel)"]
    env = {k: v for k, v in os.environ.items() if k != "PYTEST_ADDOPTS"} | env
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def test_an_environment_full_of_news():
    """Settings that a library can't read, cores that torch takes away, threads that Numba hasn't
    got: what doesn't need them is timed, and the rest says why not."""
    odd = {"NUMBA_NUM_THREADS": "auto", "NUMBA_THREADING_LAYER": "tbb", "OMP_PROC_BIND": "true"}
    status, output = run_suite(**odd, TERM="dumb", COLUMNS="200")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert f"\ncpu: {cores} cores (" in output and "\nset: OMP_PROC_BIND=true\n" in output
    assert "note: Environment variable 'NUMBA_NUM_THREADS' is defined but" in output
    assert "fastest at" in output and "\x1b" not in output
    reason = "not timed at 5x784x10: matmul_numba_parallel: it failed: ValueError: No threading"
    assert status == 0 or reason in output  # there may be a TBB


def test_without_assert():
    status, output = run_suite(python=["-O"])
    assert status == pytest.ExitCode.USAGE_ERROR and "python -O drops assert" in output
