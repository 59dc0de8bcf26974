"""The tables of runs, as text: at a glance, and without a kernel in sight."""

import math
from textwrap import wrap

from ladder.result import NOISY

BAR = 20  # characters
COLUMNS = "median", "course", "step", "vs torch", "of limit", "GFLOP/s", "GB/s", "torch calls"
# The most important first: a narrow terminal does without the last.
WANTED = "median", "vs torch", "of limit", "step", "torch calls", "course", "GFLOP/s", "GB/s"
DEVICES = {"cpu": "CPU", "cuda": "GPU"}

# ---- Numbers as text ---------------------------------------------------------------


def digits(value):
    """Return a positive number with three significant digits: 1,230 or 1.23 or 0.0123."""
    value = float(f"{value:.3g}")
    return f"{value:,.{max(0, 2 - math.floor(math.log10(value)))}f}"


def size(value, unit):
    """Return a number with its unit: 1.5e8 bytes are "150 MB", 0.0123 s are "12.3 ms"."""
    scales = zip(range(12, -15, -3), "T G M k _ m µ n p".split(), strict=True)
    power, prefix = next((x for x in scales if value >= 0.9995 * 10 ** x[0]), (-12, "p"))
    return f"{digits(value / 10**power)} {prefix.strip('_')}{unit}"


def seconds(value):
    return size(value, "s")


def times(ratio):
    """Return a speed-up: ×2.00 is twice as fast, ÷2.00 half as fast."""
    return f"×{digits(ratio)}" if ratio >= 0.995 else f"÷{digits(1 / ratio)}"


def time_of(result):
    return f"{seconds(result.median)}{result.doubt}"


def speedup(old, new):
    """Return how many times faster one `Result` is than another, with the marks of both."""
    if old is None or old is new:
        return ""
    ratio = old.median / new.median
    if abs(old.median - new.median) > (old.iqr + new.iqr) / 2:
        return times(ratio) + mark(old, new)
    return "≈1" if 1 / (1 + NOISY) < ratio < 1 + NOISY else f"{times(ratio)}?"  # within the spread


def mark(*results):
    """Return the gravest mark of some results."""
    return max((result.doubt for result in results), key=" ?*".find)


def cells(run, result):
    """Return ``{column: text}`` for a result that was timed."""
    torch = run.find(result.shape, result.device, "matmul_torch", "matmul_torch_cuda")
    bound, limit = max(run.bounds(result).values(), default=(0, None))
    return {
        "rung": result.rung,
        "median": time_of(result),
        "course": seconds(result.course) if result.course else "",
        "step": speedup(run.find(result.shape, result.device, result.before), result),
        "vs torch": speedup(torch, result),
        "of limit": f"{digits(100 * bound / result.median)}%{mark(result, limit)}" if bound else "",
        "GFLOP/s": digits(result.flops / result.median / 1e9),
        "GB/s": digits(result.bytes / result.median / 1e9),
        "torch calls": f"{result.calls:,}" if result.calls is not None else "",
    }


# ---- What is said beside the tables ------------------------------------------------


def about(run, shape):
    """Yield which rung of a shape is the fastest, and for each device what limits it."""
    results = run.timed(shape)
    best = min(results, key=lambda result: result.median)
    yield f"fastest at {shape}: {best.rung}, {time_of(best)}"
    for device, result in {result.device: result for result in results}.items():
        bounds = run.bounds(result)
        if not bounds:
            yield f"limit of the {DEVICES[device]}: not measured in this run (-k limit does)"
            continue
        least, limit = bounds["arithmetic"]
        work, traffic = size(result.flops, "FLOP"), size(result.bytes, "B")
        text = f"{work} take {seconds(least)} at {size(limit.rate, 'FLOP/s')}{limit.doubt}"
        if "memory" in bounds:
            least, limit = bounds["memory"]
            text += f", and {traffic} take {seconds(least)} at {size(limit.rate, 'B/s')}"
            text += f"{limit.doubt}: {max(bounds, key=bounds.get)} binds"
        else:
            text += f"; memory is no limit, as {traffic} may stay in a cache"
        yield f"limit of the {DEVICES[device]}: {text}"
        fastest = min(r.median for r in results if r.device == device)
        if max(bounds.values())[0] > (1 + NOISY) * fastest:
            yield "That is faster than the limit, which something has disturbed: measure it again."


def remarks(run):
    """Yield what holds for all tables: rates, the whole way, what was not timed, and the marks."""
    for device, kind in dict.fromkeys(limit[:2] for limit in run.limits):
        found = [x for x in run.limits if x[:2] == (device, kind)]
        unit, what = {"bytes": ("B/s", "reading"), "flops": ("FLOP/s", "multiply-adds")}[kind]
        rates = ", ".join(f"{x.way} {size(x.rate, unit)}{x.doubt}" for x in found)
        yield f"{what} on the {DEVICES[device]}: {rates}"
    one = {result: 2 * result.median / result.flops for result in run.timed()}
    first, best = next(iter(one), None), min(one, key=one.get, default=None)
    if first and first.rung == "matmul_loops" and best is not first:
        ratio = digits(one[first] / one[best]) + mark(first, best)
        ends = (f"{r.rung} {seconds(one[r])}{r.doubt}" for r in (first, best))
        yield f"time per multiply-add: {', '.join(ends)}: ×{ratio} (the course: 5 million, on a GPU)"
    shapes, rungs = {}, {}
    for result in run.results:
        if result.reason:
            shapes.setdefault((result.rung, result.reason), []).append(result.shape)
    for (rung, reason), at in shapes.items():
        rungs.setdefault((", ".join(at), reason), []).append(rung)
    for (at, reason), names in rungs.items():
        yield f"not timed at {at}: {', '.join(names)}: {reason}"
    yield from marks(run.timed())


def marks(results):
    doubts = {result.doubt for result in results}
    if "?" in doubts:
        yield f"? noisy: half of the rounds spread over {NOISY:.0%} or more, or a thread waited for a core"
    if "*" in doubts:
        yield "* a single round: its spread is unknown"
    if (worst := max((result.waited for result in results), default=0)) > NOISY:
        yield f"Something else was running: a thread waited for a core up to {worst:.0%} of the time."


def machine(run):
    """Return the facts about the machine, the libraries and the data of a run."""
    info, suite = run.saved.get("machine_info", {}), run.suite
    cpu = info.get("cpu", {})
    facts = [cpu.get("brand_raw") or info.get("machine", "?")]
    facts += [f"{key} {cpu[key]}" for key in ("family", "model") if key in cpu]
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
    return ["  ".join(p(c, w) for p, c, w in zip(pad, row, widths, strict=True)) for row in rows]


def ladder(run, shape, columns):
    """Yield the lines of one shape's table as (text, style), for so many ``columns``. A bar is a
    rung's speed on a log scale, from the slowest rung to the fastest. Where there is room, the line
    ends with what is new in the rung."""
    results = run.timed(shape)
    table = [cells(run, result) for result in results]

    def lines(names):
        rows = ([row[name] for name in ("rung", *names)] for row in table)
        return aligned([[shape, *names], *rows])

    shown = ["median"]
    for column in WANTED[1:]:
        more = [name for name in COLUMNS if name in (*shown, column)]
        if any(row[column] for row in table) and len(lines(more)[0]) + BAR / 2 <= columns:
            shown = more
    header, *body = lines(shown)
    bar = min(BAR, max(0, columns - len(header) - 2))
    words = columns - len(header) - bar - 4
    slow, fast = (f(result.median for result in results) for f in (max, min))
    yield "", ""
    yield f"{header}  {'speed, log scale' if bar > 15 else 'speed'[:bar]}".rstrip(), "bold"
    chapter = results[0].chapter
    for result, line in zip(results, body, strict=True):
        if result.chapter != chapter:
            chapter = result.chapter
            yield f"-- {chapter} ".ljust(len(header), "-"), "light"
        length = round(bar * math.log(slow / result.median) / (math.log(slow / fast) or 1))
        new = result.new if len(result.new) <= words else f"{result.new[: words - 1]}…"
        line = f"{line}  {'█' * length:{bar}}  {new if words >= 30 else ''}"
        yield line.rstrip(), "green" if result.median == fast else ""


def folded(lines, columns):
    return [part for line in lines for part in wrap(line, columns, subsequent_indent="  ")]


def report(run, columns=100):
    """Yield the lines of a run's tables as (text, style), for a terminal of so many ``columns``."""
    for shape in run.shapes:
        yield from ladder(run, shape, columns)
        yield from ((line, "green") for line in folded(about(run, shape), columns))
    yield from ((line, "") for line in ["", *folded(remarks(run), columns)])


def side_by_side(runs):
    """Yield the lines of ``{name: run}``: a column a run, and speed-ups over the first run."""
    facts = {name: machine(run) for name, run in runs.items()}
    for name, run in runs.items():
        commit = run.saved.get("commit_info") or {}
        own = [x for x in facts[name] if not all(x in others for others in facts.values())]
        own += [f"commit {commit.get('id', '?')[:8]}{' with changes' * bool(commit.get('dirty'))}"]
        yield f"{name}: {', '.join(own)}"
    for shape in dict.fromkeys(shape for run in runs.values() for shape in run.shapes):
        found = [{r.rung: r for r in run.timed(shape)} for run in runs.values()]
        rows = [(shape, *runs)]
        for rung in dict.fromkeys(rung for results in found for rung in results):
            row = [results.get(rung) for results in found]
            rows.append((rung, *(f"{time_of(r)} {speedup(row[0], r)}" if r else "" for r in row)))
        yield from ["", *(line.rstrip() for line in aligned(rows))]
        having = {name: run for name, run in runs.items() if shape in run.shapes}
        yield from (f"{name}: {line}" for name in having for line in about(having[name], shape))
    yield f"\n×2 is twice as fast as {next(iter(runs))}, ÷2 half as fast, ≈1 no different"
    for name, run in runs.items():
        yield from (f"{name}: {line}" for line in marks(run.timed()))


def encodable(text, encoding):
    """Return the text, with plain letters for what a terminal's encoding lacks."""
    if str(encoding).lower().startswith("utf"):
        return text
    plain = str.maketrans({"×": "x", "÷": "/", "µ": "u", "█": "#", "≈": "~", "…": "."})
    return text.translate(plain).encode("ascii", "replace").decode()
