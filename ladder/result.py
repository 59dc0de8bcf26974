"""One record of what was measured: written once from a benchmark, read once from saved JSON."""

import json
import math
from collections import namedtuple
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from ladder.rungs import RUNGS
from ladder.shape import Shape

NOISY = 0.1  # an interquartile range of so much of the median, or waiting so much of the time
MEASURED = "median", "iqr", "rounds"


@dataclass(eq=False)
class Result:
    """One rung on one shape in a run: its times, or the reason why it was not timed."""

    rung: str
    shape: str
    order: int  # in the lesson
    device: str
    chapter: str
    new: str  # what is new in the rung, in a line
    before: str = ""  # the rung over which it is a step at this shape
    course: float | None = None  # seconds that the notebook gives
    flops: int = 0
    bytes: int = 0  # the operands and the product, each once
    calls: int | None = None  # of torch, for one product
    waited: float = 0.0  # share of the time that a thread waited for a core, at most
    median: float = math.nan  # seconds of one call
    iqr: float = 0.0
    rounds: int = 0
    reason: str = ""

    @classmethod
    def of(cls, rung, shape):
        """Return the record of a `Rung` on a shape "MxKxN" before anything is measured."""
        shape, before = Shape.parse(str(shape)), rung.before(Shape.parse(str(shape)))
        place = (
            [*RUNGS].index(rung.name),
            rung.device,
            rung.chapter,
            rung.sentence,
            before.name if before else "",
        )
        return cls(
            rung.name, str(shape), *place, (rung.course or {}).get(shape), shape.flops, shape.bytes
        )

    def written(self):
        """Return what pytest-benchmark saves of it as ``extra_info``, beside its own statistics."""
        return {key: value for key, value in asdict(self).items() if key not in MEASURED}

    @classmethod
    def read(cls, saved, stats):
        """Return the record that `written` and pytest-benchmark saved."""
        known = {field.name for field in fields(cls)} - {*MEASURED}
        measured = {key: stats[key] for key in MEASURED if key in stats}
        return cls(**{key: saved[key] for key in saved if key in known} | measured)

    @property
    def doubt(self):
        return doubt(self.median, self.iqr, self.rounds, self.waited)


def doubt(median, iqr, rounds, waited):
    """Return a mark: "*" for a single round, whose spread is unknown; "?" for a noisy time."""
    return "*" if rounds == 1 else "?" if iqr > NOISY * median or waited > NOISY else ""


# What the machine reaches, one ``way`` of measuring it: ``work`` and ``rate`` are bytes read or
# operations, as ``kind`` says, "bytes" or "flops".
Limit = namedtuple("Limit", "device kind way work rate doubt")


class Run:
    """What one run of pytest measured, from the dict that pytest-benchmark saves as JSON."""

    def __init__(self, saved):
        self.saved, self.suite = saved, saved.get("suite", {})
        self.results = [Result.read(skip, {}) for skip in saved.get("skipped", ())]
        self.limits = []
        for bench in saved["benchmarks"]:
            info, stats = bench["extra_info"], bench["stats"]
            if "limit" in info:
                mark = doubt(*(stats[key] for key in MEASURED), info["waited"])
                what = info["device"], info["limit"], info["way"]
                rate = info["work"] / stats["median"]
                self.limits.append(Limit(*what, info["work"], rate, mark))
            elif "rung" in info and bench["group"] != "rows":
                self.results.append(Result.read(info, stats))
        self.results.sort(key=lambda result: (result.flops, result.order))
        self.shapes = list(dict.fromkeys(result.shape for result in self.timed()))

    @classmethod
    def load(cls, path):
        """Return the run in a file. Raises OSError, or ValueError if it holds anything else."""
        try:
            return cls(json.loads(Path(path).read_text(encoding="utf-8")))
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
            what = f"{type(error).__name__}: {error}"
            raise ValueError(f"{path}: not a run of this suite, as JSON ({what})") from None

    def timed(self, shape=None):
        """Return the results that have a time, of one shape or of all."""
        return [r for r in self.results if not r.reason and shape in (None, r.shape)]

    def find(self, shape, device, *names):
        """Return the first result of one of these rungs, or None."""
        same = (r for r in self.timed(shape) if r.device == device and r.rung in names)
        return next(same, None)

    def bounds(self, result):
        """Return ``{"memory" or "arithmetic": (seconds, Limit)}``: the least that any code takes.
        What is smaller than what the read rate was measured on may come from a cache."""
        best = {}
        for limit in sorted(self.limits, key=lambda limit: limit.rate):
            if limit.device == result.device:
                best[limit.kind] = limit
        if len(best) < 2:
            return {}
        found = {"arithmetic": (result.flops / best["flops"].rate, best["flops"])}
        if result.bytes >= best["bytes"].work:
            found["memory"] = (result.bytes / best["bytes"].rate, best["bytes"])
        return found
