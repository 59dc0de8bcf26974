"""Comparing commits: the verdicts, the errors, and what is left behind."""

import json
import os
import re
import subprocess
import sys
import time
from signal import Signals
from types import SimpleNamespace

import compare
import pytest

posix_only = pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")
CONFTEST = """
def pytest_addoption(parser):
    parser.addoption("--mnist")
def pytest_benchmark_generate_machine_info(config):
    return {"cpu": {}}  # asking for the CPU takes longer than all the rest
"""
SUITE = """
import os, pytest
TIMES = %s
now = 0
@pytest.mark.benchmark(timer=lambda: now)  # a clock which no load of the machine disturbs
@pytest.mark.parametrize("name", TIMES)
def test_sleep(benchmark, name):
    rounds = iter([9, 9, 0])  # all but one are disturbed
    def sleep():
        global now
        now += TIMES[name] + next(rounds)
    benchmark.pedantic(sleep, rounds=3)
    assert os.environ["NUMBA_NUM_THREADS"] == os.environ["OMP_NUM_THREADS"] == "1"
    assert os.environ["PYTHONHASHSEED"] == "0"
def test_of_the_suite():
    assert not "a benchmark, and so not run"
"""


@pytest.mark.parametrize("base, new, word, factor, low, high, more", [
    ([1], [2], "unclear", 2, 2, 2, True),  # slower, but in one run only
    ([1, 1.1], [1.2, 1.3], "slower", 1.25 / 1.05, 1.2 / 1.1, 1.3, False),
    ([1, 1.2], [1.2, 1.3], "unclear", 1.25 / 1.1, 1, 1.3, True),  # a run of each is as fast
    ([1, 1], [1.04, 1.04], "same", 1.04, 1.04, 1.04, False),  # apart, but not by the threshold
    ([1, 1], [0.96, 0.96], "same", 0.96, 0.96, 0.96, False),
    ([1, 2, 3], [3, 2, 1], "same", 1, 1 / 3, 3, False),
    ([1, 1, 1], [1, 2, 2], "unclear", 2, 1, 2, False),  # three runs are the most
])  # fmt: skip
def test_verdict(base, new, word, factor, low, high, more):
    """Of two processes the better one is a run, and two runs are needed to be sure."""
    args = SimpleNamespace(threshold=0.05, confirmed=2, max_runs=3)
    processes = [[time for best in runs for time in (9, best)] for runs in (base, new)]
    sides = [compare.Side("", "", None, {"x": times}) for times in processes]
    verdict = compare.verdicts(sides, args)["x"]
    assert verdict.word == word
    assert (verdict.factor, verdict.low, verdict.high) == pytest.approx((factor, low, high))
    assert compare.undecided(sides, args, runs=len(base)) == ["x"] * more


def commit():
    compare.git("add", ".")
    compare.git("-c", "user.name=A", "-c", "user.email=a@b.c", "commit", "-qm", "A commit")


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A git repository with two commits of a suite, and a worktree that is away just now."""
    path = tmp_path / "a project"
    path.mkdir()
    monkeypatch.chdir(path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    monkeypatch.setenv("PYTEST_ADDOPTS", "--no-such-option")
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)  # this one may be of -n 2
    (path / "conftest.py").write_text(CONFTEST)
    (path / "pytest.ini").write_text("[pytest]\naddopts = -p no:hypothesispytest\n")  # for speed
    (path / ".gitignore").write_text(".benchmarks\n__pycache__\n")
    compare.git("init", "-q")
    compare.git("config", "user.useConfigOnly", "true")  # and none is known
    for times in {"changes": 4, "steady": 4, "goes": 1}, {"changes": 12, "steady": 4, "comes": 1}:
        (path / "test_it.py").write_text(SUITE % times)
        commit()
    compare.git("worktree", "add", "-q", "--detach", str(tmp_path / "away"))
    (tmp_path / "away").rename(tmp_path / "not there")
    return path


def state(project):
    """What must be as before: the files, the index, the branches, and nothing in git's lists."""
    asked = "status -bs", "diff HEAD", "worktree list", "for-each-ref", "count-objects -v"
    said = [compare.git("-C", str(project), *command.split()) for command in asked]
    return said, sorted(project.parent.iterdir())


def start(*args):
    few = "--runs=1", "--max-runs=1", "--confirmed=1", "--threads=1"
    command = [sys.executable, compare.__file__, *few, *args]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def run(*args):
    """Return the exit status, the lines of the output without their padding, and the errors."""
    child = start(*args)
    output, errors = child.communicate()
    return child.returncode, [" ".join(line.split()) for line in output.splitlines()], errors


def test_slower(project, tmp_path_factory):
    """It takes two runs to say so; pytest-benchmark's own comparison finds them."""
    before = state(project)
    figure = tmp_path_factory.mktemp("figures") / "verdicts.png"
    more = "--max-runs=3", "--confirmed=2", f"--figure={figure}"
    status, lines, errors = run("HEAD~1", "HEAD", *more)
    assert (status, state(project), figure.exists()) == (1, before, True)
    assert lines == [
        "benchmark base new factor interval verdict",
        "test_sleep[steady] 4.00 s 4.00 s 1.00 1.00 to 1.00 same",
        "test_sleep[changes] 4.00 s 12.0 s 3.00 3.00 to 3.00 slower",
        "test_sleep[goes]: only in base (HEAD~1)",
        "test_sleep[comes]: only in new (HEAD)",
        "1 same, 0 unclear, 0 faster, 1 slower",
    ]
    assert re.findall(r": (base|new) ", errors) == ["base", "new", "new", "base"] * 2
    old, new = compare.git("rev-parse", "HEAD~1"), compare.git("rev-parse", "HEAD")
    saved = [json.loads(path.read_text()) for path in sorted(project.rglob("*_compare_*"))]
    assert [result["commit_info"]["id"] for result in saved] == [old, new, new, old] * 2
    assert [len(result["benchmarks"]) for result in saved] == [3, 3, 3, 3, 1, 1, 1, 1]
    command = [sys.executable, "-m", "pytest_benchmark", "compare", "0001", "0008"]
    assert subprocess.check_output(command, text=True).count("test_sleep[changes]") == 2


def test_working_tree_in_a_subfolder(project, monkeypatch):
    """Left out, NEW is the working tree, with its untracked files and without its ignored ones."""
    sub = project / "sub"
    (sub / ".benchmarks").mkdir(parents=True)
    compare.git("mv", "conftest.py", "pytest.ini", "test_it.py", "sub")
    commit()
    monkeypatch.chdir(sub)
    (sub / "test_it.py").write_text(SUITE % {"changes": 3})
    (sub / "test_untracked.py").write_text((SUITE % {"changes": 3}).replace("sleep", "new"))
    (sub / ".benchmarks" / "test_ignored.py").write_text("wrong")
    before = state(project)
    status, lines, _ = run("HEAD", "-k", "changes")
    assert (status, state(project)) == (0, before)
    assert lines[1:] == [
        "test_sleep[changes] 12.0 s 3.00 s 0.25 0.25 to 0.25 faster",
        "test_new[changes]: only in new (working tree)",
        "0 same, 0 unclear, 1 faster, 0 slower",
    ]


@pytest.mark.parametrize("args, spoil, message", [
    (["no-such"], "pass", "no-such: there is no such commit"),
    (["HEAD", ""], "pass", "compare.py: : there is no such commit"),
    (["HEAD", "--threshold=much"], "pass", "invalid percentage value: 'much'"),
    (["HEAD", "--threads=0"], "pass", "invalid positive value: '0'"),
    (["HEAD", "HEAD", "-k", "nothing"], "pass", "no benchmark ran: -k 'nothing' selects none"),
    (["HEAD"], "assert 0", r"the suite fails in new \(working tree\):(.|\n)*assert 0"),
    (["HEAD"], "staged", "the index holds changes that are not committed"),
    (["HEAD"], "no git", "not a git repository"),
    pytest.param(["HEAD"], "os.kill(os.getpid(), 9)", "signal 9 ended", marks=posix_only),
], ids=str)  # fmt: skip
def test_cannot_compare(project, args, spoil, message, monkeypatch):
    (project / "test_it.py").write_text(SUITE.replace("now +=", f"{spoil}; now +=") % {"x": 1})
    if spoil == "staged":
        compare.git("add", ".")
    elif spoil == "no git":
        monkeypatch.chdir(project.parent)
    before = state(project)
    status, lines, errors = run(*args)
    assert (status, lines, state(project)) == (2, [], before)
    assert re.search(message, errors) and "Traceback" not in errors


@posix_only
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_stopped_by_a_signal_that_comes_again_and_again(project, name):
    before = state(project)
    child = start("HEAD~1", "HEAD")
    while "process 2" not in (line := child.stderr.readline()):
        assert line, "it ended before its second process"
    for wait in 0.1, *[0.01] * 9:
        time.sleep(wait)
        child.send_signal(Signals[name])
    output, errors = child.communicate()
    assert (child.returncode, output, state(project)) == (2, "", before)
    assert "stopped; the runs so far are kept" in errors and "Traceback" not in errors
    (kept,) = project.rglob(".benchmarks/*/*")
    assert kept.suffix == ".json" and json.loads(kept.read_text())["benchmarks"]
