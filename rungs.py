"""What a rung is, the list of them, and the operands that a product takes."""

from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass

import numba
import torch
from numba import cuda

SMALL, FULL = "5x784x10", "50000x784x10"


@dataclass(frozen=True)
class Rung:
    """One step of the ladder: ``fn(a, b) -> c``, the shapes it is timed on, device and chapter."""

    name: str
    fn: Callable
    shapes: tuple
    device: str
    chapter: str = "past the course"


RUNGS: dict[str, Rung] = {}


def rung(shapes=(SMALL, FULL), device="cpu", chapter=None):
    """Register the function below as a rung, under its own name, in the order of definition.

    It takes float32 tensors of shapes (M, K) and (K, N) and returns a new one, (M, N).
    ``shapes`` are the named shapes "MxKxN" on which it is timed (only the small one if
    it is too slow for the full one), ``device`` is "cpu" or "cuda". The ``chapter`` is "the
    course" for what kernels.py has for the CPU, else "past the course" or "on the GPU".
    """
    if callable(shapes):  # @rung, without parentheses
        return rung()(shapes)

    def register(fn):
        name, fits, mistake = fn.__name__, SMALL in shapes and {SMALL, FULL} >= {*shapes}, ""
        if name in RUNGS:
            mistake = f"there are two rungs {name}: give one another name"
        elif not fn.__doc__:
            mistake = f"{name}: a rung has a docstring that says what is new"
        elif not fits:
            mistake = f"{name}: shapes are [SMALL] or [SMALL, FULL], not {shapes}"
        registered = refuse(mistake) if mistake else fn
        own = "the course" if fn.__module__ == "kernels" else "past the course"
        own = chapter or ("on the GPU" if device == "cuda" else own)
        RUNGS[name] = Rung(name, registered, tuple(shapes) if fits else (SMALL,), device, own)
        return fn

    return register


def refuse(mistake):
    """Return what takes the place of a rung that can't be one, so that the others are timed."""

    def refused(a, b):
        raise ValueError(mistake)

    return refused


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

    That is a view of a tensor on the GPU, or of one in memory for Numba's simulator.
    """
    if numba.config.ENABLE_CUDASIM:
        return tensor.contiguous().numpy()
    return cuda.as_cuda_array(tensor)


@contextmanager
def current_stream(tensor):
    """Make the GPU of ``tensor`` the current one; the value is torch's stream there, for Numba.

    The simulator has neither: 0 stands for its stream.
    """
    if numba.config.ENABLE_CUDASIM:
        yield 0
    else:
        with torch.cuda.device(tensor.device):
            stream = torch.cuda.current_stream().cuda_stream
            yield cuda.external_stream(stream) if stream else 0
