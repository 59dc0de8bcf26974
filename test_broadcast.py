"""Broadcasting: the examples, the rules, and what they save."""

from itertools import product

import numpy as np
import pytest
import torch
from fastcore.test import test_close as close

import kernels
from kernels import broadcast_shapes

A = torch.tensor([10.0, 6, -4])
C = torch.tensor([10.0, 20, 30])
M = torch.tensor([[1.0, 2, 3], [4, 5, 6], [7, 8, 9]])

ROWS_PLUS_C = [[11.0, 22, 33], [14, 25, 36], [17, 28, 39]]
COLUMNS_PLUS_C = [[11.0, 12, 13], [24, 25, 26], [37, 38, 39]]
C_TIMES_C = [[100.0, 200, 300], [200, 400, 600], [300, 600, 900]]
C_ABOVE_C = [[False, True, True], [False, False, True], [False, False, False]]


@pytest.mark.parametrize(
    "expression, expected",
    [
        ("A > 0", [True, True, False]),
        ("A + 1", [11.0, 7, -3]),
        ("2 * M", [[2.0, 4, 6], [8, 10, 12], [14, 16, 18]]),
        ("M + C", ROWS_PLUS_C),
        ("C + M", ROWS_PLUS_C),
        ("C.expand_as(M)", [[10.0, 20, 30]] * 3),
        ("M + C.expand_as(M)", ROWS_PLUS_C),
        ("C.unsqueeze(0)", [[10.0, 20, 30]]),
        ("C[None, :]", [[10.0, 20, 30]]),
        ("C[None]", [[10.0, 20, 30]]),
        ("C.unsqueeze(1)", [[10.0], [20], [30]]),
        ("C[:, None]", [[10.0], [20], [30]]),
        ("C[..., None]", [[10.0], [20], [30]]),
        ("C[:, None].expand_as(M)", [[10.0] * 3, [20.0] * 3, [30.0] * 3]),
        ("M + C[:, None]", COLUMNS_PLUS_C),
        ("M + C[None, :]", ROWS_PLUS_C),
        ("C[None, :] * C[:, None]", C_TIMES_C),
        ("C[None] > C[:, None]", C_ABOVE_C),
    ],
)
def test_example(expression, expected):
    result, expected = eval(expression), torch.tensor(expected)
    assert (result.shape, result.dtype) == (expected.shape, expected.dtype)
    assert result.equal(expected)


def test_expand_copies_nothing():
    c = C.clone()
    t = c.expand_as(M)
    assert (t.stride(), t.shape) == ((0, 1), (3, 3))
    assert t.untyped_storage().nbytes() == 3 * 4
    c[1] = 99
    assert t[:, 1].tolist() == [99.0] * 3


def test_image_times_scale():
    image = torch.arange(256 * 256 * 3.0).reshape(256, 256, 3)
    scaled = image * torch.tensor([1.0, 2, 4])
    assert scaled.shape == image.shape
    for channel, scale in enumerate((1, 2, 4)):
        assert scaled[..., channel].equal(image[..., channel] * scale)


def test_digit_times_weights(m1, m2):
    digit = m1[0]
    assert (digit.shape, digit[:, None].shape) == ((784,), (784, 1))
    assert digit[:, None].expand_as(m2).shape == m2.shape
    result = digit[:, None] * m2
    assert result.shape == (784, 10)
    for j in range(10):
        assert result[:, j].equal(digit * m2[:, j])


# ---- The rules ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "a, b, shape",
    [
        ((256, 256, 3), (3,), (256, 256, 3)),
        ((8, 1, 6, 1), (7, 1, 5), (8, 7, 6, 5)),
        ((5, 4), (1,), (5, 4)),
        ((15, 3, 5), (15, 1, 5), (15, 3, 5)),
        ((784, 1), (784, 10), (784, 10)),
        ((), (2, 3), (2, 3)),
        ((3,), (4,), None),
        ((2, 1), (8, 4, 3), None),
        ((256, 256, 3), (256,), None),
    ],
)
def test_rule(a, b, shape):
    for x, y in (a, b), (b, a):
        if shape is None:
            with pytest.raises(ValueError, match="don't broadcast: "):
                broadcast_shapes(x, y)
            with pytest.raises(RuntimeError):
                torch.zeros(x) + torch.zeros(y)
        else:
            assert broadcast_shapes(x, y) == shape
            assert (torch.zeros(x) + torch.zeros(y)).shape == shape


def shape_or_none(broadcast, a, b):
    try:
        return broadcast(a, b)
    except ValueError:
        return None


def test_every_pair_of_shapes():
    """Of up to three dimensions of sizes 0 to 3."""
    shapes = [shape for ndim in range(4) for shape in product(range(4), repeat=ndim)]
    for a, b in product(shapes, shapes):
        expected = shape_or_none(np.broadcast_shapes, a, b)
        assert shape_or_none(broadcast_shapes, a, b) == expected, (a, b)


# ---- Timed -------------------------------------------------------------------------

WAYS = ["loop", "expanded", "broadcast"]


@pytest.mark.parametrize("way", WAYS)
def test_normalize(timed, way, x_train):
    def check(x):
        assert (x.shape, x.dtype) == (x_train.shape, x_train.dtype)
        close(x * std + mean, x_train, eps=1e-6)

    mean, std = x_train.mean(), x_train.std()
    normalize = getattr(kernels, f"normalize_{way}")
    timed("normalize the data set", check, normalize, x_train, mean, std)


@pytest.mark.parametrize("way", WAYS)
def test_outer(timed, way, m1, m2):
    c, d = m1[0], m2[:500, 0]

    def check(result):
        assert (result.shape, result.dtype) == ((784, 500), c.dtype)
        close(result, torch.outer(c, d), eps=1e-6)

    timed("outer product", check, getattr(kernels, f"outer_{way}"), c, d)
