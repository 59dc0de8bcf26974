"""SIMD vectors: each function alone, at every width, and the rungs that are built of them."""

import doctest
import platform

import numpy as np
import pytest
from numba import njit

from beyond.cpu import vectors
from beyond.cpu.registers import LANES

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
    "load_part, all of it": ("load_part(ptr, 3, L, 99)", lambda lanes: np.arange(4, 4 + lanes)),
    "load_part, nothing": ("load_part(ptr, 3, L, -1)", lambda lanes: np.zeros(lanes)),
    "zeros": ("zeros(2, 3, L)[1, 2]", lambda lanes: np.zeros(lanes)),
    "add": ("add(load(ptr, 0, L), load(ptr, 2, L))", lambda lanes: 4 + 2 * np.arange(lanes)),
    "multiply_add": ("multiply_add(load(ptr, 0, L), load(ptr, 2, L), broadcast(ptr, 9, L))",
                     lambda lanes: np.arange(1, 1 + lanes) * np.arange(3, 3 + lanes) + 10),
}  # fmt: skip


@pytest.mark.parametrize("lanes", WIDTHS)
@pytest.mark.parametrize("case", CASES)
def test_function(case, lanes):
    """By array and by address."""
    line, expected = CASES[case]
    pointer, out = line.replace("ptr", "pointer(ptr.ctypes.data)"), np.full(40, -1, "f4")
    compiled(lanes, f"store(out, 1, {line})", f"store(out, 21, {pointer})")(FLOATS, out)
    assert out.tolist() == [-1, *expected(lanes), *[-1] * (19 - lanes)] * 2


@pytest.mark.parametrize("value", [1, np.nan, np.inf])
@pytest.mark.parametrize("lanes", WIDTHS)
def test_sum_lanes(lanes, value):
    out, x = np.zeros(1, "f4"), np.array([value, *range(lanes - 1)], "f4")
    compiled(lanes, "out[0] = sum_lanes(load(ptr, 0, L))")(x, out)
    np.testing.assert_equal(out[0], x.sum())


@pytest.mark.parametrize("lanes", WIDTHS)
def test_part_of_a_vector(lanes):
    """Nothing is read or written beyond so many lanes, also where memory ends."""
    for count in range(lanes + 1):
        floats, out = np.arange(1, 1 + count, dtype="f4"), np.full(40, -1, "f4")
        line = f"store_part(out, 1, load_part(ptr, 0, L, {count}), {count})"
        compiled(lanes, line)(floats, out)
        assert out.tolist() == [-1, *floats, *[-1] * (39 - count)]


@pytest.mark.parametrize("lanes", WIDTHS)
def test_vectors_in_registers(lanes):
    """Each of them is read as it was set last, and zeros() makes them 0 again."""
    out = np.zeros((2, 2, 2, lanes), "f4")
    lines = """
    for i in range(2):
        sums = zeros(2, 2, L)
        for r in range(2):
            for q in range(2):
                x = broadcast(ptr, 2 * r + q, L)
                sums[r, q] = x
                sums[r, q] = add(sums[r, q], x)
                sums[0, 0] = add(sums[0, 0], x)
                store(out, 4 * i * L, sums[0, 0])
                store(out, (4 * i + 2 * r + q) * L, sums[r, q])
        store(out, 4 * i * L, sums[0, 0])
    """
    compiled(lanes, *lines.strip("\n").splitlines())(FLOATS, out)
    assert out[0, :, :, 0].tolist() == [[1 + 1 + 1 + 2 + 3 + 4, 4], [6, 8]]
    assert (out == out[:1, :, :, :1]).all()


def test_transpose():
    out = np.zeros((4, 4), "f4")
    rows = "load(ptr, 0, 4), load(ptr, 4, 4), load(ptr, 8, 4), load(ptr, 12, 4)"
    lines = [f"store(out, {4 * i}, transpose({rows})[{i}])" for i in range(4)]
    compiled(4, *lines)(FLOATS, out)
    assert out.T.ravel().tolist() == list(range(1, 17))


def test_prefetch():
    """It changes nothing, and may go past the end."""
    out = np.zeros(4, "f4")
    compiled(4, "prefetch(ptr, 0, 1)", "prefetch(out, 10**12, 2)")(FLOATS, out)
    assert not out.any() and FLOATS.ravel().tolist() == list(range(1, 41))


@pytest.mark.parametrize("count", [0, 1, 15, 16, 1000])
def test_aligned_floats(count):
    floats = vectors.aligned_floats(count)
    assert floats.shape == (count,) and floats.dtype == np.float32 and floats.ctypes.data % 64 == 0


def test_example():
    assert doctest.testmod(vectors, extraglobs={"np": np, "njit": njit}) == (0, 2)


TARGETS = {"generic": 4, "haswell": 8}  # SSE2, AVX2, and their lanes
CHECK = """
import beyond
from ladder.product import Product
from ladder.rungs import RUNGS
from ladder.shape import Shape
for shape in "1x1x1 5x784x10 7x19x6 15x33x40 20x100x11 21x784x10 1300x785x9 65x1025x99 67x150x83 2003x270x33".split():
    product = Product.random(Shape.parse(shape))
    for rung in "matmul_numba_blocks", "matmul_numba_small_b", "matmul_numba_address":
        product.check(RUNGS[rung].fn(product.a, product.b))
print(*beyond.cpu.registers.simd_registers())
"""


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="registers of one kind")
@pytest.mark.parametrize("target", [name for name in TARGETS if TARGETS[name] < LANES])
def test_rungs_for_narrower_cpus(python, target):
    """What is built of vectors, compiled for another CPU in a process of its own."""
    env = {"NUMBA_CPU_NAME": target, "NUMBA_CPU_FEATURES": "", "NUMBA_OPT": "1"}  # for speed
    found = python("-c", CHECK, **env)
    assert found == (0, f"{TARGETS[target]} 16\n", "")
