"""A run of pytest on a few rungs, in a project of its own: what it shows, saves and survives."""

import os
import shlex
import shutil
import sys
import warnings
from dataclasses import replace
from functools import cache
from itertools import count
from pathlib import Path
from time import sleep

import numba
import pytest
import torch

import kernels
from ladder import mnist, plugin, timing
from ladder.mnist import path_sample
from ladder.result import Run
from ladder.rungs import RUNGS, SMALL, Rung

ROOT = Path(__file__).parent.parent
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
    timed("limit", bool, sum, [1], limit=limit, way="sum", device="cpu", work=10**12)
def test_times_nothing(): pass
"""


@pytest.fixture
def suite(pytester, monkeypatch):
    """``suite(*args)`` runs four rungs of the course, one of which is skipped."""
    for name in "PYTEST_XDIST_WORKER", "PYTEST_ADDOPTS":  # this run may be of -n 2
        monkeypatch.delenv(name, raising=False)
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
        "5x784x10 *",
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
    assert len(os.listdir("drawn")) == 2


def warn(text):
    warnings.warn_explicit(text, DeprecationWarning, "library.py", 1, module="library")


BOTH, CALLS = "5x784x10, 2000x8000x1", count()
MISTAKES = {  # and, as the last two, none
    "raises": (lambda a, b: 1 // 0, f"{BOTH}: raises: it failed: ZeroDivisionError: *"),
    "none": (lambda a, b: None, f"{BOTH}: none: it failed: AssertionError: a <class 'NoneType'>*"),
    "changes": (lambda a, b: a.mul_(2) @ b / 2, f"{BOTH}: changes: it failed: *changed its ope*"),
    "cached": (cache(lambda a, b: a @ b), f"{BOTH}: cached: it failed: *the same memory twice*"),
    "threads": (lambda a, b: torch.set_num_threads(7) or a @ b, f"{BOTH}: threads: *of threads*"),
    "tired": (lambda a, b: a @ b * (next(CALLS) < 9), "5x784x10: tired: *5x10 cells differ*"),
    "lacks": (lambda a, b: __import__("no_such"), f"{BOTH}: lacks: No module named 'no_such'"),
    "edge": (lambda a, b: a[:, 1:] @ b[1:], f"{BOTH}: edge: it failed: *of 3x7 cells differ*"),
    "small": (lambda a, b: a @ b * (1 + (len(a) == 5)), "5x784x10: small: *of 5x10 cells differ*"),
    "large": (lambda a, b: a @ b * (1 + (len(a) > 5)), "2000x8000x1: large: *of 2000x1 cells di*"),
    "slow": (lambda a, b: sleep(1e-6 * a.numel()) or a @ b, "2000x8000x1: slow: *about 1? s"),
    "starts_slowly": (lambda a, b: sleep(0.01) or a @ b, ""),
    "warns": (lambda a, b: warn("news") or a @ b, ""),
}


def test_mistakes_are_told_in_one_line_and_the_others_are_timed(suite):
    for name, (fn, _) in MISTAKES.items():
        fn.__doc__ = "New."
        RUNGS[name] = Rung(name, fn, (SMALL,), order=len(RUNGS))
    result = suite("--shape=5x784x10", "--shape=2000x8000x1", "-k", "test_rung")
    result.assert_outcomes(passed=13, failed=16, skipped=5, deselected=4)
    lines = [f"not timed at {line}" for _, line in MISTAKES.values() if line]
    timed = "matmul_torch *", "starts_slowly *", "warns *"
    result.stdout.fnmatch_lines(["*DeprecationWarning: news*", *timed, *timed])
    result.stdout.fnmatch_lines_random(lines)


OLD = (dict.fromkeys(plugin.LIBRARIES, "9") | {"numba-cuda": "0.30.4", "numpy": "2.5.2"}).get
USAGE, INTERNAL = pytest.ExitCode.USAGE_ERROR, pytest.ExitCode.INTERNAL_ERROR
OPTIONS = {  # the exit status or the outcomes, a line, and what to change before
    "--benchmark-only": ({"passed": 6, "skipped": 1, "deselected": 1}, "fastest at*"),
    "--benchmark-disable": ({"passed": 7, "skipped": 1}, "*7 passed*"),
    "--shape=6x7x8": ({"passed": 5, "skipped": 1, "deselected": 2}, "6x7x8 *"),
    "--shape=60x7x8 # and 0 bytes": (0, "not timed at 60*: it needs*", timing, "free_memory", int),
    "--collect-only --mnist=auto #": (0, "mnist: *mnist-sample*", mnist, "download_mnist", None),
    "-p no:warnings": ({"passed": 7, "skipped": 1}, "fastest at*"),
    "-p no:terminal": (0, "fastest at*"),
    "--benchmark-autosave --benchmark-storage=pytest.ini": (INTERNAL, "ERROR: this run could not*"),
    "--mnist=missing": (USAGE, "*--mnist=missing: there is no such file"),
    "--mnist=pytest.ini": (USAGE, "*pytest.ini: damaged, or not MNIST*"),
    "--figures=pytest.ini": (USAGE, "*pytest.ini*"),
    "--shape=5x0x1": (USAGE, "*--shape=5x0x1: a shape is MxKxN, such as 64x784x10, of sizes*"),
    "# JIT": (USAGE, "*NUMBA_DISABLE_JIT is set: no rung could*", numba.config, "DISABLE_JIT", 1),
    "# numpy": (USAGE, "*numba-cuda 0.30.4 doesn't work with numpy 2.5.2*", plugin, "version", OLD),
}


@pytest.mark.parametrize("options", OPTIONS)
def test_options(suite, monkeypatch, options):
    expected, line, *change = OPTIONS[options]
    if change:
        monkeypatch.setattr(*change)
    result = suite(*shlex.split(options, comments=True))
    if isinstance(expected, dict):
        result.assert_outcomes(**expected)
    else:
        assert result.ret == expected
    pytest.LineMatcher(result.outlines + result.errlines).fnmatch_lines([line])
    result.stdout.no_fnmatch_line("*fastest*" if "disable" in options else "*Traceback*")


def test_a_wrong_result(suite, pytester):
    pytester.makepyfile(test_it="def test(timed): timed('name', lambda x: x == 2, min, [1, 3])")
    suite().stdout.fnmatch_lines(["*AssertionError: name: wrong: 1"])


@pytest.mark.parametrize("code, line", [
    ("1 +", "SyntaxError: invalid syntax (kernels.py, line 1)"),
    ("x = 1\nno_such", "kernels.py:2: NameError: name 'no_such' is not defined"),
])  # fmt: skip
def test_a_broken_file_is_told_in_one_line(suite, pytester, monkeypatch, code, line):
    pytester.makepyfile(kernels=code)
    pytester.syspathinsert()
    monkeypatch.setattr(plugin, "__file__", str(pytester.path / "ladder" / "plugin.py"))
    for name in [name for name in sys.modules if name.startswith(("kernels", "beyond"))]:
        monkeypatch.delitem(sys.modules, name)
    suite().stderr.fnmatch_lines([f"ERROR: *{line}"])


RUN = "-m pytest test_matmul.py --mnist=sample --benchmark-max-time=0.01".split()
RUN += ["-k", "rung and 5x784x10 and (numpy or parallel)"]


def test_an_environment_full_of_news(python):
    """Settings that a library can't read, cores that torch takes away, threads that Numba hasn't
    got: what doesn't need them is timed, and the rest says why not."""
    odd = {"NUMBA_NUM_THREADS": "auto", "NUMBA_THREADING_LAYER": "tbb", "OMP_PROC_BIND": "true"}
    status, output, _ = python(*RUN, **odd, TERM="dumb", COLUMNS="200", PYTEST_ADDOPTS="")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert f"\ncpu: {cores} cores (" in output and "\nset: OMP_PROC_BIND=true\n" in output
    assert "note: Environment variable 'NUMBA_NUM_THREADS' is defined but" in output
    assert "fastest at" in output and "\x1b" not in output
    reason = "not timed at 5x784x10: matmul_numba_parallel: it failed: ValueError: No threading"
    assert status == 0 or reason in output  # there may be a TBB


def test_without_assert(python):
    status, _, errors = python("-O", *RUN, PYTEST_ADDOPTS="")
    assert status == pytest.ExitCode.USAGE_ERROR and "python -O drops assert" in errors
