"""A run of pytest on a few rungs, in a project of its own: what it shows, and what it saves."""

import json
import shutil
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
from bench_fixtures import SAMPLE, load_once
from rungs import RUNGS, SMALL, Rung

import ladder

# What the runs within these tests warn of when no test of theirs is under way is no news here.
pytestmark = pytest.mark.filterwarnings(
    "ignore::pytest_benchmark.logger.PytestBenchmarkWarning", "ignore:when configured"
)
SUITE = """
import pytest

@pytest.mark.parametrize("shape", ["5x784x10"])
@pytest.mark.parametrize("rung", {rungs})
def test_rung(time_rung, rung, shape, product):
    if rung == "matmul_cuda":
        pytest.skip("there is no GPU at all")
    time_rung("matmul " + shape, rung, product)

def test_times_nothing():
    pass
"""
TWO_RUNGS_AND_OTHERS = "matmul_torch matmul_numpy matmul_cuda wrong_3 wrong_5".split()


@pytest.fixture
def suite(pytester, monkeypatch):
    """``suite(*args)`` runs two rungs, one without a GPU, and two that are wrong for 3 or 5 rows."""
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)  # this one may be of -n 2
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    for name, rows in ("wrong_3", 3), ("wrong_5", 5):
        rung = Rung(name, lambda a, b, rows=rows: a @ b * (1 + (len(a) == rows)), (SMALL,), "cpu")
        monkeypatch.setitem(RUNGS, name, rung)
    for name in "conftest.py", "pytest.ini":
        shutil.copy(Path(__file__).parent / name, pytester.path)
    pytester.makepyfile(test_it=SUITE.format(rungs=TWO_RUNGS_AND_OTHERS))
    args = f"--mnist={SAMPLE}", "-p", "no:randomly", "--benchmark-max-time=0.01"
    return lambda *more: pytester.runpytest_inprocess(*args, *more)


def test_run(suite):
    result = suite("--benchmark-json=run.json", "--figures=drawn")
    result.assert_outcomes(passed=3, skipped=1, failed=2)
    result.stdout.fnmatch_lines([
        "mnist: *mnist-sample.pkl.gz (chosen by --mnist)",
        "threads: torch *, numba * (*); * cores available (*)",
        "*cells differ from the float64 product*",
        "1 skipped: there is no GPU at all",
        "5x784x10*",
        "matmul_torch *×1.00*",
        "fastest: matmul_*",
        "not timed: matmul_cuda: there is no GPU at all",
        "not timed: wrong_5: it failed: *",
    ])  # fmt: skip
    run = ladder.load_run("run.json")
    rungs = [step.rung for step in ladder.ladders(run)[SMALL]]
    assert sorted(rungs) == ["matmul_cuda", "matmul_numpy", "matmul_torch", "wrong_3", "wrong_5"]
    assert run["mnist"] == {"file": "mnist-sample.pkl.gz", "why": "chosen by --mnist"}
    assert "torch" in run["libraries"] and "hz_actual" not in run["machine_info"]["cpu"]
    assert run["load"] >= 0 and "data" not in run["benchmarks"][0]["stats"]
    (x_train, _), *_ = load_once(SAMPLE)
    digit = [[*bytes.fromhex(row)] for row in run["lesson"]["digit"]]
    assert digit == (x_train[0] * 256).reshape(28, 28).tolist()
    assert run["lesson"]["rand"][:2] == pytest.approx([0.7645251082582081, 0.7920889799553945])
    assert sum(run["lesson"]["histogram"]) == 10_000
    assert {p.stem for p in Path("drawn").iterdir()} == {"ladder", "digit", "rand", "histogram"}


def test_regression_still_shows_the_ladder(suite, pytester):
    suite("-p", "no:terminal", "--benchmark-save=first")
    (first,) = pytester.path.rglob("0001_first.json")
    run = json.loads(first.read_text())
    for bench in run["benchmarks"]:
        bench["stats"]["min"] = 1e-9
    first.write_text(json.dumps(run))
    result = suite("--benchmark-compare", "--benchmark-compare-fail=min:5%")
    result.stdout.fnmatch_lines(["fastest: matmul_*"])
    result.stderr.fnmatch_lines(["*Performance has regressed*"])


def test_run_that_cannot_be_saved(suite, pytester):
    (pytester.path / "a file").touch()
    result = suite("--benchmark-autosave", "--benchmark-storage=a file")
    assert result.ret == pytest.ExitCode.INTERNAL_ERROR
    lines = ["fastest: matmul_*", "ERROR: this run could not be saved: *"]
    result.stdout.fnmatch_lines(lines)
    result.stdout.no_fnmatch_line("*Traceback*")


def test_without_benchmarks_there_is_no_ladder(suite):
    result = suite("--benchmark-disable")
    result.assert_outcomes(passed=3, skipped=1, failed=2)
    result.stdout.no_fnmatch_line("*fastest: *")
    result.stdout.fnmatch_lines(["1 skipped: there is no GPU at all"])


def test_benchmarks_only(suite):
    result = suite("--benchmark-only", "-k", "cuda or nothing", "--benchmark-json=run.json")
    result.assert_outcomes(skipped=1, deselected=5)
    assert result.ret == pytest.ExitCode.OK


def warn(text):
    warnings.warn_explicit(text, DeprecationWarning, "library.py", 1, module="library")


MISTAKES = {
    "raises": (lambda a, b: 1 // 0, "it failed: ZeroDivisionError: *"),
    "none": (lambda a, b: None, "it failed: AssertionError: a <class 'NoneType'>*"),
    "float64": (lambda a, b: a.double() @ b.double(), "it failed: AssertionError: the dtype is*"),
    "its_input": (lambda a, b: a, "it failed: AssertionError: the shape is (3, 50)*"),
    "in_place_later": (
        lambda a, b: a.mul_(1) @ b if len(a) == 5 else a @ b,
        "it failed: AssertionError: in_place_later has*",
    ),
    "in_place": (
        lambda a, b: a.mul_(2) @ b / 2,
        "it failed: AssertionError: in_place has*",
    ),
    "warns": (lambda a, b: a @ b if warn("news") is None else a, None),
}


def test_mistakes_are_told_in_one_line_and_the_others_are_timed(suite, pytester, monkeypatch):
    for name, (fn, _) in MISTAKES.items():
        monkeypatch.setitem(RUNGS, name, Rung(name, fn, (SMALL,), "cpu"))
    rungs = ["matmul_torch", "matmul_numpy", *MISTAKES]
    pytester.makepyfile(test_it=SUITE.format(rungs=rungs))
    result = suite()
    result.assert_outcomes(passed=4, failed=6, warnings=2)
    lines = [f"not timed: {name}: {message}" for name, (_, message) in MISTAKES.items() if message]
    result.stdout.fnmatch_lines(["matmul_torch *", "matmul_numpy *", "warns *", *lines])


def test_a_broken_file_is_told_in_one_line(suite, pytester):
    pytester.makepyfile(kernels="1 +", test_it="def test(): pass")
    result = pytester.runpytest_subprocess()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: *kernels.py:1: SyntaxError: invalid syntax*"])
    assert len(result.stderr.lines) <= 2


LADDER = """
import pytest
from bench_fixtures import cases

@pytest.mark.parametrize("rung, shape", cases("cpu"))
def test_rung(time_rung, rung, shape, product):
    time_rung("matmul " + shape, rung, product)

@pytest.mark.parametrize("limit", ["bytes", "flops"])
def test_read_limit(timed, limit):
    timed("limit", bool, sum, [1], limit=limit.replace("bytes", "read"), device="cpu", **{limit: 10**12})

def test_other(benchmark):
    benchmark(int)
"""


@pytest.fixture
def whole_ladder(suite, pytester, monkeypatch):
    """`suite` with a ladder of three rungs."""
    for name in [*RUNGS]:
        if name not in ("matmul_loops", "matmul_torch", "matmul_numpy"):
            monkeypatch.delitem(RUNGS, name)
        else:
            monkeypatch.setitem(RUNGS, name, replace(RUNGS[name], shapes=(SMALL,)))
    pytester.makepyfile(test_it=LADDER)
    return suite


def test_one_rung_stands_in_the_ladder_of_the_last_whole_run(whole_ladder):
    whole_ladder("--benchmark-only").stdout.no_fnmatch_line("*°*")
    result = whole_ladder("-k", "numpy", "--benchmark-json=run.json")
    result.stdout.fnmatch_lines([
        "matmul_loops *°*",
        "matmul_torch *°*",
        "matmul_numpy *µs*",
        "° not timed now: taken from the last whole run, of 20*",
        "The roofline was measured in the last whole run, of 20*",
        "compared with the previous run: matmul_numpy (5x784x10) [×÷]*",
    ])  # fmt: skip
    (bench,) = json.loads(Path("run.json").read_text())["benchmarks"]
    assert (
        bench["extra_info"]["rung"] == "matmul_numpy" and "limit_share" not in bench["extra_info"]
    )


def test_own_shapes(whole_ladder):
    result = whole_ladder("--shape=6x7x8", "--shape=2000x2000x20")
    result.assert_outcomes(passed=7, skipped=1, deselected=1)
    result.stdout.fnmatch_lines([
        "6x7x8 *", "matmul_loops *", "matmul_torch *", "matmul_numpy *", "fastest: *",
        "2000x2000x20 *", "matmul_torch *", "matmul_numpy *",
        "fastest: *",
        "not timed: matmul_loops: it would take about * s, extrapolated from 5x784x10",
    ])  # fmt: skip


NEWS = """
import warnings

import pytest

warnings.warn("at import")

def pytest_configure():
    warnings.warn("when configured")

@pytest.fixture(autouse=True)
def in_a_test():
    warnings.warn("in a test")

@pytest.hookimpl(tryfirst=True)
def pytest_terminal_summary():
    warnings.warn("at the end")
"""


def test_warnings_of_others_are_news(suite, pytester):
    pytester.makepyfile(news=NEWS)
    pytester.syspathinsert()
    result = suite("-p", "news", "-k", "torch")
    result.assert_outcomes(passed=1, deselected=5, warnings=3)
    result.stdout.fnmatch_lines(["*warnings summary*", "*in a test*", "*at the end*"])


def test_a_warning_of_our_own_is_a_mistake(suite, pytester):
    pytester.makepyfile(test_it="import warnings\n\ndef test():\n    warnings.warn('own')\n")
    suite().assert_outcomes(failed=1)


def test_internal_error_keeps_what_was_measured(suite, pytester):
    news = (
        "def pytest_runtest_logfinish(nodeid):\n    assert 'matmul_cuda' not in nodeid, 'broken'\n"
    )
    pytester.makepyfile(breaks=news)
    pytester.syspathinsert()
    result = suite("-p", "breaks", "--benchmark-json=run.json")
    assert result.ret == pytest.ExitCode.INTERNAL_ERROR
    result.stdout.fnmatch_lines(["INTERNALERROR> *broken*", "fastest: matmul_*"])
    assert len(json.loads(Path("run.json").read_text())["benchmarks"]) == 2


def test_a_saved_run_of_another_machine(suite, pytester):
    suite("--benchmark-save=first")
    (first,) = pytester.path.rglob("0001_first.json")
    first.write_text(first.read_text().replace('"machine"', '"another"'))
    result = suite("--benchmark-compare", "-k", "torch or numpy")
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(["*(0001_first)*", "fastest: matmul_*"])


@pytest.mark.parametrize("option, no_jit, message", [
    ("--mnist=nope.gz", "0", "--mnist=nope.gz: there is no such file"),
    ("--figures=test_it.py", "0", "--figures: *test_it.py*"),
    ("--shape=5x784", "0", "*--shape: a shape is MxKxN, such as 64x784x10, not 5x784"),
    ("-q", "1", "NUMBA_DISABLE_JIT is set: *"),
])  # fmt: skip
def test_refused(suite, option, no_jit, message, monkeypatch):
    monkeypatch.setenv("NUMBA_DISABLE_JIT", no_jit)
    result = suite(option)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"*{message}"])


def test_refuses_to_run_without_assert(suite, pytester):
    result = pytester.run(sys.executable, "-O", "-m", "pytest")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: python -O drops assert*"])
