"""What docs/cpu.md chose by, timed on this CPU: -m tile --benchmark-only.

Variants of the tile and its prefetching; and the ways of `best_way`, where one overtakes another.
"""

from functools import cache

import pytest
import torch
from numba import njit

from beyond.cpu.blocks import multiply_blocks
from beyond.cpu.prefetch import PREFETCH, multiply_prefetching, with_prefetch
from beyond.cpu.registers import LANES
from beyond.cpu.small_b import multiply_small_b
from beyond.cpu.tile import COLUMNS, ROWS
from ladder.product import Product
from ladder.shape import Shape

SHAPES = "50000x784x10", "500x784x10", "512x512x512", "2048x2048x64"
OURS = ROWS, COLUMNS
TILES = OURS, (4, 5), (5, 2), (6, 2), (4, 4), (3, 3), (5, 5)  # rows and columns
NO_PREFETCH = 0, 2, 0  # rows a pass, into the cache of which level, tiles ahead
CASES = [(tile, prefetch) for tile in TILES for prefetch in (NO_PREFETCH, PREFETCH)]
CASES += [(OURS, (rows, 2, ahead)) for rows in (1, 2, 4) for ahead in (1, 2, 4)]
CASES += [(OURS, (1, 1, 1)), (OURS, (4, 1, 1))]
VARIANTS = {
    f"{rows}x{columns} {a_pass} a pass into L{level} {ahead} ahead": (
        (rows, columns, LANES, a_pass, level, ahead, 0)  # 0: a small a is prefetched, too
    )
    for (rows, columns), (a_pass, level, ahead) in CASES
}


@cache
def compiled(variant):
    return njit(parallel=True)(multiply_prefetching(*VARIANTS[variant]))


@pytest.mark.tile
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_tile(timed, benchmark, variant, shape):
    benchmark.group = f"tile {shape}"
    time_multiply(timed, compiled(variant), shape)


WAYS = {"prefetch": with_prefetch, "small b": multiply_small_b, "blocks": multiply_blocks}
FILLED = "5000x784x10", "5000x784x16", "5000x784x20", "5000x784x32"  # more or less of the lanes
CACHED = "256x256x256", "384x384x384", "512x512x512", "700x700x700"  # b of 0.25 to 2 MB
PAGES = "1000x128x896", "1000x128x1000", "1000x128x1024"  # b's rows within a page, or not


@pytest.mark.tile
@pytest.mark.parametrize("shape", FILLED + CACHED + PAGES)
@pytest.mark.parametrize("way", WAYS)
def test_way(timed, benchmark, way, shape):
    benchmark.group = f"ways {shape}"
    time_multiply(timed, WAYS[way], shape)


def time_multiply(timed, multiply, shape):
    product = Product.random(Shape.parse(shape))
    c = torch.empty_like(product.exact, dtype=torch.float32)
    operands = product.a.numpy(), product.b.numpy(), c.numpy()
    multiply(*operands)  # compiles

    def check(_):
        product.check(c)

    timed(check, multiply, *operands)


@pytest.mark.parametrize("rows, columns, lanes, rows_per_pass", [(4, 5, 16, 4), (5, 2, 8, 1)])
def test_any_tile_on_any_cpu(rows, columns, lanes, rows_per_pass):
    """It is right where it doesn't fit the registers, too."""
    multiply = njit(multiply_prefetching(rows, columns, lanes, rows_per_pass, 2, 1, 0))
    for shape in "1x1x1", "3x40x7", "21x33x10", "16x16x3", "9x784x11":
        product = Product.random(Shape.parse(shape))
        c = torch.full((len(product.a), product.b.shape[1]), torch.nan)
        multiply(product.a.numpy(), product.b.numpy(), c.numpy())
        product.check(c)
