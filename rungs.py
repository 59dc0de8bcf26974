"""What a rung is, the list of them, and the operands that a product takes."""

from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass

import numba
import torch
from numba import cuda

SMALL, FULL = "5x784x10", "50000x784x10"
CHAPTERS = "the course", "past the course", "on the GPU"


@dataclass(frozen=True)
class Rung:
    """One step of the ladder: ``fn(a, b) -> c``, the shapes it is timed on, device and chapter."""

    name: str
    fn: Callable
    shapes: tuple
    device: str
    chapter: str = "past the course"


RUNGS: dict[str, Rung] = {}

# For @njit(fastmath=ANY_ORDER): a vector of sums adds up in another order than the loop says.
# Unlike the whole of fastmath, these flags let NaN and Inf come through.
ANY_ORDER = {"reassoc", "contract", "nsz"}


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
        name, course = fn.__name__, fn.__module__ == "kernels"
        if mistake := mistake_in(fn, shapes, device, chapter):
            RUNGS[name] = Rung(name, raises(f"{name}: {mistake}"), (SMALL,), "cpu")
        else:
            own = "on the GPU" if device == "cuda" else CHAPTERS[0 if course else 1]
            RUNGS[name] = Rung(name, fn, tuple(shapes), device, chapter or own)
        return fn

    return register


def mistake_in(fn, shapes, device, chapter):
    """Return what is wrong with a rung as it is written, if anything."""
    if fn.__name__ in RUNGS:
        return "two rungs have this name: rename one"
    if not (fn.__doc__ or "").strip():
        return "a rung has a docstring that says what is new"
    if tuple(shapes) not in [(SMALL,), (SMALL, FULL)]:
        return f"shapes are [SMALL] or [SMALL, FULL], not {shapes}"
    if device not in ("cpu", "cuda"):
        return f'the device is "cpu" or "cuda", not {device!r}'
    if chapter not in (None, *CHAPTERS):
        return f"the chapter is one of {CHAPTERS}, not {chapter!r}"


def raises(mistake):
    """Return a stand-in for a rung, so that the mistake is told when it is tested, and not before."""

    def fn(a, b):
        raise ValueError(mistake)

    return fn


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
