"""What a rung of the ladder is, and the list of them."""

import re
from collections.abc import Callable
from dataclasses import dataclass

SMALL, FULL = "5x784x10", "50000x784x10"
SHAPE = re.compile(r"[1-9]\d{0,8}x[1-9]\d{0,8}x[1-9]\d{0,8}")

# Fastmath flags for Numba that let LLVM reorder (and so vectorise) a sum without assuming away
# NaN and Inf, as the whole of fastmath does.
ANY_ORDER = {"reassoc", "contract", "nsz"}


@dataclass(frozen=True)
class Rung:
    """One way to multiply: ``fn(a, b) -> c``, what `rung` was told of it, and where it stands."""

    name: str
    fn: Callable
    shapes: tuple[str, ...]
    device: str = "cpu"
    course: dict[str, float] | None = None
    step: bool | Callable[[int, int, int], bool] = True
    chapter: str = "beyond the course"
    order: int = 0
    previous: str = ""

    @property
    def new(self):
        """What is new in it: the first line of its docstring."""
        return self.fn.__doc__.strip().partition("\n")[0]

    def before(self, shape):
        """Return the name of the rung over which this one is a step at ``shape``, or ""."""
        is_step = self.step(*map(int, shape.split("x"))) if callable(self.step) else self.step
        return self.previous if is_step else ""


RUNGS: dict[str, Rung] = {}


def rung_names(device, *shapes):
    """Return the names of a device's rungs that are timed on these shapes, in the ladder's order."""
    return [r.name for r in RUNGS.values() if r.device == device and {*shapes} <= {*r.shapes}]


def rung(shapes=(SMALL, FULL), device="cpu", course=None, step=True):
    """Register the function below as a rung, under its own name, in the order of definition.

    It takes float32 tensors of shapes (M, K) and (K, N) and returns a new one, (M, N); the first
    line of its docstring says what is new. ``shapes`` are the shapes "MxKxN" on which it is timed
    (only the small one if it is too slow for the full one), ``device`` is "cpu" or "cuda",
    ``course`` the notebook's own times in seconds by shape. ``step`` says whether it is a step
    over the rung above it, or is a function of M, K and N that says so; if not, it starts anew,
    or runs the same code. A rung raises ImportError for what this machine lacks, and is skipped.
    Raises ValueError if a rung is written wrongly.
    """
    if callable(shapes):  # @rung, without parentheses
        return rung()(shapes)

    def register(fn):
        name = fn.__name__
        if name in RUNGS:
            raise ValueError(f"two rungs are named {name}: rename one")
        if not (fn.__doc__ or "").strip():
            raise ValueError(f"{name}: a rung has a docstring that says what is new")
        if not all(map(SHAPE.fullmatch, shapes)):
            raise ValueError(f'{name}: shapes are SMALL, FULL or "MxKxN", not {shapes}')
        if device not in ("cpu", "cuda"):
            raise ValueError(f'{name}: the device is "cpu" or "cuda", not {device!r}')
        chapter = "the course" if fn.__module__ == "kernels" else "beyond the course"
        chapter += ", on the GPU" * (device == "cuda")
        previous = [r.name for r in RUNGS.values() if r.chapter == chapter][-1:]
        times = {shape: float(seconds) for shape, seconds in dict(course or {}).items()}
        new = Rung(name, fn, tuple(shapes), device, times, step, chapter, len(RUNGS), *previous)
        new.before(SMALL)  # raises an error if step is no such function
        RUNGS[name] = new
        return fn

    return register
