"""SIMD vectors: each function alone, at every width, and the rungs that are built of them."""

import doctest
import platform

import numpy as np
import pytest
from numba import njit

from beyond import vectors
from beyond.microkernel import LANES

FLOATS = np.arange(1, 41, dtype="f4").reshape(2, 20)  # i is the index of a float in C order
WIDTHS = [1, 4, 8, 16]


def compiled(lanes, *lines):
    """Return a function of ``ptr`` and ``out`` with these lines, where L is the number of lanes."""
    source = "def fn(ptr, out):\n    " + "\n    ".join(lines)
    space = {name: getattr(vectors, name) for name in dir(vectors)} | {"L": lanes}
    exec(source, space)
    return njit(space["fn"])


CASES = {
    "load": ("load(ptr, 3, L)", lambda lanes: np.arange(4, 4 + lanes)),
    "load past a row": ("load(ptr, 18, L)", lambda lanes: np.arange(19, 19 + lanes)),
    "broadcast": ("broadcast(ptr, 5, L)", lambda lanes: np.full(lanes, 6)),
    "accumulators": ("load(accumulators(L), 0, L)", lambda lanes: np.zeros(lanes)),
    "multiply_add": ("multiply_add(load(ptr, 0, L), load(ptr, 2, L), broadcast(ptr, 9, L))",
                     lambda lanes: np.arange(1, 1 + lanes) * np.arange(3, 3 + lanes) + 10),
}  # fmt: skip


@pytest.mark.parametrize("lanes", WIDTHS)
@pytest.mark.parametrize("case", CASES)
def test_function(case, lanes):
    """By array and by address."""
    line, expected = CASES[case]
    pointer, out = line.replace("ptr", "as_pointer(ptr.ctypes.data)"), np.full(40, -1, "f4")
    compiled(lanes, f"store(out, 1, {line})", f"store(out, 21, {pointer})")(FLOATS, out)
    assert out.tolist() == [-1, *expected(lanes), *[-1] * (19 - lanes)] * 2


@pytest.mark.parametrize("value", [1, np.nan, np.inf])
@pytest.mark.parametrize("lanes", WIDTHS)
def test_sum_lanes(lanes, value):
    out, x = np.zeros(1, "f4"), np.array([value, *range(lanes - 1)], "f4")
    compiled(lanes, "out[0] = sum_lanes(load(ptr, 0, L))")(x, out)
    np.testing.assert_equal(out[0], x.sum())


def test_transpose_and_prefetch():
    """Prefetching may go past the end."""
    out, lines = np.zeros(16, "f4"), ["prefetch(ptr, 0, 3)", "prefetch(ptr, 10**12, 2)"]
    compiled(16, *lines, "store(out, 0, transpose(load(ptr, 0, L)))")(FLOATS, out)
    assert out.reshape(4, 4).T.ravel().tolist() == list(range(1, 17))


def test_example():
    assert doctest.testmod(vectors, extraglobs={"np": np, "njit": njit}) == (0, 2)


TARGETS = {"generic": 4, "haswell": 8}  # SSE2, AVX2, and their lanes
CHECK = """
import beyond
from ladder.product import Product
from ladder.rungs import RUNGS
for shape in "1x1x1 5x784x10 7x19x6 15x33x40 20x100x11 21x784x10 1300x785x9".split():
    product = Product.random(shape)
    product.check(RUNGS["matmul_numba_address"].fn(product.a, product.b))
print(*beyond.microkernel.simd_registers())
"""


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="registers of one kind")
@pytest.mark.parametrize("target", [name for name in TARGETS if TARGETS[name] < LANES])
def test_rungs_for_narrower_cpus(python, target):
    """What is built of vectors, compiled for another CPU in a process of its own."""
    env = {"NUMBA_CPU_NAME": target, "NUMBA_CPU_FEATURES": "", "NUMBA_OPT": "1"}  # for speed
    found = python("-c", CHECK, **env)
    assert found == (0, f"{TARGETS[target]} 16\n", "")
