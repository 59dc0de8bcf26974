"""A run of pytest on a few rungs, in a project of its own: what it shows, saves and survives."""

import os
import shlex
import shutil
import signal
import subprocess
import sys
import warnings
from dataclasses import replace
from functools import cache
from itertools import count, cycle
from pathlib import Path
from time import sleep
from types import SimpleNamespace

import numba
import pytest
import torch
from pytest_benchmark.stats import Stats

import kernels
from ladder import machine, mnist, plugin, timing
from ladder.mnist import path_sample
from ladder.run import Run
from ladder.rungs import RUNGS, Rung
from ladder.shape import SMALL

ROOT = Path(__file__).parent.parent
SUITE = """
import pytest

@pytest.mark.ladder
def test_rung(time_rung, benchmark, rung, shape, product):
    if rung.name == "matmul_numba_dot":
        pytest.skip("it has no time today")
    benchmark.group = f"matmul {shape}"
    time_rung(rung, product)

@pytest.mark.benchmark(group="rows")
@pytest.mark.parametrize("rung", ["matmul_torch"], indirect=True)
def test_rows(time_rung, rung, small_product):
    time_rung(rung, small_product)

def check(result):
    assert result == 1

@pytest.mark.ladder
@pytest.mark.benchmark(group="limit")
@pytest.mark.parametrize("limit", ["call", "memory", "arithmetic"])
def test_limit(timed, benchmark, limit):
    benchmark.extra_info.update(limit=limit, way="sum", device="cpu", work=10**12)
    timed(check, sum, [1])

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
    few = {name: replace(RUNGS[name], shapes=(SMALL,)) for name in names}
    all_rungs = dict(RUNGS)
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
    result.assert_outcomes(passed=8, skipped=1)
    result.stdout.fnmatch_lines([
        "mnist: *mnist-sample.pkl.gz (chosen by --mnist)",
        "5x784x10 *",
        "-- beyond the course *",
        "fastest at 5x784x10, by its shortest round: matmul_*",
        "limits of the CPU: *78.4 kFLOP take *",
        "not timed at 5x784x10: matmul_numba_dot: it has no time today",
        "measured on: *",
        "drawn in *: ladder.png, roofline.png, lesson.png",
    ])  # fmt: skip
    run = Run.load("run.json")
    assert [x.rung for x in run.results] == ["matmul_elementwise", "matmul_torch", "matmul_numpy"]
    assert run.find(SMALL, "matmul_torch").torch_calls == 1
    assert run.find(SMALL, "matmul_elementwise").torch_calls > 1
    assert "def matmul_torch(a, b):" in run.find(SMALL, "matmul_torch").source
    torch_rung = run.about["rungs"]["matmul_torch"]
    assert torch_rung["before"] == "matmul_elementwise" and torch_rung["yardstick"]
    assert torch_rung["course"] == {"50000x784x10": 15.5e-3}
    assert all("waited" in bench["extra_info"] for bench in run.saved["benchmarks"])
    assert run.about["data"] == path_sample.name and "torch" in run.about["libraries"]
    assert len(os.listdir("drawn")) == 3


def test_what_is_shown_is_what_is_saved(suite):
    """Whatever was timed again, since its rounds disagreed."""
    spread = cycle([0.0, 0.1, 0.1])

    def unsteady(a, b):
        """New."""
        sleep(next(spread))
        return torch.from_numpy(a.numpy() @ b.numpy())

    RUNGS["unsteady"] = Rung(unsteady, (SMALL,), "the course")
    result = suite("-k", "unsteady", "--benchmark-json=run.json")
    result.stdout.fnmatch_lines(["Something else was running: 1 of 1 times*", "unsteady *??*"])
    assert Run.load("run.json").find(SMALL, "unsteady").doubt == "??"


def test_a_compiled_rung_is_timed_compiled(suite):
    """Nothing that looks at a rung changes how it is timed, on the second shape either."""
    rows_of_compiled_calls = []

    def backend(graph, inputs):
        def run(a, b):
            rows_of_compiled_calls.append(len(a))
            return graph.forward(a, b)

        return run

    @torch.compile(backend=backend, dynamic=False)
    def compiled(a, b):
        """New."""
        return a @ b

    RUNGS["compiled"] = Rung(compiled, (SMALL,), "the course")
    suite("-k", "compiled", "--shape=5x784x10", "--shape=6x784x10", "--benchmark-json=run.json")
    timed = Run.load("run.json").results
    assert [result.shape.m for result in timed] == [5, 6]
    for result in timed:
        assert rows_of_compiled_calls.count(result.shape.m) > result.rounds


def warn(text):
    warnings.warn_explicit(text, DeprecationWarning, "library.py", 1, module="library")


BOTH, CALLS = "5x784x10, 2000x8000x1", count()


@numba.njit
def of_arrays(a, b):
    return a @ b


MISTAKES = {  # and, as the last two, none
    "raises": (lambda a, b: 1 // 0, f"{BOTH}: raises: it failed: ZeroDivisionError: *"),
    "none": (lambda a, b: None, f"{BOTH}: none: it failed: AssertionError: a <class 'NoneType'>*"),
    "changes": (
        lambda a, b: a.mul_(2) @ b / 2,
        f"{BOTH}: changes, changes_b: it failed: *changed*",
    ),
    "changes_b": (lambda a, b: a @ b.mul_(2) / 2, f"{BOTH}: changes, changes_b: it failed: *"),
    "cached": (cache(lambda a, b: a @ b), f"{BOTH}: cached: it failed: *the same memory twice*"),
    "threads": (lambda a, b: torch.set_num_threads(7) or a @ b, f"{BOTH}: threads: *of threads*"),
    "tired": (lambda a, b: a @ b * (next(CALLS) < 9), "5x784x10: tired: *5x10 cells differ*"),
    "lacks": (lambda a, b: __import__("no_such"), f"{BOTH}: lacks: No module named 'no_such'"),
    "edge": (lambda a, b: a[:, 1:] @ b[1:], f"{BOTH}: edge: it failed: *of 3x7 cells differ*"),
    "small": (lambda a, b: a @ b * (1 + (len(a) == 5)), "5x784x10: small: *of 5x10 cells differ*"),
    "large": (lambda a, b: a @ b * (1 + (len(a) > 5)), "2000x8000x1: large: *of 2000x1 cells di*"),
    "slow": (lambda a, b: sleep(1e-6 * a.numel()) or a @ b, "2000x8000x1: slow: *about 1? s"),
    "by_columns": (lambda a, b: (b.T @ a.T).T, f"{BOTH}: by_columns: *c is not contiguous: retu*"),
    "of_tensors": (lambda a, b: of_arrays(a, b), f"{BOTH}: of_tensors: *TypingError: *torch.Tens*"),
    "starts_slowly": (lambda a, b: sleep(0.01) or a @ b, ""),
    "warns": (lambda a, b: warn("news") or a @ b, ""),
}


def test_mistakes_are_told_in_one_line_and_the_others_are_timed(suite):
    for name, (fn, _) in MISTAKES.items():
        fn.__name__, fn.__doc__ = name, "New."
        RUNGS[name] = Rung(fn, (SMALL,), "the course")
    result = suite("--shape=5x784x10", "--shape=2000x8000x1", "-k", "test_rung")
    result.assert_outcomes(passed=13, failed=22, skipped=5, deselected=5)
    lines = [f"not timed at {line}" for _, line in MISTAKES.values() if line]
    timed = "matmul_torch *", "starts_slowly *", "warns *"
    result.stdout.fnmatch_lines(["*DeprecationWarning: news*", *timed, *timed])
    result.stdout.fnmatch_lines_random(lines)
    result.stdout.no_fnmatch_line("*Benchmark fixture was not used*")


USAGE, INTERNAL = pytest.ExitCode.USAGE_ERROR, pytest.ExitCode.INTERNAL_ERROR
OPTIONS = {  # the exit status or the outcomes, a line, and what to change before
    "--benchmark-only": ({"passed": 7, "skipped": 1, "deselected": 1}, "fastest at*"),
    "--benchmark-disable": ({"passed": 8, "skipped": 1}, "*8 passed*"),
    "--benchmark-disable --benchmark-json=x": (
        {"passed": 8, "skipped": 1},
        "note: nothing is saved*",
    ),
    "--shape=6x7x8": ({"passed": 6, "skipped": 1, "deselected": 2}, "6x7x8 *"),
    "--shape=6X7×8": ({"passed": 6, "skipped": 1, "deselected": 2}, "6x7x8 *"),
    "--shape=60x7x8 # and 0 bytes": (0, "not timed at 60*: it needs*", timing, "free_memory", int),
    "--shape=5x784x10 -m 'not cuda'": ({"passed": 6, "skipped": 1, "deselected": 2}, "fastest*"),
    "--collect-only --mnist=auto #": (0, "mnist: *mnist-sample*", mnist, "download_mnist", None),
    "-p no:warnings": ({"passed": 8, "skipped": 1}, "fastest at*"),
    "-p no:terminal": (0, "fastest at*"),
    "--benchmark-autosave --benchmark-storage=pytest.ini": (INTERNAL, "ERROR: this run could not*"),
    "--mnist=missing": (USAGE, "*--mnist=missing: there is no such file"),
    "--mnist=pytest.ini": (USAGE, "*pytest.ini: damaged, or not MNIST*"),
    "--figures=pytest.ini": (USAGE, "*pytest.ini*"),
    "--shape=5x0x1": (USAGE, "*--shape=5x0x1: a shape is MxKxN, such as 64x784x10, of sizes*"),
    "# JIT": (USAGE, "*NUMBA_DISABLE_JIT is set: no rung could*", numba.config, "DISABLE_JIT", 1),
    "# no MemAvailable": ({"passed": 8, "skipped": 1}, "*", machine, "MEMORY", path_sample.parent),
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
    disabled = "disable" in options
    result.stdout.no_fnmatch_line("*fastest*" if disabled else "*Traceback*")
    result.stdout.no_fnmatch_line("not timed at*" if disabled else "*Traceback*")


def test_damaged_data_that_was_found_there(suite, tmp_path, monkeypatch):
    """The run says that the file can go: the next one downloads it again."""
    damaged = tmp_path / "mnist.pkl.gz"
    damaged.write_bytes(b"half of it")
    monkeypatch.setattr(mnist, "path_gz", damaged)
    result = suite("--mnist=auto")
    lines = pytest.LineMatcher(result.outlines + result.errlines)
    lines.fnmatch_lines(["*mnist.pkl.gz was found there. Delete it, and the next run*"])


@pytest.mark.parametrize("option", ["--benchmark-enable", "--benchmark-disable"])
def test_a_wrong_result(suite, pytester, option):
    """It is found before anything is timed, and where nothing is."""
    lines = "def check(x): assert x == 2, 'wrong'", "def test(timed): timed(check, min, [1, 3])"
    pytester.makepyfile(test_it="\n".join(lines))
    suite(option).stdout.fnmatch_lines(["*AssertionError: wrong*"])


def test_a_rung_that_runs_another_s_code(suite):
    def few(a, b):
        """New."""
        return a @ b

    RUNGS["few"] = Rung(few, (SMALL,), "the course", same_as=lambda shape: kernels.matmul_torch)
    suite("-k", "few", "--benchmark-json=run.json")
    assert Run.load("run.json").find(SMALL, "few").same_as == "matmul_torch"


class SteppedClock:
    """A clock that goes on by so many seconds whenever it is read."""

    def __init__(self, *steps):
        self.steps, self.now = list(steps), 0.0

    def __call__(self):
        self.now += self.steps.pop(0)
        return self.now


@pytest.mark.parametrize("again, stands", [([0, 1, 0, 1], 1.0), ([0, 9, 0, 9], 5.0)])
def test_what_was_noisy_is_timed_again(again, stands):
    """The better of the two stands."""
    stats = Stats()
    for seconds in 1.0, 9.0:
        stats.update(seconds)
    timed = SimpleNamespace(
        stats=stats,
        iterations=1,
        options={"timer": SteppedClock(*again)},
        extra_info={"waited": 0.0},
    )
    benchmark = SimpleNamespace(stats=timed, extra_info=timed.extra_info)
    measured = timing.Measurement(benchmark, lambda result: None, min, ([1],))
    stash = pytest.Stash()
    stash[timing.measurements] = [measured]
    timing.time_noisy_again(SimpleNamespace(stash=stash))
    assert timed.stats.median == stands
    assert ("timed_again" in timed.extra_info) == (stands == 1.0)


def test_an_interrupt_at_the_very_end(suite, monkeypatch):
    """What was measured is saved all the same, and says that it was interrupted."""

    def interrupt(config):
        raise KeyboardInterrupt

    monkeypatch.setattr(timing, "time_noisy_again", interrupt)
    suite("--benchmark-json=run.json").stdout.fnmatch_lines(["INTERRUPTED: *"])
    assert Run.load("run.json").interrupted == "KeyboardInterrupt"


@pytest.mark.parametrize("code, line", [
    ("1 +", "SyntaxError: invalid syntax (kernels.py, line 1)"),
    ("x = 1\nno_such", "kernels.py:2: NameError: name 'no_such' is not defined"),
])  # fmt: skip
def test_a_broken_file_is_told_in_one_line(suite, pytester, monkeypatch, code, line):
    pytester.makepyfile(kernels=code)
    pytester.syspathinsert()
    for name in [name for name in sys.modules if name.startswith(("kernels", "beyond"))]:
        monkeypatch.delitem(sys.modules, name)
    suite().stderr.fnmatch_lines([f"ERROR: *{line}"])


def test_notes_are_counted():
    assert plugin.notes(["a", "b", "a"]) == ["a (2 times)", "b"]


@pytest.mark.parametrize("plugins, message", [
    (["-p", "no:benchmark"], "pytest-benchmark is not there, which times the rungs"),
    (["-p", "codspeed_like"], "--codspeed: pytest-codspeed takes pytest-benchmark's place"),
])  # fmt: skip
def test_a_plugin_too_few_or_too_many(suite, pytester, plugins, message):
    hooks = "def pytest_addoption(parser): parser.addoption('--codspeed', default=True)"
    pytester.makepyfile(codspeed_like=hooks)
    pytester.syspathinsert()
    result = suite(*plugins)
    assert message in "\n".join(result.outlines + result.errlines)


def test_items_of_other_plugins(suite, pytester):
    """They have no fixtures; --benchmark-only and --shape leave them out."""
    pytester.makepyfile(
        linter="""
        import pytest
        class Item(pytest.Item):
            def runtest(self): pass
        class File(pytest.File):
            def collect(self): yield Item.from_parent(self, name="lint")
        def pytest_collect_file(file_path, parent):
            if file_path.suffix == ".py":
                return File.from_parent(parent, path=file_path)
    """
    )
    pytester.syspathinsert()
    for option in "--benchmark-only", "--shape=6x7x8":
        result = suite("-p", "linter", option, "test_it.py")
        assert result.ret == 0


# ---- In a process of its own --------------------------------------------------------

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


@pytest.mark.parametrize("env", [{"OMP_NUM_THREADS": "1"}, {"NUMBA_NUM_THREADS": "1"}, {}])
def test_numba_s_threads_are_not_blamed_on_a_rung(python, env):
    """Its OpenMP layer sets the number of torch's threads when it starts."""
    status, output, errors = python(*RUN, **env, PYTEST_ADDOPTS="")
    assert status == 0 and "fastest at" in output, output + errors


SMT = """
import torch
torch.get_num_threads_as_it_is, started = torch.get_num_threads, []
import numba
threads_of_numba = numba.get_num_threads
def start():  # as Numba does on a CPU of two threads a core, where torch takes the cores
    if not started:
        started.append(1), torch.set_num_threads(torch.get_num_threads() + 1)
    return threads_of_numba()
numba.get_num_threads = start
import pytest
raise SystemExit(pytest.main({args}))
"""


def test_two_threads_a_core(python):
    """On most machines Numba counts more cores than torch; a fake of one."""
    status, output, errors = python("-c", SMT.format(args=RUN[2:]), PYTEST_ADDOPTS="")
    assert status == 0 and "fastest at" in output, output + errors


def test_numba_imported_before(python):
    """As a notebook's cell does, or another plugin."""
    args = ["test_cuda.py", "--mnist=sample", "--benchmark-disable", "-q", "-k", "copies or launch"]
    for early in "import numba", "from numba import cuda":
        code = f"{early}\nimport pytest\nraise SystemExit(pytest.main({args}))"
        status, output, errors = python("-c", code, PYTEST_ADDOPTS="")
        assert status == 0, output + errors


def test_without_assert(python):
    status, _, errors = python("-O", *RUN, PYTEST_ADDOPTS="")
    assert status == pytest.ExitCode.USAGE_ERROR and "python -O drops assert" in errors


@pytest.mark.skipif(os.name != "posix", reason="Windows has no SIGTERM")
def test_a_batch_system_s_limit(tmp_path):
    """SIGTERM ends a run as Ctrl-C does: what was measured is shown and saved."""
    saved = tmp_path / "run.json"
    command = [sys.executable, "-u", *RUN[:3], "--mnist=sample", f"--benchmark-json={saved}", "-v"]
    command += ["--benchmark-only", "-k", "rung and (numpy-5x784x10 or loops)"]
    text = ""
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as run:
        for line in run.stdout:
            text += line
            if "matmul_numpy-5x784x10" in line and "PASSED" in line:
                run.send_signal(signal.SIGTERM)
    assert "INTERRUPTED: this run is not whole" in text and "fastest at 5x784x10" in text
    assert Run.load(saved).interrupted == "KeyboardInterrupt"


@pytest.mark.parametrize("where, how", [
    ("parent", ["-m", "pytest", ROOT.name]),
    ("root", ["-m", "pytest", "--import-mode=importlib"]),
    ("root", ["-c", "import sys, pytest; sys.path.remove(''); raise SystemExit(pytest.main())"]),
])  # fmt: skip
def test_where_a_run_starts(where, how):
    """Everything can be collected."""
    folder = ROOT.parent if where == "parent" else ROOT
    options = "--collect-only -q -p no:cacheprovider --mnist=sample"
    env = os.environ | {"PYTEST_ADDOPTS": options}
    command = [sys.executable, *how]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
    assert done.returncode == 0 and "test_rung[matmul_loops" in done.stdout, done.stdout[-2000:]
