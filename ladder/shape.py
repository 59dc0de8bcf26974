"""The sizes of a matrix product."""

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Shape:
    """The sizes of a product: a is (m, k), b is (k, n), c is (m, n)."""

    m: int
    k: int
    n: int

    @classmethod
    def parse(cls, text):
        """Return the shape that a text such as "5x784x10" names; X and × stand for x, too.

        Raises ValueError unless it is three sizes from 1 to 999999999.
        """
        sizes = re.fullmatch(r"([1-9]\d{0,8})[xX×]([1-9]\d{0,8})[xX×]([1-9]\d{0,8})", text)
        if not sizes:
            sizes_wanted = "MxKxN, such as 64x784x10, of sizes from 1 to 999999999"
            raise ValueError(f"{text}: a shape is {sizes_wanted}")
        return cls(*map(int, sizes.groups()))

    @classmethod
    def of(cls, a, b):
        """Return the shape of the product of two tensors."""
        return cls(a.shape[0], a.shape[1], b.shape[1])

    def __str__(self):
        return f"{self.m}x{self.k}x{self.n}"

    @property
    def flops(self):
        """Floating-point operations: a multiplication and an addition for each of m * k * n."""
        return 2 * self.m * self.k * self.n

    @property
    def bytes(self):
        """Bytes of the operands and the product, each once, as float32."""
        return 4 * (self.m * self.k + self.k * self.n + self.m * self.n)


SMALL = Shape(5, 784, 10)  # the lesson's m1 @ m2
FULL = Shape(50_000, 784, 10)  # the lesson's x_train @ weights
SQUARE = Shape(1024, 1024, 1024)  # not the lesson's: arithmetic is its limit, and not memory
