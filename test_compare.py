"""Comparing commits: the verdicts, the errors, and what is left behind."""

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from fastcore.test import test_close as close
from fastcore.test import test_eq as eq

import compare
from compare import Side, Verdict
from conftest import HERE

# ---- Verdicts ----------------------------------------------------------------------


@pytest.mark.parametrize("base, new, word, factor, low, high", [
    ([1, 1], [1.3, 1.3], "slower", 1.3, 1.3, 1.3),
    ([1, 1.1], [1.2, 1.3], "slower", 1.25 / 1.05, 1.2 / 1.1, 1.3),
    ([1, 1.2], [1.2, 1.3], "unclear", 1.25 / 1.1, 1, 1.3),  # a run of each is as fast
    ([1, 1], [1.04, 1.04], "same", 1.04, 1.04, 1.04),  # apart, but not by the threshold
    ([1, 1], [0.5, 0.5], "faster", 0.5, 0.5, 0.5),
    ([1, 1], [0.96, 0.96], "same", 0.96, 0.96, 0.96),
    ([1, 2, 3], [3, 2, 1], "same", 1, 1 / 3, 3),
    ([1, 1, 1], [1, 2, 2], "unclear", 2, 1, 2),
])  # fmt: skip
def test_verdict(base, new, word, factor, low, high):
    verdict = Verdict.of(base, new, 0.05, len(base))
    eq(verdict.word, word)
    unconfirmed = Verdict.of(base, new, 0.05, len(base) + 1)
    eq(unconfirmed.word, "same" if word == "same" else "unclear")
    close([verdict.factor, verdict.low, verdict.high], [factor, low, high], eps=1e-9)


def test_a_run_is_the_better_of_two_processes():
    eq(compare.runs_of([3, 1, 2, 5, 4]), [1, 2, 4])
    sides = [Side("", "", None, {"x": t}) for t in ([1, 3, 9, 1], [2, 2, 2, 2])]
    args = SimpleNamespace(threshold=0.05, confirmed=2)
    eq(compare.verdicts(sides, args)["x"].word, "slower")


@pytest.mark.parametrize("base, new, runs, more", [
    ([1], [1], 2, False),  # same
    ([1], [2], 2, True),  # slower, on too few runs
    ([1, 1], [2, 2], 6, False),
    ([2], [1], 5, True),  # faster, on too few runs
    ([1, 1, 2, 2], [2, 2, 4, 4], 7, True),  # unclear
    ([1, 1, 2, 2], [2, 2, 4, 4], 8, False),
])  # fmt: skip
def test_undecided(base, new, runs, more):
    sides = [Side("", "", None, {"x": times * runs}) for times in (base, new)]
    args = SimpleNamespace(threshold=0.05, max_runs=8, confirmed=6)
    eq(compare.undecided(sides, args, runs), ["x"] if more else [])


# ---- Two commits -------------------------------------------------------------------

CONFTEST = """
def pytest_addoption(parser):
    parser.addoption("--mnist")

def pytest_benchmark_generate_machine_info(config):
    return {"cpu": {}}  # asking for the CPU takes longer than all the rest
"""
SUITE = """
import os

import pytest

TIMES = {times}

class Clock:
    now = 0.0

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds

clock = Clock()

@pytest.mark.benchmark(timer=clock)  # which no load of the machine disturbs
@pytest.mark.parametrize("name", TIMES)
def test_sleep(benchmark, name):
    rounds = iter([0.1, 0, 0])  # one of them is disturbed
    benchmark.pedantic(lambda: clock.sleep(TIMES[name] + next(rounds)), rounds=3)
    assert os.environ["NUMBA_NUM_THREADS"] == os.environ["OMP_NUM_THREADS"] == "1"
    assert os.environ["PYTHONHASHSEED"] == "0"

def test_of_the_suite():
    assert {passes}
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A git repository with two commits of a suite, in a folder with a space in its name."""
    path = tmp_path / "a project"
    path.mkdir()
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.chdir(path)
    monkeypatch.setenv("TMPDIR", str(scratch))
    monkeypatch.setenv("PYTEST_ADDOPTS", "--no-such-option")
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)  # this one may be of -n 2
    for who in "AUTHOR", "COMMITTER":
        monkeypatch.setenv(f"GIT_{who}_NAME", "A")
        monkeypatch.setenv(f"GIT_{who}_EMAIL", "a@b.c")

    def write(times, passes=True):
        (path / "test_it.py").write_text(SUITE.format(times=times, passes=passes))

    def commit(times):
        write(times)
        compare.git("add", ".")
        compare.git("commit", "-qm", "A commit")

    compare.git("init", "-q")
    (path / "conftest.py").write_text(CONFTEST)
    (path / "pytest.ini").write_text("[pytest]\naddopts = -p no:hypothesispytest\n")
    (path / ".gitignore").write_text(".benchmarks\n__pycache__\n")
    commit({"steady": 0.004, "changes": 0.004, "goes": 0.001})
    commit({"steady": 0.004, "changes": 0.012, "comes": 0.001})
    return SimpleNamespace(path=path, scratch=scratch, write=write)


def command(*args):
    few = "--runs=1", "--max-runs=1", "--confirmed=1", "--threads=1"
    return [sys.executable, HERE / "compare.py", *few, *args]


def run(*args):
    return subprocess.run(command(*args), capture_output=True, text=True)


def state(project):
    """What must be as before: the files, the index, the branches, and nothing in git's lists."""
    files = {p: p.read_bytes() for p in project.path.iterdir() if p.is_file()}
    status = compare.git("status", "--porcelain", "--branch")
    lists = ["worktree", "list"], ["for-each-ref"], ["count-objects", "-v"]
    return files, status, *(compare.git(*args) for args in lists)


def test_slower(project):
    """Its runs, too, are where pytest-benchmark's own comparison finds them."""
    before = state(project)
    done = run("HEAD~1", "HEAD")
    eq((done.returncode, state(project)), (1, before))
    lines = done.stdout.splitlines()
    eq(lines[0].split(), "benchmark base new factor interval verdict".split())
    assert lines[1].startswith("test_sleep[steady] ") and lines[1].endswith(" same")
    assert lines[2].startswith("test_sleep[changes] ") and lines[2].endswith(" slower")
    eq(float(lines[2].split()[5]), 3)
    eq(
        lines[3:5],
        [
            "test_sleep[goes]: only in base (HEAD~1)",
            "test_sleep[comes]: only in new (HEAD)",
        ],
    )
    eq(lines[5], "1 same, 0 unclear, 0 faster, 1 slower")
    sides = [
        line.split()[2]
        for line in done.stderr.splitlines()
        if line.startswith("process ")
    ]
    eq(sides, ["base", "new", "new", "base"])
    eq(list(project.scratch.iterdir()), [])

    saved = sorted(project.path.rglob(".benchmarks/*/*"))
    eq([path.name[:13] for path in saved], [f"000{n}_compare_" for n in (1, 2, 3, 4)])
    commits = [json.loads(path.read_text())["commit_info"]["id"] for path in saved]
    old, new = compare.git("rev-parse", "HEAD~1"), compare.git("rev-parse", "HEAD")
    eq(commits, [old, new, new, old])
    listed = subprocess.run(
        [sys.executable, "-m", "pytest_benchmark", "compare", "0001", "0002"],
        capture_output=True, text=True,
    )  # fmt: skip
    eq(listed.stdout.count("test_sleep[changes]"), 2)


def test_working_tree(project):
    """Left out, NEW is the working tree, with its untracked files and without its ignored ones."""
    (project.path / "test_it.py").unlink()
    project.write({"steady": 0.004, "changes": 0.001})
    source = (project.path / "test_it.py").read_text().replace("sleep", "new")
    (project.path / "test_untracked.py").write_text(source)
    (project.path / ".benchmarks").mkdir()
    (project.path / ".benchmarks" / "test_ignored.py").write_text("wrong")
    before = state(project)
    done = run("HEAD")
    eq((done.returncode, state(project)), (0, before))
    assert "test_sleep[changes] " in done.stdout and " faster" in done.stdout
    assert "test_new[changes]: only in new (working tree)" in done.stdout


def test_in_a_subfolder_of_the_repository(project, monkeypatch):
    (project.path / "sub").mkdir()
    for name in "conftest.py", "pytest.ini", "test_it.py":
        compare.git("mv", name, f"sub/{name}")
    compare.git("commit", "-qm", "Move")
    monkeypatch.chdir(project.path / "sub")
    done = run("HEAD", "HEAD", "-k", "steady")
    eq(
        (done.returncode, done.stdout.splitlines()[-1]),
        (0, "1 same, 0 unclear, 0 faster, 0 slower"),
    )


def test_another_worktree_that_is_away_stays(project):
    away, back = project.scratch.parent / "away", project.scratch.parent / "back"
    compare.git("worktree", "add", "-q", "--detach", str(away))
    away.rename(back)
    run("HEAD", "nonsense")
    run("HEAD", "HEAD", "-k", "nothing")
    back.rename(away)
    eq(compare.git("-C", str(away), "status", "--porcelain"), "")


@pytest.mark.parametrize("args, spoil, message", [
    (["no-such"], None, "no-such: there is no such commit"),
    (["--output=x"], None, "unrecognized arguments|arguments are required"),
    (["HEAD", "gone"], None, "gone: there is no such commit"),
    (["HEAD", ""], None, ": there is no such commit"),
    (["HEAD"], "kill", r"signal 9 ended the run of new \(working tree\)"),
    (["HEAD"], "stage", "the index holds changes that are not committed"),
    (["HEAD"], "fail", r"the suite fails in new \(working tree\):(.|\n)*assert False"),
    (["HEAD"], "syntax", r"the suite fails in new(.|\n)*SyntaxError"),
    (["HEAD", "HEAD", "-k", "nothing"], None, "no benchmark ran: -k 'nothing' selects none"),
    (["HEAD", "--threshold=much"], None, "invalid percentage value: 'much'"),
    (["HEAD", "--threads=0"], None, "invalid positive value: '0'"),
    (["HEAD"], "no git", "not a git repository"),
], ids=lambda value: value if isinstance(value, str) else None)  # fmt: skip
def test_cannot_compare(project, args, spoil, message, monkeypatch):
    if spoil == "stage":
        (project.path / "test_it.py").write_text("")
        compare.git("add", ".")
    elif spoil == "fail":
        source = (project.path / "test_it.py").read_text()
        body = "def test_sleep(benchmark, name):\n"
        (project.path / "test_it.py").write_text(
            source.replace(body, f"{body}    assert False\n")
        )
    elif spoil == "kill":
        source = (project.path / "test_it.py").read_text()
        source = source.replace(
            "    rounds =", "    os.kill(os.getpid(), 9)\n    rounds ="
        )
        (project.path / "test_it.py").write_text(source)
    elif spoil == "syntax":
        (project.path / "test_it.py").write_text("def")
    elif spoil == "no git":
        monkeypatch.chdir(project.scratch.parent)
        monkeypatch.setenv(
            "GIT_CEILING_DIRECTORIES", str(project.scratch.parent.parent)
        )
    before = spoil == "no git" or state(project)
    done = run(*args)
    eq(done.returncode, 2)
    assert re.search(message, done.stderr), done.stderr
    assert "Traceback" not in done.stderr
    eq(done.stdout, "")
    eq(spoil == "no git" or state(project), before)
    eq(list(project.scratch.iterdir()), [])


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
@pytest.mark.parametrize("sig", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_stopped(project, sig):
    before = state(project)
    child = subprocess.Popen(
        command("HEAD~1", "HEAD"),
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    while "process 2" not in (line := child.stderr.readline()):
        assert line, "it ended before its second process"
    time.sleep(0.2)
    child.send_signal(getattr(signal, sig))
    time.sleep(0.05)
    if child.poll() is None:
        child.send_signal(getattr(signal, sig))
    output, errors = child.communicate()
    eq((child.returncode, output), (2, ""))
    assert "stopped; the runs so far are kept" in errors and "Traceback" not in errors
    eq((state(project), list(project.scratch.iterdir())), (before, []))
    kept = list(project.path.rglob(".benchmarks/*/*"))
    eq([Path(path).suffix for path in kept], [".json"])
    json.loads(kept[0].read_text())
