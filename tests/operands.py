"""Operands on which every rung is tried, and what has to hold for its product."""

from functools import partial

import torch

from ladder.gpu import on_device
from ladder.product import Product
from ladder.rungs import RUNGS, rung_names
from ladder.shape import FULL, SMALL
from ladder.timing import call_or_skip

SLOW = [name for name in rung_names("cpu", SMALL) if name not in rung_names("cpu", FULL)]
FAST = [name for name in rung_names("cpu") if name not in SLOW]

LAYOUTS = {
    "as it is": lambda x: x,
    "transposed": lambda x: x.T.contiguous().T,
    "with steps": lambda x: x.repeat_interleave(2, 0).repeat_interleave(3, 1)[::2, ::3],
    "one row": lambda x: x[:1].expand(x.shape),
    "one column": lambda x: x[:, :1].expand(x.shape),
    "from the second float": lambda x: torch.cat([x.new_zeros(1), x.ravel()])[1:].view(x.shape),
    "in a frame": lambda x: torch.nn.functional.pad(x, (2, 1, 1, 1))[1:-1, 2:-1],
}
EMPTY = [(0, 3, 2), (3, 0, 2), (3, 2, 0)]
ODD = [(1, 1, 1), (1, 1, 7), (7, 1, 1), (5, 17, 3), (11, 7, 13), (9, 33, 7)]
# Around the CPU's tiles, thresholds and lanes, where a rung takes its ways apart.
LARGE = [(9, 33, 41), (15, 784, 10), (16, 33, 9), (20, 785, 11), (300, 785, 9), (64, 64, 65)]
# Around blocks: rows of strips and of two threads' blocks, columns of 1, 2 and 3 vectors and of a
# panel, and more of each than one block holds.
LARGE += [(7, 5, 48), (8, 6, 100), (17, 7, 25), (131, 4, 24), (265, 3, 97)]
LARGE += [(20, 1023, 80), (12, 1025, 150), (6, 2051, 140), (25, 70, 1057)]
# The same with more rows than one block has, which threads share.
LARGE += [(70, 30, 1056), (66, 30, 1057), (65, 1025, 49), (65, 1025, 1057)]
# Around the ways for a small b: its tiles, the end of b, rows that are prefetched, and its limits.
LARGE += [(67, 150, 83), (130, 97, 129), (2003, 270, 33), (40, 33, 1000), (40, 33, 1001)]
# Around the GPU's tiles; 1,230 rows of b are more than fits into shared memory.
TILES = [(5, 17, 3), (19, 12, 3), (2, 77, 1), (1, 3, 21), (1, 1230, 1)]


def named(shape, layouts=("as it is",) * 2, exponents=(0, 0), seed=1):
    (m, k, n), generator = shape, torch.Generator().manual_seed(seed)
    found = []
    for size, layout, exponent in zip([(m, k), (k, n)], layouts, exponents, strict=True):
        x = torch.randn(size, generator=generator).double() * 10.0**exponent
        found.append(LAYOUTS[layout](x.float()))
    return found


GPU_LAYOUTS = "transposed", "one row", "from the second float"

SETTINGS = torch.get_num_threads, torch.get_default_dtype, torch.get_float32_matmul_precision
BEFORE = [get() for get in SETTINGS]  # before any rung has been called


def check(rung, a, b):
    """A rung returns the product, as a new tensor: no operand, nor what another call returns."""
    fn = partial(call_or_skip, RUNGS[rung].fn)
    operands_before = a.clone(), b.clone()
    tensors = a, b, fn(a, b)
    before = *operands_before, tensors[2].clone()
    assert [get() for get in SETTINGS] == BEFORE
    another = fn(a + 1, b)
    assert all(map(torch.equal, tensors, before)) and another.is_contiguous()
    stores = [x.untyped_storage().data_ptr() for x in (*tensors, another) if x.numel()]
    assert len(stores) == len(set(stores))
    another.fill_(7)
    Product(a, b).check(fn(a, b))
    m, k = a.shape
    if m and k < 100:  # each float comes through a multiplication by 1, also a subnormal one
        assert fn(torch.eye(k), b).equal(b) and fn(a, torch.eye(k)).equal(a)


def check_gpu(rung, a, b):
    """A GPU's rung returns the product, once for each pair of operands: the simulator is slow."""
    on_gpu = on_device("cuda", a, b)
    before = [x.clone() for x in on_gpu]
    c = call_or_skip(RUNGS[rung].fn, *on_gpu)
    assert c.device == on_gpu[0].device and all(map(torch.equal, on_gpu, before))
    Product(a, b).check(c)
