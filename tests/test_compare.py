"""Comparing commits: the verdicts, the errors, and what is left behind."""

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ladder import compare
from ladder.compare import git, judge

pytestmark = pytest.mark.skipif(not shutil.which("git"), reason="git is not installed")

CONFTEST = """
def pytest_addoption(parser):
    parser.addoption("--mnist")
    parser.addoption("--shape")
def pytest_benchmark_generate_machine_info(config):
    return {"cpu": {}}  # asking for the CPU takes longer than all the rest
def pytest_collection_finish(session):
    with open(LOG, "a") as log:
        print(SIDE, session.config.getoption("--shape"), *(x.name for x in session.items), file=log)
"""
SUITE = """
import os, pytest
TIMES = %s
now = 0
@pytest.mark.benchmark(timer=lambda: now)  # a clock which no load of the machine disturbs
@pytest.mark.parametrize("name", TIMES)
def test_sleep(benchmark, name):
    rounds = iter([2, 1])  # the shortest counts
    def sleep():
        global now
        now += TIMES[name] * next(rounds)
    benchmark.pedantic(sleep, rounds=2)
"""
EIGHT = [1.0, 1.01, 1.02, 1.0, 1.01, 1.0, 1.02, 9.0]  # something has disturbed the last one


@pytest.mark.parametrize("base, new, word", [
    (EIGHT, EIGHT, "same"),
    (EIGHT, [1.3 * t for t in EIGHT], "slower"),
    ([1.3 * t for t in EIGHT], EIGHT, "faster"),
    (EIGHT[:4], [1.3 * t for t in EIGHT[:4]], "unclear"),  # too few to say so
    (EIGHT, [1.04 * t for t in EIGHT], "unclear"),  # not all of it is within the threshold, or beyond
    ([1.0, 1.5, 0.7, 1.2, 0.9, 1.1], [1.0, 1.5, 0.7, 1.2, 0.9, 1.1], "unclear"),  # not earned
    (EIGHT, [2.0, 2.0, 2.0, 2.0, 1.0, 2.0, 2.0, 2.0], "unclear"),  # one of them was as fast
    ([1.0], [1.0], "unclear"), (6 * [1.0] + [9.0, 9.0], 8 * [1.0], "same"),
])  # fmt: skip
def test_verdict(base, new, word):
    assert judge(base, new, 0.05)[0] == word


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A git repository, in a folder with a space, with two commits of a suite."""
    path = tmp_path / "a project"
    (path / ".benchmarks").mkdir(parents=True)
    monkeypatch.chdir(path)
    for key, value in {
        "PYTHONPATH": str(Path(__file__).parent.parent), "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CEILING_DIRECTORIES": str(tmp_path), "TMPDIR": str(tmp_path),
        "PYTEST_ADDOPTS": "--no-such",
    }.items():  # fmt: skip
        monkeypatch.setenv(key, value)
    Path("pytest.ini").write_text("[pytest]\naddopts = -p no:hypothesispytest\n")  # for speed
    Path(".gitignore").write_text(".benchmarks\n__pycache__\n")
    git("init", "-q")
    times = {"changes": 4, "steady": 4, "goes": 1}, {"changes": 12, "steady": 4.16, "comes": 1}
    for side, suite in zip("AB", times, strict=True):
        log = f"SIDE, LOG = {side!r}, {str(path / '.benchmarks/log')!r}"
        Path("conftest.py").write_text(log + CONFTEST)
        Path("test_it.py").write_text(SUITE % suite)
        git("add", ".")
        git("-c", "user.name=A", "-c", "user.email=a@b.c", "commit", "-qm", "A commit")
    return path


def state(project):
    """What must be as before: the files, the index, the branches, and git's worktrees."""
    asked = "status -bs", "diff HEAD", "worktree list", "for-each-ref"
    said = [git("-C", str(project), *command.split()) for command in asked]
    return said, sorted(project.parent.iterdir())


def test_compare(project, monkeypatch, capsys):
    """What is clear after four processes of each side goes on no more; pytest-benchmark finds them."""
    before = state(project)
    monkeypatch.setattr(compare, "BLOCK", 2)
    monkeypatch.setattr(compare, "CONFIRMED", 6)
    args = "HEAD~1", "HEAD", "-k", "changes or steady or comes", "--shape=1x2x3"
    assert (compare.main(args), state(project)) == (1, before)
    output, errors = capsys.readouterr()
    assert [" ".join(line.split()) for line in output.splitlines()] == [
        "benchmark base new speed worst case best case verdict",
        "test_sleep[steady] 4.00 s 4.16 s ÷1.04 ÷1.04 ÷1.04 same",
        "test_sleep[changes] 4.00 s 12.0 s ÷3.00 ÷3.00 ÷3.00 slower",
        "test_sleep[comes]: only in new (HEAD)",
        "×2 is twice as fast as base, ÷2 half as fast",
        "1 same, 0 unclear, 0 faster, 1 slower",
    ]
    assert re.search(r"benchmarks: 2; \d+ s, or \d+ s if unclear", errors)
    ran = Path(".benchmarks/log").read_text().splitlines()
    assert "".join(line[0] for line in ran) == "ABBA" * 3
    assert ran[0] == "A 1x2x3 test_sleep[changes] test_sleep[steady]"
    assert {line[2:] for line in ran[8:]} == {"1x2x3 test_sleep[changes]"}
    command = [sys.executable, "-m", "pytest_benchmark", "compare", "0001", "0012"]
    assert subprocess.check_output(command, text=True).count("test_sleep[changes]") == 2


def test_working_tree(project, monkeypatch, capsys):
    """Left out, NEW is the working tree; it stays as it is."""
    (project / "test_it.py").write_text(SUITE % {"changes": 4})
    before = state(project)
    monkeypatch.setattr(compare, "BLOCK", 2)
    assert (compare.main(["HEAD", "-k", "changes", "--max-runs=2"]), state(project)) == (0, before)
    output = " ".join(capsys.readouterr().out.split())
    assert "test_sleep[changes] 12.0 s 4.00 s ×3.00 ×3.00 ×3.00 unclear" in output


def test_untracked_files(project, monkeypatch, capsys):
    """Those that aren't Python's, or a virtual environment's, are no matter; the others are named."""
    for name in "notes.txt", "venv/pyvenv.cfg", "venv/lib/x.py", "new/mine.py":
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text("")
    monkeypatch.setattr(compare, "BLOCK", 2)
    assert compare.main(["HEAD", "-k", "steady", "--max-runs=2"]) == 0
    errors = capsys.readouterr().err
    assert "as git doesn't know them yet (git add takes them in): new/mine.py\n" in errors


def test_without_git(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ValueError, match="git is not installed"):
        git("status")


CANNOT = {  # the arguments, what is written over test_it.py or sent to the process, what is said
    "no commit": (["no-such"], "", "bad revision 'no-such'"),
    "selection": (["HEAD", "-k", "nothing"], "", "-k 'nothing' selects none"),
    "suite": (["HEAD"], "assert 0", r"suite fails in new \(working tree\), (.|\n)*assert 0"),
    "index": (["HEAD"], ".git/index.lock", r"git .*stash create: status 1"),
    "crash": (["HEAD"], "argparse.py", "Traceback(.|\n)*ZeroDivisionError"),  # found first
    "interrupt": (["HEAD"], "SIGINT", "stopped: this is what there is so far"),
    "hang-up": (["HEAD"], "SIGHUP", "stopped: this is what there is so far"),
}


def obey_ctrl_c():
    """Let a child see Ctrl-C, which a script's background job ignores, and so do its children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


OBEY_CTRL_C = obey_ctrl_c if os.name == "posix" else None


@pytest.mark.parametrize("case", CANNOT)
def test_cannot_compare(project, case):
    """The status is 2, also for a crash: 1 would say that something is slower."""
    args, how, message = CANNOT[case]
    if "SIG" in how and os.name == "nt":
        pytest.skip("Windows has no such signals")
    if how.endswith(".py"):
        (project / how).write_text("1 / 0")
    elif how in ("assert 0", ".git/index.lock"):
        (project / "test_it.py").write_text(SUITE.replace("now +=", "assert 0; now +=") % "[1]")
    before = state(project)
    lock = project / ".git/index.lock"
    if how == ".git/index.lock":
        lock.touch()
    command = [sys.executable, "-m", "ladder", "compare", *args]
    child = subprocess.Popen(command, stdout=-1, stderr=-1, text=True, preexec_fn=OBEY_CTRL_C)
    if "SIG" in how:
        assert "benchmarks: " in child.stderr.readline()
        child.send_signal(getattr(signal, how))
    output, errors = child.communicate()
    lock.unlink(missing_ok=True)
    assert (child.returncode, state(project)) == (2, before)
    assert re.search(message, errors) and ("Traceback" in errors) == (case == "crash")
