"""What a rung is, the list of them, and the operands that a product takes."""

from collections.abc import Callable
from dataclasses import dataclass

import numba
import torch
from numba import cuda

SMALL, FULL = "5x784x10", "50000x784x10"


@dataclass(frozen=True)
class Rung:
    """One step of the ladder: ``fn(a, b) -> c``, the shapes it is timed on, and its device."""

    name: str
    fn: Callable
    shapes: tuple
    device: str


RUNGS: dict[str, Rung] = {}


def rung(shapes=(SMALL, FULL), device="cpu"):
    """Register the function below as a rung, under its own name, in the order of definition.

    It takes float32 tensors of shapes (M, K) and (K, N) and returns a new one, (M, N).
    ``shapes`` are the named shapes "MxKxN" on which it is timed (only the small one if
    it is too slow for the full one), ``device`` is "cpu" or "cuda".
    """
    if callable(shapes):
        raise TypeError(f"write @rung(), with parentheses, above {shapes.__name__}")

    def register(fn):
        if fn.__name__ in RUNGS:
            raise ValueError(f"there already is a rung {fn.__name__}")
        if not fn.__doc__:
            raise ValueError(f"{fn.__name__}: a rung has a docstring that says what is new")
        if SMALL not in shapes or {*shapes} - {SMALL, FULL}:
            raise ValueError(f"{fn.__name__}: shapes are [SMALL] or [SMALL, FULL]")
        RUNGS[fn.__name__] = Rung(fn.__name__, fn, tuple(shapes), device)
        return fn

    return register


def check_operands(a, b, device="cpu"):
    """Raise TypeError or ValueError unless a @ b is a product that a rung on ``device`` takes."""
    for name, x in ("a", a), ("b", b):
        if not isinstance(x, torch.Tensor) or x.dtype is not torch.float32:
            kind = x.dtype if isinstance(x, torch.Tensor) else type(x).__name__
            raise TypeError(f"{name} is {kind}, not a float32 torch.Tensor")
        if x.device.type != device:
            raise ValueError(f"{name} is on {x.device}, but this rung runs on {device}")
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[0] or a.device != b.device:
        raise ValueError(
            f"a product takes shapes (M, K) and (K, N) on one device, not {tuple(a.shape)} "
            f"on {a.device} and {tuple(b.shape)} on {b.device}"
        )


def device_array(tensor):
    """Return ``tensor`` as what a numba.cuda kernel takes, without a copy.

    That is a view of a tensor on the GPU, or of one in memory for Numba's simulator. Kernels
    run on the default stream, as torch's do unless it is told otherwise, so order holds.
    """
    if numba.config.ENABLE_CUDASIM:
        return tensor.contiguous().numpy()
    return cuda.as_cuda_array(tensor)
