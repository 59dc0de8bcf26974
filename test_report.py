"""A run of pytest on a few rungs, in a project of its own: what it shows, and what it saves."""

import json
import shutil
import sys
from pathlib import Path

import pytest

import ladder
from bench_fixtures import SAMPLE, load_once
from rungs import RUNGS, SMALL, Rung

SUITE = """
import pytest

@pytest.mark.parametrize("shape", ["5x784x10"])
@pytest.mark.parametrize("rung", "matmul_torch matmul_numpy matmul_cuda wrong_3 wrong_5".split())
def test_rung(time_rung, rung, shape, product):
    if rung == "matmul_cuda":
        pytest.skip("there is no GPU at all")
    time_rung(f"matmul {shape}", rung, product)

def test_times_nothing():
    pass
"""


@pytest.fixture
def suite(pytester, monkeypatch):
    """``suite(*args)`` runs two rungs, one without a GPU, and two that are wrong for 3 or 5 rows."""
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)  # this one may be of -n 2
    for name, rows in ("wrong_3", 3), ("wrong_5", 5):
        rung = Rung(name, lambda a, b, rows=rows: a @ b * (1 + (len(a) == rows)), (SMALL,), "cpu")
        monkeypatch.setitem(RUNGS, name, rung)
    for name in "conftest.py", "pytest.ini":
        shutil.copy(Path(__file__).parent / name, pytester.path)
    pytester.makepyfile(test_it=SUITE)
    args = f"--mnist={SAMPLE}", "-p", "no:randomly", "--benchmark-max-time=0.01"
    return lambda *more: pytester.runpytest_inprocess(*args, *more)


def test_run(suite):
    result = suite("--benchmark-json=run.json", "--figures=drawn")
    result.assert_outcomes(passed=3, skipped=1, failed=2)
    result.stdout.fnmatch_lines([
        "mnist: *mnist-sample.pkl.gz (chosen by --mnist)",
        "threads: torch *, numba *",
        "*cells differ from the float64 product*",
        "1 skipped: there is no GPU at all",
        "5x784x10*",
        "matmul_torch *1.00*1.00*",
        "matmul_cuda *not timed: there is no GPU at all",
        "wrong_5 *not timed: it failed",
        "Per multiply-add: matmul_torch*",
    ])  # fmt: skip
    run = ladder.load_run("run.json")
    rungs = [step.rung for step in ladder.ladders(run)[SMALL]]
    assert rungs == ["matmul_torch", "matmul_cuda", "matmul_numpy", "wrong_3", "wrong_5"]
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
    result.stdout.fnmatch_lines(["Per multiply-add: matmul_*"])
    result.stderr.fnmatch_lines(["*Performance has regressed*"])


def test_run_that_cannot_be_saved(suite, pytester):
    (pytester.path / "a file").touch()
    result = suite("--benchmark-autosave", "--benchmark-storage=a file")
    assert result.ret == pytest.ExitCode.INTERNAL_ERROR
    lines = ["Per multiply-add: matmul_*", "ERROR: this run could not be saved: *"]
    result.stdout.fnmatch_lines(lines)
    result.stdout.no_fnmatch_line("*Traceback*")


def test_without_benchmarks_there_is_no_ladder(suite):
    result = suite("--benchmark-disable")
    result.assert_outcomes(passed=3, skipped=1, failed=2)
    result.stdout.no_fnmatch_line("*Per multiply-add*")
    result.stdout.fnmatch_lines(["1 skipped: there is no GPU at all"])


def test_benchmarks_only(suite):
    result = suite("--benchmark-only", "-k", "cuda or nothing", "--benchmark-json=run.json")
    result.assert_outcomes(skipped=1, deselected=5)
    assert result.ret == pytest.ExitCode.OK


@pytest.mark.parametrize("option, no_jit, message", [
    ("--mnist=nope.gz", "0", "--mnist=nope.gz: there is no such file"),
    ("--figures=test_it.py", "0", "--figures: *test_it.py*"),
    ("-q", "1", "NUMBA_DISABLE_JIT is set: *"),
])  # fmt: skip
def test_refused(suite, option, no_jit, message, monkeypatch):
    monkeypatch.setenv("NUMBA_DISABLE_JIT", no_jit)
    result = suite(option)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: {message}"])


def test_refuses_to_run_without_assert(suite, pytester):
    result = pytester.run(sys.executable, "-O", "-m", "pytest")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: python -O drops assert*"])
