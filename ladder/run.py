"""What a run of pytest measured: the dict that pytest-benchmark saves as JSON.

It is all that tables, pictures and pages know. Three things are added to pytest-benchmark's own:

- ``extra_info`` of a rung's benchmark has ``rung``, ``shape``, ``same_as`` (the rung whose code it
  runs there), ``torch_calls`` and ``waited`` (the share of the time that a thread waited for a
  core); that of a limit's has ``limit`` (its kind), ``way``, ``device`` and ``work``.
- ``ladder.rungs`` describes each rung once (`describe`); ``ladder.untimed`` says of those that
  were not timed why; the rest of ``ladder`` is about the machine and the run.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path

from ladder.shape import Shape

NOISY = 0.1  # an interquartile range of so much of the median, or waiting so much of the time
DISTURBED = 2  # a median of so many times the shortest round says little of the code
MARKS = "", "?", "*", "??"  # the gravest last


def is_noisy(shortest, median, iqr, waited):
    return iqr > NOISY * median or waited > NOISY or median > DISTURBED * shortest


def doubt(shortest, median, iqr, rounds, waited):
    """Return the mark of a time: "?" for a noisy one, "*" for a single round, whose spread is
    unknown, "??" for a median of over twice the shortest round, or a thread that waited for a core
    most of the time."""
    if median > DISTURBED * shortest or waited > 1 / DISTURBED:
        return "??"
    if rounds == 1:
        return "*"
    return "?" if is_noisy(shortest, median, iqr, waited) else ""


def describe(rungs):
    """Return ``{name: what a saved run says of it}`` for rungs in the ladder's order."""
    return {
        rung.name: {
            "device": rung.device,
            "chapter": rung.chapter,
            "sentence": rung.sentence,
            "source": rung.source,
            "course": {str(shape): seconds for shape, seconds in rung.course.items()},
            "yardstick": rung.yardstick,
            "before": rung.before.name if rung.before else None,
        }
        for rung in rungs
    }


@dataclass(eq=False)
class Result:
    """One rung on one shape in a run. Times are seconds of one call."""

    rung: str
    shape: Shape
    device: str
    chapter: str
    sentence: str  # what is new in the rung
    source: str  # its code, with what it uses of its file
    course: float | None  # the time that the notebook gives
    before: str | None  # the rung over which it is a step
    same_as: str | None  # the rung whose code it runs at this shape
    torch_calls: int | None  # operations of torch in one product
    waited: float  # share of the time that a thread waited for a core
    shortest: float
    median: float
    iqr: float
    rounds: int

    @property
    def doubt(self):
        return doubt(self.shortest, self.median, self.iqr, self.rounds, self.waited)


@dataclass(frozen=True)
class Limit:
    """What the machine reached in one ``way``, in its shortest round.

    ``kind`` is "call", "memory" or "arithmetic"; ``work`` and ``rate`` are calls, bytes or
    operations, and those a second; ``doubt`` is the mark of its time.
    """

    device: str
    kind: str
    way: str
    work: float
    rate: float
    doubt: str


@dataclass(frozen=True)
class Bound:
    """The least time that a product can take on a device, in seconds, by one of its limits."""

    kind: str
    seconds: float
    rate: float
    reached_by: str  # a way in which the limit was measured, or a rung that came further


class Run:
    """What one run of pytest measured."""

    def __init__(self, saved):
        self.saved, self.about = saved, saved["ladder"]
        self.interrupted = self.about.get("interrupted", False)
        self.results, self.limits = [], []
        for bench in saved["benchmarks"]:
            info = bench["extra_info"]
            if "limit" in info:
                self.limits.append(limit(info, bench["stats"]))
            elif "rung" in info and bench["group"] == f"matmul {info['shape']}":
                self.results.append(self.result(info, bench["stats"]))
        order = list(self.about["rungs"])
        self.results.sort(key=lambda result: (result.shape.flops, order.index(result.rung)))
        self.shapes = list(dict.fromkeys(result.shape for result in self.results))
        self._furthest = {}  # by device, once it has been asked for

    def result(self, info, stats):
        rung, shape = self.about["rungs"][info["rung"]], Shape.parse(info["shape"])
        same_as = info.get("same_as")
        return Result(
            rung=info["rung"],
            shape=shape,
            device=rung["device"],
            chapter=rung["chapter"],
            sentence=rung["sentence"],
            source=rung["source"],
            course=rung["course"].get(str(shape)),
            before=None if same_as else rung["before"],
            same_as=same_as,
            torch_calls=info.get("torch_calls"),
            waited=info.get("waited", 0.0),
            shortest=stats["min"],
            median=stats["median"],
            iqr=stats["iqr"],
            rounds=stats["rounds"],
        )

    @classmethod
    def load(cls, path):
        """Return the run in a file. Raises OSError, or ValueError if it holds anything else."""
        try:
            saved = json.loads(Path(path).read_text(encoding="utf-8"))
            if "suite" in saved:
                raise ValueError("it was saved by an older version of this suite")
            return cls(saved)
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
            what = f"{type(error).__name__}: {str(error)[:200]}"
            raise ValueError(f"{path}: not a run of this suite, as JSON ({what})") from None

    def at(self, shape):
        """Return the results of one shape, in the ladder's order."""
        return [result for result in self.results if result.shape == shape]

    def find(self, shape, rung):
        """Return the result of one rung on one shape, or None."""
        for result in self.at(shape):
            if result.rung == rung:
                return result
        return None

    def previous(self, result):
        """Return the result of the rung over which this one is a step, or None: the next one above
        that was timed on this shape."""
        name = result.before
        for _ in self.about["rungs"]:  # no more steps back than there are rungs
            if name not in self.about["rungs"]:
                return None
            if found := self.find(result.shape, name):
                return found
            name = self.about["rungs"][name]["before"]
        return None

    def yardstick(self, result):
        """Return the result of the rung with which all of the device are compared, or None."""
        for other in self.at(result.shape):
            if other.device == result.device and self.about["rungs"][other.rung]["yardstick"]:
                return other
        return None

    def lesson(self):
        """Return the shapes of the notebook's own times, as far as this run has them."""
        courses = [rung["course"] for rung in self.about["rungs"].values()]
        return [shape for shape in self.shapes if any(str(shape) in times for times in courses)]

    def best_rates(self, device):
        """Return ``{kind: work a second}`` of the limits measured on a device."""
        return {kind: rate for kind, (rate, _) in self.furthest(device).items()}

    def furthest(self, device):
        """Return ``{kind: (work a second, who reached it)}`` of the limits measured on a device.

        That is the best of the limit's own benchmarks and of the rungs: what a rung has reached is
        possible, whatever has disturbed the others.
        """
        if device not in self._furthest:  # each cell of a table asks
            self._furthest[device] = self._find_furthest(device)
        return self._furthest[device]

    def _find_furthest(self, device):
        reached = [(x.kind, x.rate, x.way) for x in self.limits if x.device == device]
        measured = {kind for kind, _, _ in reached}
        for result in self.results:
            if result.device == device:
                for kind, work in self.work(device, result.shape).items():
                    reached.append((kind, work / result.shortest, result.rung))
        best = {}
        for kind, rate, who in reached:
            if kind in measured and (kind not in best or rate > best[kind][0]):
                best[kind] = rate, who
        return best

    def work(self, device, shape):
        """Return ``{kind: work}`` of a product: of each kind that it has to do on a device."""
        work = {"call": 1, "arithmetic": shape.flops}
        if self.reads_memory(device, shape):
            work["memory"] = shape.bytes
        return work

    def bounds(self, device, shape):
        """Return the bounds of a product on a device, the one that binds first."""
        best, found = self.furthest(device), []
        for kind, work in self.work(device, shape).items():
            if kind in best:
                rate, who = best[kind]
                found.append(Bound(kind, work / rate, rate, who))
        found.sort(key=lambda bound: -bound.seconds)
        return found

    def reads_memory(self, device, shape):
        """Return whether a product is as large as what the read rate was measured on: a smaller
        one may come from a cache."""
        read = [x.work for x in self.limits if x.device == device and x.kind == "memory"]
        return bool(read) and shape.bytes >= min(read)

    def share(self, result):
        """Return which share of the limit a rung reached, from 0 to 1, or None without a limit."""
        bounds = self.bounds(result.device, result.shape)
        return bounds[0].seconds / result.median if bounds else None

    def speed_up(self, old, new):
        """Return how many times faster one result is than another, and whether that is beyond
        the spread of their rounds."""
        apart = abs(old.median - new.median) > (old.iqr + new.iqr) / 2
        return old.median / new.median, apart

    def whole_way(self):
        """Return the ends of the lesson, or None if this run lacks them.

        That is ``(first, bridge, crossed, fastest)``: the first rung of the lesson's small shape;
        the first rung that was timed on the large shape, too, on either; and the fastest there.
        """
        shapes = self.lesson()
        if len(shapes) < 2:
            return None
        first, crossed = self.at(shapes[0])[0], self.at(shapes[-1])[0]
        bridge = self.find(shapes[0], crossed.rung)
        fastest = min(self.at(shapes[-1]), key=lambda result: result.median)
        if bridge is None or bridge is first or crossed is fastest:
            return None
        return first, bridge, crossed, fastest

    def course_whole_way(self, first, bridge, fastest):
        """Return the notebook's times of the same ends; the fastest is its own."""
        rungs = self.about["rungs"].values()
        large = str(fastest.shape)
        least = min(rung["course"][large] for rung in rungs if large in rung["course"])
        crossed = self.about["rungs"][bridge.rung]["course"][large]
        return first.course, bridge.course, crossed, least


def limit(info, stats):
    rate = info["work"] / stats["min"]
    mark = doubt(*(stats[key] for key in ("min", "median", "iqr", "rounds")), info["waited"])
    return Limit(info["device"], info["limit"], info["way"], info["work"], rate, mark)


def gravest(*doubts):
    """Return the gravest of some marks."""
    return max(doubts, key=MARKS.index, default="")


def is_number(value):
    return isinstance(value, (int, float)) and math.isfinite(value)
