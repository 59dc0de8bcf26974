"""One record of what was measured: written once from a benchmark, read once from saved JSON."""

import json
import math
import re
from dataclasses import asdict, dataclass, fields
from pathlib import Path

NOISY = 0.1  # of the median: the interquartile range, or the time that threads waited for a core
MEASURED = "median", "iqr", "rounds"


@dataclass
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
    waited: float = 0.0  # thread-seconds without a core, for each second
    median: float = math.nan  # seconds of one call
    iqr: float = 0.0
    rounds: int = 0
    reason: str = ""

    @classmethod
    def of(cls, rung, shape, order):
        """Return the record of a `Rung` on a shape "MxKxN" before anything is measured."""
        m, k, n = map(int, shape.split("x"))
        return cls(
            rung.name,
            shape,
            order,
            rung.device,
            rung.chapter,
            rung.new,
            rung.before(shape),
            rung.course.get(shape),
            flops=2 * m * k * n,
            bytes=4 * (m * k + k * n + m * n),
        )

    def written(self):
        """Return what pytest-benchmark saves of it as ``extra_info``, beside its own statistics."""
        return {key: value for key, value in asdict(self).items() if key not in MEASURED}

    @classmethod
    def read(cls, saved, stats):
        """Return the record that `written` and pytest-benchmark saved."""
        known = {field.name for field in fields(cls)}
        saved = {key: value for key, value in saved.items() if key in known}
        return cls(**saved | {key: stats[key] for key in MEASURED if key in stats})

    @property
    def doubt(self):
        """A mark: "*" for a single round, whose spread is unknown; "?" for a noisy time."""
        noisy = self.iqr > NOISY * self.median or self.waited > NOISY
        return "*" if self.rounds == 1 else "?" if noisy else ""

    @property
    def per_operation(self):
        """The seconds for one multiplication and addition."""
        return 2 * self.median / self.flops


@dataclass
class Limit:
    """A rate that the machine reaches: bytes read from memory, or operations, a second."""

    way: str
    kind: str  # "bytes" or "flops"
    device: str
    work: int
    median: float

    @property
    def rate(self):
        return self.work / self.median


class Run:
    """What one run of pytest measured, from the dict that pytest-benchmark saves as JSON."""

    def __init__(self, saved):
        self.saved = saved
        self.suite = saved.get("suite", {})
        self.results, self.rows, self.limits, self.others = [], [], [], []
        for bench in saved["benchmarks"]:
            info, stats = bench["extra_info"], bench["stats"]
            if "rung" in info and bench["group"] in (f"matmul {info['shape']}", "rows"):
                found = self.rows if bench["group"] == "rows" else self.results
                found.append(Result.read(info, stats))
            elif "limit" in info:
                way = re.sub(r".*\[(.*)\]", r"\1", bench["name"])
                work = info["limit"], info["device"], info["work"]
                self.limits.append(Limit(way, *work, stats["median"]))
            elif "course" in info:
                self.others.append((bench["name"], stats["median"], info["course"]))
        self.results += [Result.read(skip, {}) for skip in saved.get("skipped", ())]
        self.results.sort(key=lambda result: (result.flops, result.order))

    @classmethod
    def load(cls, path):
        """Return the run in a file. Raises OSError, or ValueError if it holds anything else."""
        try:
            return cls(json.loads(Path(path).read_text(encoding="utf-8")))
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
            raise ValueError(
                f"{path}: not a run of this suite, as --benchmark-json saves it "
                f"({type(error).__name__}: {error})"
            ) from None

    def timed(self, shape=None):
        """Return the results that have a time, of one shape or of all."""
        return [r for r in self.results if not r.reason and shape in (None, r.shape)]

    @property
    def shapes(self):
        """The shapes of the ladders, the smallest first."""
        return list(dict.fromkeys(result.shape for result in self.timed()))

    def peer(self, result):
        """Return the result of torch.matmul on the same shape and device, or None."""
        names = "matmul_torch", "matmul_torch_cuda"
        same = (r for r in self.timed(result.shape) if r.device == result.device)
        return next((r for r in same if r.rung in names), None)

    def step(self, result):
        """Return the result of the rung over which this one is a step, or None."""
        return next((r for r in self.timed(result.shape) if r.rung == result.before), None)

    def best(self, device, kind):
        """Return the fastest `Limit` of its kind, or None."""
        found = [x for x in self.limits if (x.device, x.kind) == (device, kind)]
        return max(found, key=lambda limit: limit.rate, default=None)

    def bounds(self, result):
        """Return ``{"memory" or "arithmetic": seconds}``: the least that any code could take.

        Memory bounds only what is at least as large as what the read rate was measured on:
        smaller operands may come from a cache.
        """
        read, flops = (self.best(result.device, kind) for kind in ("bytes", "flops"))
        found = {}
        if read and flops:
            found["arithmetic"] = result.flops / flops.rate
            if result.bytes >= read.work:
                found["memory"] = result.bytes / read.rate
        return found
