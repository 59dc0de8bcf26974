"""A product of two matrices, and the proof that a rung computes it."""

from copy import copy
from functools import lru_cache

import torch
from fastcore.test import test_close as close

from ladder.shape import Shape


class Product:
    """Operands ``a`` and ``b``, and what their float32 product has to be: a sum of K products, in
    any order, is off by at most K * 2**-24 * |a| @ |b| (first order), and so is the reference."""

    def __init__(self, a, b, reference=None):
        parts = a.split(50_000)  # the whole of a as float64 would take twice the memory
        size = torch.cat([part.double().abs() @ b.double().abs() for part in parts])
        self.a, self.b, self.reference = a, b, reference
        self.exact = torch.cat([part.double() @ b.double() for part in parts])
        self.bound = a.shape[1] * 2**-24 * size + torch.finfo(torch.float32).tiny

    @classmethod
    @lru_cache(maxsize=8)
    def random(cls, shape):
        """Return one of dense random operands for a `Shape`, the same in each run."""
        generator = torch.Generator().manual_seed(shape.m * 10_000 + shape.k * 100 + shape.n)
        a = torch.randn(shape.m, shape.k, generator=generator)
        b = torch.randn(shape.k, shape.n, generator=generator)
        return cls(a, b)

    @property
    def shape(self):
        return Shape.of(self.a, self.b)

    def rows(self, rows):
        """Return the product of so many rows of a, repeated if there are fewer."""
        times = (rows + len(self.a) - 1) // len(self.a)
        product = copy(self)
        product.a = self.a.repeat(times, 1)[:rows]
        product.exact = self.exact.repeat(times, 1)[:rows]
        product.bound = self.bound.repeat(times, 1)[:rows]
        product.reference = None
        return product

    def check(self, c):
        """Raise AssertionError unless ``c`` is the product, as a contiguous float32 tensor."""
        assert isinstance(c, torch.Tensor), f"a {type(c)}, not a torch.Tensor"
        assert c.dtype == torch.float32, f"the dtype is {c.dtype}, not float32"
        assert c.shape == self.exact.shape, f"the shape is {c.shape}, not {self.exact.shape}"
        assert c.is_contiguous(), "c is not contiguous: return c.contiguous()"
        check_close(c, self.exact, self.bound, "the float64 product")
        if self.reference is not None:
            check_close(c, self.reference, 2 * self.bound, "the reference")


def check_close(c, expected, eps, name):
    """Raise AssertionError, naming the worst cell, unless c is within ``eps`` of what is expected."""
    c, expected = c.cpu().double(), expected.double()
    try:
        close(c, expected, eps=eps)
    except AssertionError:
        error = (c - expected).abs().nan_to_num(nan=float("inf"))
        i, j = divmod(int((error / eps).argmax()), c.shape[1])
        raise AssertionError(
            f"{int((error >= eps).sum())} of {len(c)}x{c.shape[1]} cells differ from {name}; worst is "
            f"({i}, {j}): {c[i, j]:.9g}, not {expected[i, j]:.9g} ± {eps[i, j]:.2g}"
        ) from None
