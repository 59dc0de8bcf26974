"""Random numbers: Wichmann-Hill, and what a fork does to a generator."""

import os

import numpy as np
import pytest
import torch
from fastcore.test import test_close as close

import kernels
from kernels import chunks, forked, rand, seed
from report import COURSE_SEED

from beyond import jump_ahead

COURSE_STATE = 4976, 20238, 499
COURSE_NUMBERS = 0.7645251082582081, 0.7920889799553945, 0.06912886811267205

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform has no os.fork")


@pytest.fixture(autouse=True)
def course_stream():
    seed(COURSE_SEED)


# ---- The generator -----------------------------------------------------------------


def test_seed():
    assert kernels.rnd_state == COURSE_STATE
    assert (rand(), rand(), rand()) == COURSE_NUMBERS


@pytest.mark.parametrize(
    "a, state",
    [
        (0, (1, 1, 1)),
        (30267, (30268, 1, 1)),
        (30268, (1, 2, 1)),
        (30268 * 30306, (1, 1, 2)),
        (30268 * 30306 * 30322 - 1, (30268, 30306, 30322)),
        (np.int64(COURSE_SEED), COURSE_STATE),
    ],
)
def test_state_of_a_seed(a, state):
    seed(a)
    assert kernels.rnd_state == state


def test_mistakes(monkeypatch):
    with pytest.raises(ValueError, match="a seed is a non-negative integer, not -1"):
        seed(-1)
    monkeypatch.setattr(kernels, "rnd_state", None)
    with pytest.raises(RuntimeError, match=r"call seed\(a\) before"):
        rand()


def test_histogram_is_flat():
    """Pearson's chi-squared test, 100 bins; it fails for 1 in 1,000 seeds, and this one is fixed."""
    counts = np.histogram([rand() for _ in range(10_000)], bins=100, range=(0, 1))[0]
    assert counts.sum() == 10_000
    chi_squared = ((counts - 100.0) ** 2 / 100).sum()
    p = torch.special.gammaincc(torch.tensor(99 / 2), torch.tensor(chi_squared / 2))
    assert 0.0005 < p < 0.9995


# ---- Fork --------------------------------------------------------------------------


def torch_rand():
    return torch.rand(1).item()


def anew(draw):
    seed(os.getpid())
    torch.manual_seed(os.getpid())
    return draw()


@needs_fork
@pytest.mark.parametrize("draw", [rand, torch_rand])
def test_fork_repeats_the_numbers(draw):
    child = forked(draw)
    assert child == draw()
    assert child != draw()


@needs_fork
@pytest.mark.parametrize("draw", [rand, torch_rand])
def test_a_new_seed_in_the_child_is_the_cure(draw):
    assert forked(lambda: anew(draw)) != draw()


@needs_fork
def test_fork_leaves_the_parent_alone():
    forked(rand)
    assert rand() == COURSE_NUMBERS[0]
    child = int(forked(os.getpid))
    assert child != os.getpid()
    with pytest.raises(ChildProcessError):
        os.waitpid(child, 0)


@needs_fork
@pytest.mark.parametrize(
    "draw, message",
    [
        (lambda: {}["lost"], "KeyError: 'lost'"),
        (lambda: exec("raise SystemExit"), "SystemExit"),
        (lambda: "text", "could not convert string to float"),
        (lambda: os._exit(1), "died"),
    ],
    ids=["raises", "exits", "no number", "dies"],
)
def test_child_fails(draw, message):
    with pytest.raises(RuntimeError, match=f"the child process failed: .*{message}"):
        forked(draw)


# ---- Many at once ------------------------------------------------------------------


def rand_array_loop(n, state):
    kernels.rnd_state = state
    return np.array([rand() for _ in range(n)]), kernels.rnd_state


RAND_ARRAYS = {
    "rand_array_loop": rand_array_loop,
    "rand_array_numba": jump_ahead.rand_array_numba,
    "rand_array": jump_ahead.rand_array,
}


@pytest.mark.parametrize("n", [0, 1, 511, 512, 513, 1025, 100_003])
@pytest.mark.parametrize("a", [COURSE_SEED, 0, 30268 * 30306 * 30322 - 1])
@pytest.mark.parametrize("way", ["rand_array_numba", "rand_array"])
def test_rand_array_is_the_stream_of_rand(way, a, n):
    seed(a)
    state = kernels.rnd_state
    numbers, after = RAND_ARRAYS[way](n, state)
    assert (numbers.shape, numbers.dtype) == ((n,), np.float64)
    expected, expected_after = rand_array_loop(n, state)
    assert numbers.tolist() == expected.tolist()
    assert after == expected_after
    RAND_ARRAYS[way](n, after)
    assert numbers.tolist() == expected.tolist()  # and are not written over


# ---- Timed -------------------------------------------------------------------------


@pytest.mark.parametrize("way", RAND_ARRAYS)
def test_rand_array(timed, way):
    def check(result):
        numbers, _ = result
        assert numbers.shape == (7840,)
        close(numbers[:3], np.array(COURSE_NUMBERS), eps=1e-15)

    RAND_ARRAYS[way](1, COURSE_STATE)  # compiles
    timed("784x10 random numbers", check, RAND_ARRAYS[way], 7840, COURSE_STATE)


def test_rows_of_rand(timed):
    def rows():
        return list(chunks([rand() for _ in range(7840)], 10))

    def check(rows):
        assert (len(rows), len(rows[0])) == (784, 10)
        close(rows[0][:3], COURSE_NUMBERS, eps=1e-15)

    timed("784x10 random numbers", check, rows)


def test_torch_randn(timed):
    def check(x):
        assert x.shape == (784, 10)
        close(x.mean(), torch.tensor(0.0), eps=6 / 7840**0.5)
        close(x.std(), torch.tensor(1.0), eps=6 / (2 * 7840) ** 0.5)

    timed("784x10 random numbers", check, torch.randn, 784, 10)


@needs_fork
def test_fork_round_trip(timed):
    def check(child):
        assert child == COURSE_NUMBERS[0]

    timed("fork", check, forked, rand)
