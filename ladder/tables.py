"""The tables of runs, for a terminal and for Markdown: at a glance, and without a kernel in sight."""

import math
import re
from textwrap import wrap

from ladder.result import NOISY

BAR = 20  # characters
GAP = "  "
# What a narrow terminal keeps, most important first; Markdown shows all.
COLUMNS = "median", "vs torch", "of limit", "step", "torch calls", "course", "GFLOP/s", "GB/s"
ORDER = "median", "course", "step", "vs torch", "of limit", "GFLOP/s", "GB/s", "torch calls"

# ---- Numbers as text ---------------------------------------------------------------


def digits(value):
    """Return a positive number with two or three significant digits: 1,234 or 1.23 or 0.012."""
    if value >= 99.95:
        return f"{value:,.0f}"
    if value >= 0.995:
        return f"{value:.{2 if value < 9.995 else 1}f}"
    return f"{value:.{1 - math.floor(math.log10(value))}f}"


def seconds(value):
    """Return a time with its unit: 0.0123 is "12.3 ms"."""
    units = (1, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"), (1e-12, "ps")
    scale, unit = next((u for u in units if value >= 0.9995 * u[0]), units[-1])
    return f"{digits(value / scale)} {unit}"


def size(value, unit):
    """Return a large number with its unit: 1.5e8 bytes are "150 MB"."""
    scale, prefix = next(
        p for p in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (0, "")) if value >= p[0]
    )
    return f"{digits(value / (scale or 1))} {prefix}{unit}"


def times(ratio):
    """Return a speed-up: ×2.00 is twice as fast, ÷2.00 half as fast."""
    return f"×{digits(ratio)}" if ratio >= 0.995 else f"÷{digits(1 / ratio)}"


def speedup(old, new):
    """Return how many times faster one `Result` is than another, with the marks of both."""
    if old is None or old is new:
        return ""
    if abs(old.median - new.median) <= (old.iqr + new.iqr) / 2:  # within what they spread
        return "≈1"
    marks = {old.doubt, new.doubt}
    mark = "*" if "*" in marks else "?" if "?" in marks else ""
    return f"{times(old.median / new.median)}{mark}"


def share(run, result):
    bounds = run.bounds(result)
    return f"{digits(100 * max(bounds.values()) / result.median)}%" if bounds else ""


def cells(run, result):
    """Return ``{column: text}`` for a result that was timed."""
    return {
        "rung": result.rung,
        "median": f"{seconds(result.median)}{result.doubt}",
        "course": seconds(result.course) if result.course else "",
        "step": speedup(run.step(result), result),
        "vs torch": speedup(run.peer(result), result),
        "of limit": share(run, result),
        "GFLOP/s": digits(result.flops / result.median / 1e9),
        "GB/s": digits(result.bytes / result.median / 1e9),
        "torch calls": f"{result.calls:,}" if result.calls is not None else "",
    }


# ---- What is said beside the tables ------------------------------------------------


def fastest(run, shape):
    best = min(run.timed(shape), key=lambda result: result.median)
    return f"fastest at {shape}: {best.rung}, {seconds(best.median)}{best.doubt}"


def limits(run, shape):
    """Return the limits of the machine for a shape, and which one binds, one line a device."""
    lines = []
    for device in dict.fromkeys(result.device for result in run.timed(shape)):
        result = next(r for r in run.timed(shape) if r.device == device)
        bounds, name = run.bounds(result), {"cpu": "CPU", "cuda": "GPU"}[device]
        if not bounds:
            lines.append(f"limit of the {name}: not measured in this run (-k limit does)")
            continue
        flops, read = run.best(device, "flops"), run.best(device, "bytes")
        text = (
            f"{size(result.flops, 'FLOP')} take {seconds(bounds['arithmetic'])} "
            f"at {size(flops.rate, 'FLOP/s')}"
        )
        if "memory" in bounds:
            binds = max(bounds, key=bounds.get)
            text += (
                f", {size(result.bytes, 'B')} {seconds(bounds['memory'])} "
                f"at {size(read.rate, 'B/s')}: {binds} binds"
            )
        else:
            text += f"; memory sets none, as {size(result.bytes, 'B')} may stay in a cache"
        lines.append(f"limit of the {name}: {text}")
    return lines


def rates(run):
    """Yield a line for each kind of limit: what each way of measuring it reached."""
    for kind, unit, what in ("bytes", "B/s", "reading"), ("flops", "FLOP/s", "multiply-adds"):
        for device in dict.fromkeys(x.device for x in run.limits if x.kind == kind):
            found = [x for x in run.limits if (x.device, x.kind) == (device, kind)]
            ways = ", ".join(f"{x.way} {size(x.rate, unit)}" for x in found)
            yield f"{what} on the {'GPU' if device == 'cuda' else 'CPU'}: {ways}"


def sums(run):
    """Yield how far the ladder reaches for each multiply-add, and other times of the course."""
    rungs = run.timed()
    first, best = rungs[0], min(rungs, key=lambda result: result.per_operation)
    if first.rung == "matmul_loops" and best is not first:
        quotient = float(f"{first.per_operation / best.per_operation:.3g}")
        yield (
            f"one multiply-add: {first.rung} {seconds(first.per_operation)}{first.doubt}, "
            f"{best.rung} {seconds(best.per_operation)}{best.doubt}: ×{digits(quotient)} "
            "(the course: 5 million, on a GPU)"
        )
    for name, median, course in run.others:
        yield f"{name.removeprefix('test_')}: {seconds(median)} (the course: {seconds(course)})"


def not_timed(run):
    """Yield a line for each shape and reason why rungs were not timed."""
    reasons = {}
    for result in run.results:
        if result.reason:
            reasons.setdefault((result.shape, result.reason), []).append(result.rung)
    for (shape, reason), rungs in reasons.items():
        yield f"not timed at {shape}: {', '.join(rungs)}: {reason}"


def marks(results):
    """Yield what the marks in the tables mean."""
    doubts = {result.doubt for result in results}
    if "?" in doubts:
        yield (
            f"? noisy: the middle half of the rounds spreads over more than {NOISY:.0%}, or threads "
            "waited for a core"
        )
    if "*" in doubts:
        yield "* a single round: its spread is unknown"


def machine(run):
    """Return the facts about the machine, the libraries and the data of a run."""
    info, suite = run.saved.get("machine_info", {}), run.suite
    cpu = info.get("cpu", {})
    facts = [cpu.get("brand_raw") or info.get("machine", "?")]
    if "family" in cpu:
        facts.append(f"family {cpu['family']} model {cpu.get('model', '?')}")
    facts += [suite[key] for key in ("simd", "threads", "gpu") if suite.get(key)]
    facts += [info.get("system", "?"), f"Python {info.get('python_version', '?')}"]
    facts += [f"{name} {version}" for name, version in suite.get("libraries", {}).items()]
    facts += [f"{name}={value}" for name, value in suite.get("settings", {}).items()]
    return [*facts, f"data {suite.get('data', '?')}", run.saved.get("datetime", "?")[:10]]


# ---- Tables ------------------------------------------------------------------------


def aligned(rows):
    """Return the rows as lines: the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    pad = [str.ljust] + [str.rjust] * (len(widths) - 1)
    return [GAP.join(p(c, w) for p, c, w in zip(pad, row, widths, strict=True)) for row in rows]


def ladder(run, shape, columns):
    """Yield the lines of one shape's table as (text, style), for so many ``columns``.

    A bar is a rung's speed on a log scale, from the slowest rung to the fastest. Where there is
    room, the line ends with what is new in the rung.
    """
    results = run.timed(shape)
    table = [cells(run, result) for result in results]
    shown = ["rung"]
    for column in COLUMNS:
        names = [name for name in ("rung", *ORDER) if name in (*shown, column)]
        rows = [names, *([row[name] for name in names] for row in table)]
        if any(row[column] for row in table) and (
            column == "median" or len(aligned(rows)[0]) + BAR / 2 <= columns
        ):
            shown = names
    header, *body = aligned([[shape, *shown[1:]], *([row[n] for n in shown] for row in table)])
    room = columns - len(header) - len(GAP)
    bar = min(BAR, max(0, room))
    words = room - bar - len(GAP)
    yield "", ""
    yield f"{header}{GAP}{'speed, log scale'[:bar] if bar > 15 else '':{bar}}".rstrip(), "bold"
    slow, fast = (f(result.median for result in results) for f in (max, min))
    chapter = results[0].chapter
    for result, line in zip(results, body, strict=True):
        if result.chapter != chapter:
            yield f"-- {result.chapter} ".ljust(len(header), "-"), "light"
            chapter = result.chapter
        length = round(bar * math.log(slow / result.median) / (math.log(slow / fast) or 1))
        line += f"{GAP}{'█' * length:{bar}}"
        if words >= 30:
            line += GAP + (
                result.new if len(result.new) <= words else f"{result.new[: words - 1]}…"
            )
        yield line.rstrip(), "green" if result.median == fast else ""


def report(run, columns=100, verbose=False):
    """Yield the lines of a run's tables as (text, style), for a terminal of so many ``columns``."""
    rest = []
    for shape in run.shapes:
        yield from ladder(run, shape, columns)
        for line in [fastest(run, shape), *limits(run, shape)]:
            yield from ((part, "green") for part in wrap(line, columns, subsequent_indent=GAP))
    if run.shapes:
        rest = ["", *rates(run), *sums(run), *marks(run.timed())]
    rest += not_timed(run)
    if verbose and run.shapes:
        rest += {f"{result.rung}: {result.new}": 0 for result in run.timed()}
    for line in rest:
        yield from ((part, "") for part in wrap(line, columns, subsequent_indent=GAP) or [""])


def markdown(run):
    """Return the run's tables in Markdown, with the machine that made them."""
    text = []
    for shape in run.shapes:
        header = shape, *ORDER, "what is new"
        text += [f"| {' | '.join(header)} |", "| --- " + "| ---: " * len(ORDER) + "| --- |"]
        chapter = None
        for result in run.timed(shape):
            if result.chapter != chapter:
                text.append(f"| **{result.chapter}** " + "| " * (len(ORDER) + 2))
                chapter = result.chapter
            row = cells(run, result)
            values = [row[name] for name in ("rung", *ORDER)] + [result.new]
            text.append(f"| {' | '.join(map(escaped, values))} |")
        text += ["", *(f"{escaped(line)}  " for line in limits(run, shape)), ""]
    lines = [*rates(run), *sums(run), *not_timed(run), *marks(run.timed())]
    lines.append(f"Measured on: {', '.join(machine(run))}")
    return "\n".join(text + [f"{escaped(line)}  " for line in lines])


def escaped(text):
    """Return a text for Markdown, with nothing in it that Markdown would act on."""
    return re.sub(r"([\\`*|\[\]<>&])", r"\\\1", text)


def side_by_side(runs):
    """Yield the lines of ``{name: run}``: a column a run, and speed-ups over the first run."""
    facts = {name: machine(run) for name, run in runs.items()}
    shared = set.intersection(*map(set, facts.values()))
    for name, run in runs.items():
        commit = run.saved.get("commit_info") or {}
        dirty = " with changes" if commit.get("dirty") else ""
        own = [fact for fact in facts[name] if fact not in shared]
        own += [f"commit {commit['id'][:8]}{dirty}"] if commit.get("id") else []
        yield f"{name}: {', '.join(own) or 'the same machine and versions'}"
    for shape in dict.fromkeys(shape for run in runs.values() for shape in run.shapes):
        found = [{r.rung: r for r in run.timed(shape)} for run in runs.values()]
        rows = [(shape, *runs)]
        for rung in dict.fromkeys(rung for results in found for rung in results):
            first = found[0].get(rung)
            results = [results.get(rung) for results in found]
            rows.append((rung, *(r and pair(first, r) or "" for r in results)))
        yield from ["", *(line.rstrip() for line in aligned(rows))]
        for name, run in runs.items():
            yield from (f"{name}: {line}" for line in limits(run, shape) if shape in run.shapes)
    yield f"\n×2 is twice as fast as {next(iter(runs))}, ÷2 half as fast, ≈1 no different"
    yield from marks([result for run in runs.values() for result in run.timed()])


def pair(first, result):
    return f"{seconds(result.median)}{result.doubt} {speedup(first, result)}".rstrip()


def encodable(text, encoding):
    """Return the text, with plain letters for what a terminal's encoding lacks."""
    try:
        text.encode(encoding or "ascii")
    except UnicodeEncodeError:
        plain = {"×": "x", "÷": "/", "µ": "u", "█": "#", "≈": "~", "…": "."}
        text = text.translate(str.maketrans(plain)).encode("ascii", "replace").decode()
    return text
