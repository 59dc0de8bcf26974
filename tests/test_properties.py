"""What holds for a product whatever its operands: each rung is tried on named ones.

tests/test_drawn.py tries others, which hypothesis draws.
"""

import math

import numpy as np
import pytest
import torch

from ladder.gpu import has_gpu, on_device
from ladder.rungs import RUNGS, rung_names
from ladder.timing import call_or_skip
from tests.operands import (
    EMPTY,
    FAST,
    GPU_LAYOUTS,
    LARGE,
    LAYOUTS,
    ODD,
    SLOW,
    TILES,
    check,
    check_gpu,
    named,
)  # fmt: skip


def cases(shapes, layouts=LAYOUTS, shape=(9, 12, 11)):
    """Return ids and operands: one pair of each shape, and pairs of one shape in each layout."""
    found = {"x".join(map(str, shape)): named(shape) for shape in shapes}
    return found | {layout: named(shape, (layout, layout)) for layout in layouts}


def parametrize(rungs, operands):
    """Try each rung on each pair of operands, in a test of its own."""
    by_rung = pytest.mark.parametrize("rung", rungs)
    by_case = pytest.mark.parametrize("ab", operands.values(), ids=operands.keys())
    return lambda test: by_rung(by_case(test))


@parametrize(SLOW, cases(EMPTY + ODD[:5]))
def test_slow_rung(rung, ab):
    check(rung, *ab)


@parametrize(FAST, cases(EMPTY + ODD + LARGE))
def test_fast_rung(rung, ab):
    check(rung, *ab)


@pytest.mark.cuda
@pytest.mark.usefixtures("gpu_or_simulator")
@parametrize(rung_names("cuda"), cases(EMPTY + TILES, GPU_LAYOUTS, (5, 8, 3)))
def test_gpu_rung(rung, ab):
    check_gpu(rung, *ab)


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("rung", rung_names("cpu") + has_gpu() * rung_names("cuda"))
def test_nan_and_inf_come_through(rung, value):
    """In a row of a and a column of b, among the first k and the last."""
    for k in 3, 18:
        a, b = named((7, 19, 6))
        a[5, k] = b[k, 1] = value
        with np.errstate(invalid="ignore"):
            c = call_or_skip(RUNGS[rung].fn, *on_device(RUNGS[rung].device, a, b)).cpu()
        torch.testing.assert_close(c, a @ b, equal_nan=True, rtol=0, atol=1e-4)
