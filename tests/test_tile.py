"""Variants of the micro-kernel, timed on this CPU: ``pytest -m tile --benchmark-only``.

What was found on the CPUs so far stands in docs/cpu.md.
"""

from functools import cache

import pytest
import torch
from numba import njit

from beyond.microkernel import COLUMNS, LANES, PREFETCH, ROWS, multiply_tiles
from ladder.product import Product

SHAPES = "50000x784x10", "500x784x10", "512x512x512", "2048x2048x64"
TILES = [(ROWS, COLUMNS), (4, 5), (5, 2), (6, 2), (4, 4), (3, 3), (5, 5)]
NONE, L2, L1 = (0, 2, 0), 2, 3
PREFETCHES = [(rows, L2, ahead) for rows in (1, 2, 4) for ahead in (1, 2, 4)]  # rows a pass, ...
PREFETCHES += [NONE, PREFETCH, (1, L1, 1), (4, L1, 1)]
VARIANTS = {
    f"{rows}x{columns} {each} a pass into L{4 - cache} {ahead} ahead": (
        *(rows, columns, LANES, each, cache, ahead),
    )
    for tiles, prefetches in ((TILES, [NONE, PREFETCH]), (TILES[:1], PREFETCHES))
    for rows, columns in tiles
    for each, cache, ahead in prefetches
}


@cache
def compiled(variant):
    return njit(parallel=True)(multiply_tiles(*VARIANTS[variant]))


@pytest.fixture(scope="module")
def operands(request):
    """Return the product for a shape, and its operands as NumPy arrays."""
    product = Product.random(request.param)
    return product, product.a.numpy(), product.b.numpy()


@pytest.mark.tile
@pytest.mark.parametrize("operands", SHAPES, indirect=True)
@pytest.mark.parametrize("variant", VARIANTS)
def test_tile(benchmark, operands, variant):
    product, a, b = operands
    benchmark.group = f"tile {len(a)}x{a.shape[1]}x{b.shape[1]}"
    multiply = compiled(variant)
    c = product.a.new_empty(len(a), b.shape[1])
    multiply(a, b, c.numpy())
    product.check(c)
    benchmark(multiply, a, b, c.numpy())


@pytest.mark.parametrize("case", ["4x5x16x4", "5x2x8x1"])
def test_any_tile_on_any_cpu(case):
    """Rows, columns, lanes, rows prefetched a pass: right where it doesn't fit the registers, too."""
    multiply = njit(multiply_tiles(*map(int, case.split("x")), L2, 1))
    for shape in "1x1x1 3x40x7 21x33x10 16x16x3 9x784x11".split():
        product = Product.random(shape)
        c = torch.full((len(product.a), product.b.shape[1]), torch.nan)
        multiply(product.a.numpy(), product.b.numpy(), c.numpy())
        product.check(c)
