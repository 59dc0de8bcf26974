"""Random numbers: Wichmann-Hill, and what a fork does to a generator."""

import os
import signal
import time

import numpy as np
import pytest
import torch
from fastcore.test import test_close as close
from fastcore.test import test_eq as eq
from fastcore.test import test_ne as ne

import kernels
from conftest import COURSE_SEED, needs_fork
from kernels import chunks, forked, rand, seed

COURSE_STATE = 4976, 20238, 499
COURSE_NUMBERS = 0.7645251082582081, 0.7920889799553945, 0.06912886811267205


@pytest.fixture(autouse=True)
def course_stream():
    seed(COURSE_SEED)


def test_seed():
    eq(kernels.rnd_state, COURSE_STATE)
    eq((rand(), rand(), rand()), COURSE_NUMBERS)
    seed(np.int64(COURSE_SEED))
    eq(rand(), COURSE_NUMBERS[0])


@pytest.mark.parametrize(
    "a, state",
    [
        (0, (1, 1, 1)),
        (30267, (30268, 1, 1)),
        (30268, (1, 2, 1)),
        (30268 * 30306, (1, 1, 2)),
        (30268 * 30306 * 30322, (1, 1, 1)),
        (30268 * 30306 * 30322 - 1, (30268, 30306, 30322)),
    ],
)
def test_seeds_state(a, state):
    seed(a)
    eq(kernels.rnd_state, state)


@pytest.mark.parametrize("a", [-1, 1.5, "1", None, float("nan")])
def test_seed_refuses(a):
    with pytest.raises(ValueError, match="a seed is a non-negative integer, not"):
        seed(a)
    eq(kernels.rnd_state, COURSE_STATE)


def test_rand_before_seed(monkeypatch):
    monkeypatch.setattr(kernels, "rnd_state", None)
    with pytest.raises(RuntimeError, match=r"call seed\(a\) before"):
        rand()


def test_histogram_is_flat():
    """Pearson's chi-squared test, 100 bins, false alarms: 1 in 1,000 seeds (this one is fixed)."""
    counts = np.histogram([rand() for _ in range(10_000)], bins=100, range=(0, 1))[0]
    eq(counts.sum(), 10_000)
    chi_squared = ((counts - 100.0) ** 2 / 100).sum()
    p = torch.special.gammaincc(torch.tensor(99 / 2), torch.tensor(chi_squared / 2))
    assert 0.0005 < p < 0.9995


# ---- Fork --------------------------------------------------------------------------


def torch_rand():
    return torch.rand(1).item()


def seed_anew(draw):
    """Return what the child does for numbers of its own."""

    def draw_from_new_seed():
        seed(os.getpid())
        torch.manual_seed(os.getpid())
        return draw()

    return draw_from_new_seed


@needs_fork
@pytest.mark.parametrize("draw", [rand, torch_rand], ids=["rand", "torch.rand"])
def test_fork_repeats_the_numbers(draw):
    child = forked(draw)
    eq(child, draw())
    ne(child, draw())


@needs_fork
@pytest.mark.parametrize("draw", [rand, torch_rand], ids=["rand", "torch.rand"])
def test_a_new_seed_in_the_child_is_the_cure(draw):
    ne(forked(seed_anew(draw)), draw())


@needs_fork
def test_child_leaves_in_order(monkeypatch):
    """With the exit status 0, if it isn't killed first."""
    waitpid, statuses = os.waitpid, []

    def wait(pid, options):
        pid, status = waitpid(pid, options)
        statuses.append(status)
        return pid, status

    monkeypatch.setattr(os, "waitpid", wait)
    monkeypatch.setattr(os, "kill", lambda pid, sig: None)
    eq(forked(rand), COURSE_NUMBERS[0])
    eq(statuses, [0])


@needs_fork
def test_fork_leaves_the_parent_alone():
    eq(forked.__defaults__, (10.0,))
    forked(rand)
    eq(rand(), COURSE_NUMBERS[0])
    child = int(forked(os.getpid))
    ne(child, os.getpid())
    with pytest.raises(ChildProcessError):
        os.waitpid(child, 0)


def raises():
    raise KeyError("lost")


@needs_fork
@pytest.mark.parametrize(
    "draw, error, message",
    [
        (lambda: time.sleep(60), TimeoutError, "drew nothing in 0.2 s"),
        (raises, RuntimeError, "the child process failed: KeyError: 'lost'"),
        (lambda: os._exit(1), RuntimeError, "the child process failed: died"),
        (lambda: "é" * 5000, RuntimeError, "could not convert string to float"),
        (lambda: "text", RuntimeError, "could not convert string to float"),
        (lambda: exec("raise SystemExit"), RuntimeError, "SystemExit"),
    ],
    ids=["hangs", "raises", "dies", "long message", "no number", "exits"],
)
def test_child_fails(monkeypatch, draw, error, message):
    killed, kill, ends, pipe = [], os.kill, [], os.pipe
    monkeypatch.setattr(os, "kill", lambda *args: killed.append(args) or kill(*args))

    def recorded():
        ends.extend(pipe())
        return tuple(ends)

    monkeypatch.setattr(os, "pipe", recorded)
    with pytest.raises(error, match=message):
        forked(draw, timeout=0.2 if error is TimeoutError else 10)
    ((child, sig),) = killed
    eq(sig, signal.SIGKILL)
    with pytest.raises(ChildProcessError):
        os.waitpid(child, 0)
    eq(len(ends), 2)
    for end in ends:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(end)


# ---- Many at once ------------------------------------------------------------------

RAND_ARRAYS = ["rand_array_loop", "rand_array_numba", "rand_array"]


@pytest.mark.parametrize("n", [0, 1, 2, 511, 512, 513, 1024, 1025, 7840, 100_003])
@pytest.mark.parametrize("way", RAND_ARRAYS)
def test_rand_array_is_the_stream_of_rand(way, n):
    expected = [rand() for _ in range(n)]
    state_after = kernels.rnd_state
    seed(COURSE_SEED)
    numbers = getattr(kernels, way)(n)
    eq((numbers.shape, numbers.dtype), ((n,), np.float64))
    assert numbers.tolist() == expected
    eq(kernels.rnd_state, state_after)
    getattr(kernels, way)(n)
    assert numbers.tolist() == expected  # and are not written over


@pytest.mark.parametrize("a", [0, 30268 * 30306 * 30322 - 1])
@pytest.mark.parametrize("way", RAND_ARRAYS)
def test_rand_array_goes_on_from_any_state(way, a):
    seed(a)
    expected = [rand() for _ in range(3000)]
    seed(a)
    fill = getattr(kernels, way)
    assert [*fill(1000), rand(), *fill(np.int64(1999))] == expected


def test_powers_of_a_block():
    for (a, p), powers in zip(kernels.GENERATORS, kernels.POWERS, strict=True):
        eq(powers.tolist(), [pow(a, i + 1, p) for i in range(512)])


@pytest.mark.parametrize("way", RAND_ARRAYS)
def test_rand_array_refuses(way, monkeypatch):
    for n in -1, 1.5, None:
        with pytest.raises(
            ValueError, match="count of numbers is a non-negative integer"
        ):
            getattr(kernels, way)(n)
    eq(kernels.rnd_state, COURSE_STATE)
    monkeypatch.setattr(kernels, "rnd_state", None)
    with pytest.raises(RuntimeError, match=r"call seed\(a\) before"):
        getattr(kernels, way)(1)


# ---- Timed -------------------------------------------------------------------------


@pytest.mark.parametrize("way", RAND_ARRAYS)
def test_rand_array(timed, way):
    def check(numbers):
        eq(numbers.shape, (7840,))
        close(numbers[:3], np.array(COURSE_NUMBERS), eps=1e-15)

    fill = getattr(kernels, way)
    fill(1)  # compiles
    seed(COURSE_SEED)
    timed("784x10 random numbers", check, fill, 7840)


def test_rows_of_rand(timed):
    def rows():
        return list(chunks([rand() for _ in range(7840)], 10))

    def check(rows):
        eq((len(rows), len(rows[0])), (784, 10))
        close(rows[0][:3], COURSE_NUMBERS, eps=1e-15)

    timed("784x10 random numbers", check, rows)


def test_torch_randn(timed):
    def check(x):
        eq(x.shape, torch.Size([784, 10]))
        close(x.mean(), torch.tensor(0.0), eps=6 / 7840**0.5)
        close(x.std(), torch.tensor(1.0), eps=6 / (2 * 7840) ** 0.5)

    timed("784x10 random numbers", check, torch.randn, 784, 10)


@needs_fork
def test_fork_round_trip(timed):
    timed("fork", lambda child: eq(child, COURSE_NUMBERS[0]), forked, rand)
