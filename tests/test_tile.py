"""Variants of the micro-kernel, timed on this CPU for docs/cpu.md: -m tile --benchmark-only."""

from functools import cache

import pytest
import torch
from numba import njit

from beyond.microkernel import COLUMNS, LANES, PREFETCH, ROWS, multiply_tiles
from ladder.product import Product

SHAPES = "50000x784x10", "500x784x10", "512x512x512", "2048x2048x64"
OURS, NONE, L2, L1 = (ROWS, COLUMNS), (0, 2, 0), 2, 3
TILES = OURS, (4, 5), (5, 2), (6, 2), (4, 4), (3, 3), (5, 5)
CASES = [(tile, prefetch) for tile in TILES for prefetch in (NONE, PREFETCH)]
CASES += [(OURS, (rows, L2, ahead)) for rows in (1, 2, 4) for ahead in (1, 2, 4)]
CASES += [(OURS, (1, L1, 1)), (OURS, (4, L1, 1))]
NAME = "{}x{} {} a pass into L{} {} ahead"
VARIANTS = {NAME.format(*t, p[0], 4 - p[1], p[2]): (*t, LANES, *p) for t, p in CASES}


@cache
def compiled(variant):
    return njit(parallel=True)(multiply_tiles(*VARIANTS[variant]))


@pytest.mark.tile
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_tile(timed, variant, shape):
    product = Product.random(shape)
    c, multiply = torch.empty_like(product.exact, dtype=torch.float32), compiled(variant)
    operands = product.a.numpy(), product.b.numpy(), c.numpy()
    multiply(*operands)  # compiles
    timed(f"tile {shape}", lambda _: product.check(c), multiply, *operands)


@pytest.mark.parametrize("case", ["4x5x16x4", "5x2x8x1"])
def test_any_tile_on_any_cpu(case):
    """Rows, columns, lanes, rows prefetched a pass: right where it doesn't fit the registers, too."""
    multiply = njit(multiply_tiles(*map(int, case.split("x")), L2, 1))
    for shape in "1x1x1 3x40x7 21x33x10 16x16x3 9x784x11".split():
        product = Product.random(shape)
        c = torch.full((len(product.a), product.b.shape[1]), torch.nan)
        multiply(product.a.numpy(), product.b.numpy(), c.numpy())
        product.check(c)
