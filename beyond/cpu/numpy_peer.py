"""NumPy, for comparison."""

import torch

from ladder.rungs import rung
from ladder.shape import FULL, SMALL, SQUARE


@rung(shapes=(SMALL, FULL, SQUARE), starts_anew=True)
def matmul_numpy(a, b):
    """For comparison: NumPy's @, which is OpenBLAS where torch has MKL."""
    return torch.from_numpy(a.numpy() @ b.numpy())
