"""What a page shows of saved runs; template.html says how."""

import math
import re
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from ladder.page import pictures
from ladder.page.code import as_html, changes, essence
from ladder.page.history import by_machine, differences, entry, largest_changes
from ladder.report import (
    DEVICES,
    about,
    machine,
    marks,
    rate,
    remarks,
    share_of_limit,
    speed_up,
    step,
    time_of,
    untimed,
    warnings,
)
from ladder.run import NOISY, Result, Run
from ladder.text import across, percent, round_seconds, seconds, times

HERE = Path(__file__).parent
# What neither HTML nor UTF-8 has: control characters and halves of a character.
NO_TEXT = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


def page(runs):
    """Return the page of ``{name: run}`` as HTML.

    Raises ValueError if one of several runs has no shape in common with the others.
    """
    runs = {cleaned(name): Run(cleaned(run.saved)) for name, run in runs.items()}
    refuse_strangers(runs)
    machines = by_machine([entry(name, run) for name, run in runs.items()])
    newest, rooflines, histories, shown = [], [], [], {}
    for number, entries in enumerate(machines.values()):
        one = entries[-1]
        ladders = [
            ladder(newest_with(shape, entries), shape, f"m{number}", shown)
            | {"is_newest": shape in one.run.shapes}
            for shape in shapes_of(entries)
        ]
        newest.append(about_run(one) | {"ladders": ladders})
        rooflines.append(roofline(one, number))
        if len(entries) > 1:
            histories.append(history(entries, number))
    several = len(machines) > 1
    return template().render(
        newest=newest,
        rooflines=rooflines,
        histories=histories,
        comparisons=side_by_side([entries[-1] for entries in machines.values()]) if several else [],
        runs=[about_run(one) for entries in machines.values() for one in reversed(entries)],
        several=several,
    )


def shapes_of(entries):
    """Return the shapes of all runs, the one with the fewest operations first."""
    shapes = dict.fromkeys(shape for one in reversed(entries) for shape in one.run.shapes)
    return sorted(shapes, key=lambda shape: shape.flops)


def newest_with(shape, entries):
    """Return the newest `Entry` that has a shape."""
    return [one for one in entries if shape in one.run.shapes][-1]


def template():
    """Return the template; it escapes every text that it is given, unless that is Markup."""
    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["marked"] = marked
    return environment.get_template("template.html")


def cleaned(value):
    """Return what was in a JSON, without the characters that no page can hold."""
    if isinstance(value, str):
        return NO_TEXT.sub("\ufffd", value)
    if isinstance(value, list):
        return [cleaned(one) for one in value]
    if isinstance(value, dict):
        return {cleaned(name): cleaned(one) for name, one in value.items()}
    return value


def refuse_strangers(runs):
    for name, run in runs.items():
        others = {shape for other in runs.values() if other is not run for shape in other.shapes}
        if not run.shapes:
            raise ValueError(f"{name}: no rung was timed in it")
        if others and not others & {*run.shapes}:
            raise ValueError(f"{name}: no shape in common with the other runs")


def marked(text, meanings):
    """Return a number with its mark, which says itself what it means."""
    number = text.rstrip("?*")
    mark = text[len(number) :]
    if mark not in meanings:
        return text
    return Markup('{}<abbr title="{}">{}</abbr>').format(number, meanings[mark], mark)


def meanings_of(results):
    """Return ``{mark: what it means}`` of the marks that some results have."""
    return dict(line.split(" ", 1) for line in marks(results))


# ---- The ladder --------------------------------------------------------------------


@dataclass
class Row:
    """A rung on one shape."""

    result: Result
    anchor: str
    cells: dict  # {heading: text}, beside the bar
    width: float  # of the bar, in percent
    course: float | None  # where the course's own time is, in percent
    figures: list  # (name, text), in its fold
    code: Markup
    changed: list | None  # (mark, Markup) of what has changed in the code; None if it is too much
    code_at: str | None  # the anchor of the row on another machine that shows the same code


@dataclass
class Axis:
    """A logarithmic axis of times: the slowest to the left, at 0%, the fastest to the right."""

    slow: float
    fast: float

    def place(self, time):
        return 100 * math.log(self.slow / time) / math.log(self.slow / self.fast)

    def ticks(self):
        """Return (place, text) of the powers of ten; of 2 and 5 times those, if there are few.

        Where there are many, only each second one, or third, has a text.
        """
        factors = (1,) if self.slow / self.fast > 100 else (1, 2, 5)
        powers = range(math.floor(math.log10(self.fast)), math.ceil(math.log10(self.slow)) + 1)
        found = [factor * 10.0**power for power in powers for factor in factors]
        inside = [time for time in found if self.fast <= time <= self.slow]
        every = math.ceil(len(inside) / 4)
        return [
            (self.place(time), round_seconds(time) if number % every == 0 else "")
            for number, time in enumerate(inside)
        ]


def ladder(one, shape, machine_id, shown):
    """Return what a page shows of one ladder of an `Entry`.

    ``shown`` is ``{(rung, source): anchor}`` of the code that stands on the page already.
    """
    run, prefix = one.run, f"{machine_id}-{shape}"
    results, axis = run.at(shape), axis_of(run, shape)
    chapters = {}
    for number, result in enumerate(results):
        key, anchor = (result.rung, result.source), f"{prefix}-{number}"
        at = shown.setdefault(key, anchor)
        elsewhere = None if at.startswith(f"{machine_id}-") else at
        row = row_of(run, result, axis, anchor, elsewhere)
        chapters.setdefault(result.chapter, []).append(row)
    limits = {}
    for device in dict.fromkeys(result.device for result in results):
        for bound in run.bounds(device, shape)[:1]:
            text = f"limit of the {DEVICES[device]}: {seconds(bound.seconds)}, {bound.kind}"
            limits[device] = axis.place(bound.seconds), text
    return {
        "id": prefix,
        "entry": one,
        "warnings": list(warnings(run)),
        "shape": across(shape),
        "chapters": chapters,
        "ticks": axis.ticks(),
        "limits": limits,
        "about": list(about(run, shape)),
        "meanings": meanings_of(results),
        "course": any(result.course for result in results),
        "devices": {result.device: DEVICES[result.device] for result in results},
    }


def axis_of(run, shape):
    """Return an axis for a shape's times, the course's, and the limits; each bar is seen."""
    results = run.at(shape)
    found = [result.median for result in results]
    found += [result.course for result in results if result.course]
    for device in {result.device for result in results}:
        found += [bound.seconds for bound in run.bounds(device, shape)[:1]]
    slow, fast = max(found), min(found)
    margin = 1.3 * (slow / fast) ** 0.02
    return Axis(slow * margin, fast / margin)


def row_of(run, result, axis, anchor, elsewhere):
    previous = run.about["rungs"].get(result.before)
    changed = []
    if previous:
        old = essence(result.before, previous["source"])
        changed = changes(old, essence(result.rung, result.source))
    return Row(
        result=result,
        anchor=anchor,
        cells={
            "time": time_of(result),
            "step": step_if_sure(run, result),
            "of limit": share_of_limit(run, result),
            "in all": speed_up(run, run.at(result.shape)[0], result),
        },
        width=axis.place(result.median),
        course=axis.place(result.course) if result.course else None,
        figures=list(figures(run, result)),
        code=as_html(result.source),
        changed=changed,
        code_at=elsewhere,
    )


def step_if_sure(run, result):
    """Return the step of a result, or "" where it or the rung above was disturbed."""
    previous = run.previous(result)
    if previous and "??" in (previous.doubt, result.doubt):
        return ""
    return step(run, result)


def figures(run, result):
    """Yield (name, text) of what is known of a result."""
    yield "median", time_of(result)
    yield "shortest round", seconds(result.shortest)
    yield "spread of the middle half", seconds(result.iqr) if result.iqr > 0 else "0 s"
    yield "rounds", f"{result.rounds:,}"
    yield "waited for a core", f"{result.waited:.1%} of the time"
    yardstick = run.yardstick(result)
    if yardstick and yardstick is not result:
        yield f"over {yardstick.rung}", speed_up(run, yardstick, result)
    if result.course:
        yield "the course's time", seconds(result.course)
    if result.torch_calls:
        yield "torch calls", f"{result.torch_calls:,}"
    yield "GFLOP/s", rate(result, result.shape.flops)
    yield "GB/s", rate(result, result.shape.bytes)


# ---- The roofline ------------------------------------------------------------------


def roofline(one, number):
    run = one.run
    rows = []
    for result in run.results:
        shape = result.shape
        intensity, speed = f"{shape.flops / shape.bytes:.3g}", rate(result, shape.flops)
        rows.append([result.rung, across(shape), intensity, speed, share_of_limit(run, result)])
    cached = [x.shape for x in run.results if not run.reads_memory(x.device, x.shape)]
    title = f"Roofline of {one.machine}: its points are in the table below."
    return {
        "machine": one.machine,
        "svg": pictures.draw(pictures.draw_roofline, run, title=title, prefix=f"roof{number}-"),
        "rows": rows,
        "cached": [across(shape) for shape in dict.fromkeys(cached)],
        "meanings": meanings_of(run.results),
    }


# ---- Over time ---------------------------------------------------------------------


def history(entries, number):
    """Return what a page shows of several runs of one machine."""
    steps = {}
    for place, (old, new) in enumerate(zip(entries, entries[1:], strict=False), start=1):
        changed = list(differences(old.run, new.run))
        if changed:
            steps[place] = (str(len(steps) + 1), old, new, changed)
    breaks = {place: one[0] for place, one in steps.items()}
    return {
        "machine": entries[0].machine,
        "entries": entries,
        "steps": list(steps.values()),
        "shapes": [
            shape_over_time(entries, shape, breaks, f"time{number}-{shape}-")
            for shape in shapes_of(entries)
        ],
    }


def shape_over_time(entries, shape, breaks, prefix):
    title = f"{shape} over time, on {entries[0].machine}: its numbers are in the table below."
    drawn = pictures.draw(
        pictures.draw_over_time, entries, shape, breaks, title=title, prefix=prefix
    )
    changes = [
        (rung, old.label, new.label, times(ratio))
        for rung, old, new, ratio in largest_changes(entries, shape)
    ]
    rows = []
    for rung in pictures.rungs_of(entries, shape):
        cells, last = [], None
        for one in entries:
            result = one.run.find(shape, rung)
            cells.append(over_time_cell(last, result))
            last = result or last
        rows.append((rung, cells))
    return {"shape": across(shape), "svg": drawn, "changes": changes, "rows": rows}


def over_time_cell(last, result):
    """Return (shortest round, speed-up over the last run, as far as it is worth a look)."""
    if result is None:
        return "", ""
    ratio = last.shortest / result.shortest if last else 1
    changed = not 1 / (1 + NOISY) < ratio < 1 + NOISY
    return f"{seconds(result.shortest)}{result.doubt}", times(ratio) if changed else ""


# ---- Machines side by side ---------------------------------------------------------


def side_by_side(entries):
    """Return, for each shape of several machines, each rung's share of each machine's limit."""
    found = []
    for shape in shapes_of(entries):
        having = [one for one in entries if shape in one.run.shapes]
        if len(having) < 2:
            continue
        rows = []
        for rung in pictures.rungs_of(having[::-1], shape):
            results = [one.run.find(shape, rung) for one in having]
            cells = [compared(one.run, x) for one, x in zip(having, results, strict=True)]
            rows.append((rung, cells))
        found.append(
            {"shape": across(shape), "machines": [x.machine for x in having], "rows": rows}
        )
    return found


def compared(run, result):
    """Return (share in percent, share as text, time, device) of a result, or None."""
    if result is None:
        return None
    share = run.share(result)
    text = "" if share is None else percent(share) + result.doubt
    return 100 * (share or 0), text, time_of(result), result.device


# ---- The runs ----------------------------------------------------------------------


def about_run(one):
    run = one.run
    limits = [line for line in remarks(run) if line not in {*untimed(run), *marks(run.results)}]
    notes = [f"note: {note}" for note in run.about.get("notes", [])]
    cores = f"{run.about.get('cores', '?')} cores ({run.about.get('why_cores', '?')})"
    return {
        "entry": one,
        "measured": f"{one.measured:%Y-%m-%d %H:%M} UTC" if one.measured else "?",
        "machine": [*machine(run), cores],
        "warnings": list(warnings(run)),
        "lines": limits + notes,
        "untimed": list(untimed(run)),
        "meanings": meanings_of(run.results),
        "shapes": [across(shape) for shape in run.shapes],
    }
