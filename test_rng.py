"""Random numbers: Wichmann and Hill's generator, and what a fork does to it."""

import os
import warnings

import numpy as np
import pytest
import torch
from fastcore.test import test_close as close

import kernels
from beyond import jump_ahead
from kernels import chunks, fork, rand, seed

COURSE_SEED = 457428938475
COURSE_STATE = 4976, 20238, 499
COURSE_NUMBERS = 0.7645251082582081, 0.7920889799553945, 0.06912886811267205
LAST_SEED = 30268 * 30306 * 30322 - 1  # the next one starts the stream of 0 again

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform has no os.fork")


@pytest.fixture(autouse=True)
def course_stream():
    seed(COURSE_SEED)


def forked(draw):
    with warnings.catch_warnings(action="ignore"):  # Python 3.12: there are threads
        return fork(draw)


# ---- The lesson --------------------------------------------------------------------


def test_rand():
    assert (rand(), rand(), rand()) == COURSE_NUMBERS
    counts = np.histogram([rand() for _ in range(10_000)], bins=100, range=(0, 1))[0]
    assert counts.sum() == 10_000
    assert 60 < ((counts - 100.0) ** 2 / 100).sum() < 150  # chi-squared: 99 ± 14 if it is flat


@needs_fork
@pytest.mark.parametrize("draw", [rand, lambda: torch.rand(1).item()])
def test_fork(draw):
    """Parent and child go on with the same numbers, unless the child seeds anew."""

    def draw_anew():
        seed(os.getpid())
        torch.manual_seed(os.getpid())
        return draw()

    parent, child = forked(draw)
    assert parent == child
    parent, child = forked(draw_anew)
    assert parent != child


def test_seeds(monkeypatch):
    seed(LAST_SEED)
    assert kernels.rnd_state == (30268, 30306, 30322)
    with pytest.raises(ValueError, match="a seed is a non-negative integer, not -1"):
        seed(-1)
    monkeypatch.setattr(kernels, "rnd_state", None)
    with pytest.raises(RuntimeError, match=r"call seed\(a\) before"):
        rand()


def rand_array_loop(n, state):
    kernels.rnd_state = state
    return np.array([rand() for _ in range(n)]), kernels.rnd_state


RAND_ARRAYS = {
    "rand_array_loop": rand_array_loop,
    "rand_array_numba": jump_ahead.rand_array_numba,
    "rand_array": jump_ahead.rand_array,
}


@pytest.mark.parametrize("a", [COURSE_SEED, LAST_SEED])
@pytest.mark.parametrize("way", ["rand_array_numba", "rand_array"])
def test_rand_array_is_the_stream_of_rand(way, a):
    seed(a)
    state = kernels.rnd_state
    for n in 0, 1, 511, 512, 513, 1025:
        numbers, after = RAND_ARRAYS[way](n, state)
        RAND_ARRAYS[way](n, after)  # and it writes over nothing
        expected, expected_after = rand_array_loop(n, state)
        np.testing.assert_array_equal(numbers, expected, strict=True)
        assert after == expected_after


# ---- Timed -------------------------------------------------------------------------


def check_numbers(numbers):
    assert len(numbers) == 7840
    close(numbers[:3], np.array(COURSE_NUMBERS), eps=1e-15)


def check_numbers_and_state(result):
    numbers, _ = result
    check_numbers(numbers)


def check_rows(rows):
    check_numbers(np.concatenate(rows))


def check_normal(x):
    assert x.shape == (784, 10)
    close(x.mean(), torch.tensor(0.0), eps=6 / 7840**0.5)
    close(x.std(), torch.tensor(1.0), eps=6 / (2 * 7840) ** 0.5)


def check_same(numbers):
    parent, child = numbers
    assert parent == child


def rows_of_rand():
    """The notebook's own cell, which took 2.64 ms there."""
    seed(COURSE_SEED)
    return list(chunks([rand() for _ in range(7840)], 10))


@pytest.mark.benchmark(group="784x10 random numbers")
@pytest.mark.parametrize("way", RAND_ARRAYS)
def test_rand_array(timed, way):
    timed(check_numbers_and_state, RAND_ARRAYS[way], 7840, COURSE_STATE)


@pytest.mark.benchmark(group="784x10 random numbers")
def test_rows_of_rand(timed):
    timed(check_rows, rows_of_rand)


@pytest.mark.benchmark(group="784x10 random numbers")
def test_torch_randn(timed):
    """91.3 µs in the notebook."""
    timed(check_normal, torch.randn, 784, 10)


@needs_fork
@pytest.mark.benchmark(group="fork")
def test_fork_round_trip(timed):
    timed(check_same, forked, rand)
