"""SIMD vectors: each function alone, at every width, and the rungs that are built of them."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numba import njit

from beyond import vectors

AT = np.arange(1, 41, dtype="f4").reshape(2, 20)  # i is the index of a float in C order
WIDTHS = [1, 4, 8, 16]


def compiled(lanes, *lines):
    """Return a function of ``at`` and ``out`` with these lines, where L is the number of lanes."""
    source = "def fn(at, out):\n    " + "\n    ".join(lines)
    space = {name: getattr(vectors, name) for name in dir(vectors)} | {"L": lanes}
    exec(source, space)
    return njit(space["fn"])


CASES = {
    "load": ("load(at, 3, L)", lambda lanes: np.arange(4, 4 + lanes)),
    "load past a row": ("load(at, 18, L)", lambda lanes: np.arange(19, 19 + lanes)),
    "broadcast": ("broadcast(at, 5, L)", lambda lanes: np.full(lanes, 6)),
    "registers": ("load(registers(L), 0, L)", lambda lanes: np.zeros(lanes)),
    "multiply_add": (
        "multiply_add(load(at, 0, L), load(at, 2, L), broadcast(at, 9, L))",
        lambda lanes: np.arange(1, 1 + lanes) * np.arange(3, 3 + lanes) + 10,
    ),
}


@pytest.mark.parametrize("by", ["array", "address"])
@pytest.mark.parametrize("lanes", WIDTHS)
@pytest.mark.parametrize("case", CASES)
def test_function(case, lanes, by):
    line, expected = CASES[case]
    out = np.full(20, -1, "f4")
    if by == "array":
        compiled(lanes, f"store(out, 1, {line})")(AT, out)
    else:
        at_addresses = "at, out = floats_at(at), floats_at(out)"
        compiled(lanes, at_addresses, f"store(out, 1, {line})")(AT.ctypes.data, out.ctypes.data)
    assert out.tolist() == [-1, *expected(lanes), *[-1] * (19 - lanes)]


@pytest.mark.parametrize("lanes", WIDTHS)
def test_total(lanes):
    out = np.zeros(1, "f4")
    compiled(lanes, "out[0] = total(load(at, 3, L))")(AT, out)
    assert out == np.arange(4, 4 + lanes).sum()


def test_registers_keep_what_is_stored():
    out = np.zeros(20, "f4")
    lines = ["r = registers(16)", "store(r, 4, load(at, 0, L))", "store(out, 0, load(r, 2, L))"]
    compiled(8, *lines)(AT, out)
    assert out.tolist() == [0, 0, *range(1, 7), *[0] * 12]


def test_prefetch_may_go_past_the_end():
    out = np.zeros(1, "f4")
    compiled(1, "prefetch(at, 0)", "prefetch(at, 10**12)", "store(out, 0, load(at, 0, 1))")(AT, out)
    assert out == 1


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_total_lets_nan_and_inf_come_through(value):
    out = np.zeros(1, "f4")
    x = np.array([1, 2, value, 4], "f4")
    compiled(4, "out[0] = total(load(at, 0, L))")(x, out)
    np.testing.assert_equal(out[0], np.float32(value))


def test_only_float32():
    with pytest.raises(TypeError, match="array.*float64.* is not of float32"):
        compiled(4, "store(out, 0, load(at, 0, L))")(AT.astype("f8"), np.zeros(4, "f4"))


# ---- What Numba compiles for -------------------------------------------------------

TARGETS = {"generic": 4, "haswell": 8}  # NUMBA_CPU_NAME (SSE2, AVX2), and its lanes
SHAPES = "1x1x1 5x784x10 7x19x6 15x33x40 20x100x11 21x784x10 300x785x9".split()
CHECK = f"""
from bench_fixtures import Product, RUNGS
from beyond.microkernel import simd_lanes
for shape in {SHAPES}:
    product = Product.random(*map(int, shape.split("x")))
    for name in "prefetch", "address":
        product.check(RUNGS["matmul_numba_" + name].fn(product.a, product.b))
print(simd_lanes())
"""


@pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64"), reason="this CPU has only one kind of registers"
)
def test_rungs_for_narrower_cpus():
    """What is built of vectors, compiled for another CPU in a process of its own."""
    processes = {}
    for target in TARGETS:
        env = os.environ | {"NUMBA_CPU_NAME": target, "NUMBA_CPU_FEATURES": ""}
        processes[target] = subprocess.Popen(
            [sys.executable, "-c", CHECK], cwd=Path(__file__).parent, env=env, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
    for target, process in processes.items():
        output, errors = process.communicate()
        assert (output, errors) == (f"{TARGETS[target]}\n", "")
