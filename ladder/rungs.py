"""What a rung of the ladder is, and the list of them."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from ladder.shape import FULL, SMALL, Shape
from ladder.source import code_of

# Fastmath flags for Numba that let LLVM reorder (and so vectorise) a sum without assuming away
# NaN and Inf, as the whole of fastmath does.
ANY_ORDER = {"reassoc", "contract", "nsz"}


@dataclass(frozen=True)
class Rung:
    """One way to multiply: ``fn(a, b) -> c``, and what the decorator `rung` was told of it."""

    fn: Callable
    shapes: tuple[Shape, ...]
    chapter: str
    device: str = "cpu"
    course: dict[Shape, float] = field(default_factory=dict)
    yardstick: bool = False
    starts_anew: bool = False
    same_as: Callable[[Shape], Callable | None] | None = None

    @property
    def name(self):
        return self.fn.__name__

    @property
    def sentence(self):
        """What is new in it: the first line of its docstring."""
        return self.fn.__doc__.strip().partition("\n")[0]

    @property
    def source(self):
        """Its code as text, with what it uses of the same file, but for other rungs; "" where
        Python can't find it."""
        try:
            return code_of(self.fn, without=RUNGS)
        except (OSError, TypeError):
            return ""

    def whose_code(self, shape):
        """Return the rung whose code this one runs at ``shape``: itself, or another."""
        other = self.same_as(shape) if self.same_as else None
        return RUNGS[other.__name__].whose_code(shape) if other else self

    @property
    def before(self):
        """The rung above it in its chapter, over which it is a step; None if it starts anew."""
        chapter = [rung for rung in RUNGS.values() if rung.chapter == self.chapter]
        position = chapter.index(self)
        if position == 0 or self.starts_anew:
            return None
        return chapter[position - 1]


RUNGS: dict[str, Rung] = {}


def rung_names(device, *shapes):
    """Return the names of a device's rungs that are timed on these shapes, in the ladder's order."""
    return [r.name for r in RUNGS.values() if r.device == device and {*shapes} <= {*r.shapes}]


def rung(
    shapes=(SMALL, FULL),
    device="cpu",
    course=None,
    yardstick=False,
    starts_anew=False,
    same_as=None,
    chapter="beyond the course",
):
    """Make a rung of the function below, under its own name, in the order of definition.

    The function takes float32 tensors of shapes (M, K) and (K, N), and returns a new one, (M, N).
    The first line of its docstring says what is new in it. If it lacks something on this machine,
    it raises ImportError, and is skipped.

    - ``shapes``: the shapes on which it is timed; only [SMALL] if it is too slow for FULL, and []
      if there is nothing new in it at any but those of --shape.
    - ``device``: "cpu" or "cuda".
    - ``course``: the notebook's own times in seconds, by shape.
    - ``yardstick``: the other rungs of its device are compared with it.
    - ``starts_anew``: it is another idea, and no step over the rung above it.
    - ``same_as``: a function of a `Shape` that returns the rung whose code it runs there, or None.

    Defined again in the same module, as in a notebook, it takes its predecessor's place. Raises
    ValueError if a rung is written wrongly.
    """

    if callable(shapes):
        raise ValueError(f"{shapes.__name__}: write @rung(), with parentheses")

    def register(fn):
        name = fn.__name__
        if name in RUNGS and RUNGS[name].fn.__module__ != fn.__module__:
            raise ValueError(f"two rungs are named {name}: rename one")
        if not (fn.__doc__ or "").strip():
            raise ValueError(f"{name}: a rung has a docstring that says what is new")
        if not isinstance(shapes, (list, tuple)) or not all(isinstance(x, Shape) for x in shapes):
            wanted = "a list such as [SMALL, Shape(64, 784, 10)]"
            raise ValueError(f"{name}: shapes is {wanted}, not {shapes!r}")
        if device not in ("cpu", "cuda"):
            raise ValueError(f'{name}: the device is "cpu" or "cuda", not {device!r}')
        place = f"{chapter}, on the GPU" if device == "cuda" else chapter
        RUNGS[name] = Rung(
            fn, tuple(shapes), place, device, course or {}, yardstick, starts_anew, same_as
        )
        return fn

    return register


rung_of_the_course = partial(rung, chapter="the course")
