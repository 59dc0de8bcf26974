"""Comparing commits: the verdicts, the errors, and what is left behind."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ladder import compare
from ladder.compare import git, judge

ROOT = Path(__file__).parent.parent
CONFTEST = """
def pytest_addoption(parser):
    parser.addoption("--mnist")
    parser.addoption("--shape")
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
    def sleep():
        global now
        now += TIMES[name]
    benchmark.pedantic(sleep, rounds=2)
"""
SIX = [1.0, 1.01, 1.02, 1.0, 1.01, 9.0]  # something has disturbed the last one


@pytest.mark.parametrize("base, new, word", [
    (SIX, SIX, "same"),
    (SIX, [1.3 * t for t in SIX], "slower"),
    ([1.3 * t for t in SIX], SIX, "faster"),
    (SIX[:4], [1.3 * t for t in SIX[:4]], "unclear"),  # too few to say so
    (SIX, [1.04 * t for t in SIX], "unclear"),  # not all of it is within the threshold, or beyond
    ([1.0, 1.5, 0.7, 1.2, 0.9, 1.1], [1.0, 1.5, 0.7, 1.2, 0.9, 1.1], "unclear"),  # not earned
    (SIX, [2.0, 2.0, 2.0, 2.0, 1.0, 2.0], "unclear"),  # one of them was as fast
    ([1.0], [1.0], "unclear"),
])  # fmt: skip
def test_verdict(base, new, word):
    assert judge(base, new, 0.05)[0] == word


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A git repository, in a folder with a space, with two commits of a suite."""
    path = tmp_path / "a project"
    path.mkdir()
    monkeypatch.chdir(path)
    for key, value in {
        "PYTHONPATH": str(ROOT), "GIT_CONFIG_GLOBAL": os.devnull, "PYTEST_ADDOPTS": "--no-such",
        "GIT_CEILING_DIRECTORIES": str(tmp_path), "TMPDIR": str(tmp_path),
    }.items():  # fmt: skip
        monkeypatch.setenv(key, value)
    (path / "conftest.py").write_text(CONFTEST)
    (path / "pytest.ini").write_text("[pytest]\naddopts = -p no:hypothesispytest\n")  # for speed
    (path / ".gitignore").write_text(".benchmarks\n__pycache__\n")
    git("init", "-q")
    for times in {"changes": 4, "steady": 4, "goes": 1}, {"changes": 12, "steady": 4, "comes": 1}:
        (path / "test_it.py").write_text(SUITE % times)
        git("add", ".")
        git("-c", "user.name=A", "-c", "user.email=a@b.c", "commit", "-qm", "A commit")
    return path


def state(project):
    """What must be as before: the files, the index, the branches, and git's worktrees."""
    asked = "status -bs", "diff HEAD", "worktree list", "for-each-ref"
    said = [git("-C", str(project), *command.split()) for command in asked]
    return said, sorted(project.parent.iterdir())


def start(*args):
    command = [sys.executable, "-m", "ladder", "compare", *args]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def run(*args):
    """Return the exit status, the lines of the output without their padding, and the errors."""
    child = start(*args)
    output, errors = child.communicate()
    return child.returncode, [" ".join(line.split()) for line in output.splitlines()], errors


def test_slower(project, monkeypatch, capsys):
    """pytest-benchmark's own comparison finds the runs."""
    before = state(project)
    monkeypatch.setattr(compare, "BLOCK", 2)
    monkeypatch.setattr(compare, "CONFIRMED", 3)
    assert (compare.main(["HEAD~1", "HEAD"]), state(project)) == (1, before)
    output, errors = capsys.readouterr()
    assert [" ".join(line.split()) for line in output.splitlines()] == [
        "benchmark base new speed at least at most verdict",
        "test_sleep[steady] 4.00 s 4.00 s ×1.00 ×1.00 ×1.00 same",
        "test_sleep[changes] 4.00 s 12.0 s ÷3.00 ÷3.00 ÷3.00 slower",
        "test_sleep[goes]: only in base (HEAD~1)",
        "test_sleep[comes]: only in new (HEAD)",
        "×2 is twice as fast as base, ÷2 half as fast",
        "1 same, 0 unclear, 0 faster, 1 slower",
    ]
    assert re.search(r"3 benchmarks: \d+ s, or \d+ s if unclear", errors)
    assert compare.main(["HEAD", "HEAD~1", "-k", "changes"]) == 0
    assert "1 faster, 0 slower" in capsys.readouterr().out
    command = [sys.executable, "-m", "pytest_benchmark", "compare", "0001", "0008"]
    assert subprocess.check_output(command, text=True).count("test_sleep[changes]") == 2


def test_working_tree(project, monkeypatch, capsys):
    """Left out, NEW is the working tree; it stays as it is."""
    (project / "test_it.py").write_text(SUITE % {"changes": 12, "new": 1})
    before = state(project)
    monkeypatch.setattr(compare, "BLOCK", 2)
    status = compare.main(["HEAD", "-k", "changes or new", "--max-runs=2"])
    assert (status, state(project)) == (0, before)
    output = " ".join(capsys.readouterr().out.split())
    assert "test_sleep[changes] 12.0 s 12.0 s ×1.00 ×1.00 ×1.00 unclear" in output
    assert "test_sleep[new]: only in new (working tree)" in output


CANNOT = {
    "no commit": (["no-such"], "pass", "no-such: there is no such commit"),
    "option": (["HEAD", "--threshold=much"], "pass", "invalid float value: 'much'"),
    "selection": (["HEAD", "HEAD", "-k", "nothing"], "pass", "-k 'nothing' selects none"),
    "suite": (["HEAD"], "assert 0", r"suite fails in new \(working tree\), (.|\n)*assert 0"),
    "untracked": (["HEAD"], "file", r"git add them: \['test_new.py'\]"),
    "crash": (["HEAD"], "crash", "Traceback(.|\n)*ZeroDivisionError"),
}


@pytest.mark.parametrize("case", CANNOT)
def test_cannot_compare(project, case, monkeypatch):
    """The status is 2, also for a crash: 1 would say that something is slower."""
    args, spoil, message = CANNOT[case]
    if spoil == "crash":
        (project / "argparse.py").write_text("1 / 0")  # where it looks for modules first
    elif spoil == "file":
        (project / "test_new.py").touch()
    else:
        (project / "test_it.py").write_text(SUITE.replace("now +=", f"{spoil}; now +=") % {"x": 1})
    before = state(project)
    status, lines, errors = run(*args)
    assert (status, lines, state(project)) == (2, [], before)
    assert re.search(message, errors)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")
@pytest.mark.parametrize("name", ["SIGINT", "SIGHUP"])
def test_stopped(project, name):
    before = state(project)
    child = start("HEAD~1", "HEAD")
    assert "benchmarks: " in child.stderr.readline()
    time.sleep(0.1)
    child.send_signal(getattr(signal, name))
    output, errors = child.communicate()
    assert (child.returncode, state(project)) == (2, before)
    assert "stopped: this is what there is so far" in errors and "Traceback" not in errors
