"""Broadcasting: the examples, the rules, and what they save."""

import contextlib
from itertools import product

import numpy as np
import pytest
import torch
from fastcore.test import test_close as close

import kernels
from kernels import broadcast_shapes

# ---- The lesson --------------------------------------------------------------------

A = torch.tensor([10.0, 6, -4])
C = torch.tensor([10.0, 20, 30])
M = torch.tensor([[1.0, 2, 3], [4, 5, 6], [7, 8, 9]])


@pytest.mark.parametrize("expression, expected", [
    ("A > 0", [True, True, False]),
    ("A + C", [20.0, 26, 26]),
    ("A + 1", [11.0, 7, -3]),
    ("2 * M", [[2.0, 4, 6], [8, 10, 12], [14, 16, 18]]),
    ("M + C", [[11.0, 22, 33], [14, 25, 36], [17, 28, 39]]),
    ("C.expand_as(M)", [[10.0, 20, 30]] * 3),
    ("C[None]", [[10.0, 20, 30]]),
    ("C.unsqueeze(0)", [[10.0, 20, 30]]),
    ("C[:, None]", [[10.0], [20], [30]]),
    ("C[..., None]", [[10.0], [20], [30]]),
    ("C.unsqueeze(1)", [[10.0], [20], [30]]),
    ("M + C[:, None]", [[11.0, 12, 13], [24, 25, 26], [37, 38, 39]]),
    ("C[None] * C[:, None]", [[100.0, 200, 300], [200, 400, 600], [300, 600, 900]]),
    ("C[None] > C[:, None]", [[False, True, True], [False, False, True], [False] * 3]),
])  # fmt: skip
def test_example(expression, expected):
    result, expected = eval(expression), torch.tensor(expected)
    assert result.dtype == expected.dtype
    assert result.equal(expected)


def test_expand_copies_nothing():
    t = C.expand_as(M)
    assert (t.stride(), t.shape, t.data_ptr()) == ((0, 1), (3, 3), C.data_ptr())


def test_the_bridge_to_the_broadcast_product(m1, m2, t1):
    digit = m1[0]
    assert (digit[:, None] * m2).shape == (784, 10)
    close((digit[:, None] * m2).sum(dim=0), t1[0], eps=1e-4)


def test_rule():
    """From the last size on, two are equal, or one of them is 1 or missing."""
    assert broadcast_shapes((256, 256, 3), (3,)) == (256, 256, 3)  # a scale for each colour
    with pytest.raises(ValueError, match=r"shapes \(2, 3\) and \(4,\) don't broadcast: 3 meets 4"):
        broadcast_shapes((2, 3), (4,))


def test_every_pair_of_shapes():
    """Of up to three dimensions of sizes 0 to 3, as NumPy has it."""

    def shape_or_none(broadcast, a, b):
        with contextlib.suppress(ValueError):
            return broadcast(a, b)

    shapes = [shape for ndim in range(4) for shape in product(range(4), repeat=ndim)]
    for pair in product(shapes, shapes):
        assert shape_or_none(broadcast_shapes, *pair) == shape_or_none(np.broadcast_shapes, *pair)


# ---- Timed -------------------------------------------------------------------------

NORMALIZE = {
    "loop": kernels.normalize_loop,
    "expanded": kernels.normalize_expanded,
    "broadcast": kernels.normalize_broadcast,
}
OUTER = {
    "loop": kernels.outer_loop,
    "expanded": kernels.outer_expanded,
    "broadcast": kernels.outer_broadcast,
}


@pytest.mark.benchmark(group="normalize the data set")
@pytest.mark.parametrize("way", NORMALIZE)
def test_normalize(timed, way, x_train):
    mean, std = x_train.mean(), x_train.std()

    def check(x):
        assert x.shape == x_train.shape
        close(x * std + mean, x_train, eps=1e-6)

    timed(check, NORMALIZE[way], x_train, mean, std)


@pytest.mark.benchmark(group="outer product")
@pytest.mark.parametrize("way", OUTER)
def test_outer(timed, way, m1, m2):
    c, d = m1[0], m2[:500, 0]

    def check(result):
        assert result.shape == (784, 500)
        close(result, torch.outer(c, d), eps=1e-6)

    timed(check, OUTER[way], c, d)
