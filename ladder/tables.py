"""The ladder: what runs say about the rungs, at a glance.

``python ladder.py RUN.json`` prints the tables of a saved run; with several runs, their ladders side
by side. ``--figures DIR`` draws them, ``--readme README.md`` puts the tables and pictures of one
run between the markers in that file. Needs no torch, and matplotlib only to draw.
"""

import argparse
import json
import math
import os
import re
import shutil
import sys
import textwrap
from dataclasses import dataclass, replace
from itertools import chain
from os.path import relpath
from pathlib import Path

BEGIN, END = "<!-- ladder: begin -->", "<!-- ladder: end -->"
CHAPTERS = "the course", "past the course", "on the GPU"
SMALL, FULL = "5x784x10", "50000x784x10"
COURSE = {  # the notebook's own times, in seconds; on the GPU, with the copy back
    ("matmul_loops", SMALL): 416e-3,
    ("matmul_numba_dot", SMALL): 245e-6,
    ("matmul_elementwise", SMALL): 600e-6,
    ("matmul_torch_dot", SMALL): 487e-6,
    ("matmul_broadcast", SMALL): 72.4e-6,
    ("matmul_broadcast", FULL): 673e-3,
    ("matmul_einsum", FULL): 15.6e-3,
    ("matmul_torch", FULL): 15.5e-3,
    ("matmul_cuda", FULL): 3.69e-3,
    ("matmul_torch_cuda", FULL): 429e-6,
    ("test_rows_of_rand", ""): 2.64e-3,
    ("test_torch_randn", ""): 91.3e-6,
}
# A time is noisy if half of its rounds spread over more than this share of the median, or if
# threads waited for a core for more than this share of the time.
SPREAD = 0.1
AT_LIMIT = 0.03  # a rung is at the roofline if it is no further from it than this
DISTURBED = 1.1  # and if it is this much faster, the roofline was not measured right
BAR = 24  # characters
DEVICES = "cpu", "cuda"
FAULTS = (  # of what is read from a file and isn't what it should be
    ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError
)  # fmt: skip


@dataclass
class Step:
    """One rung of a shape in a run; one that was not timed has a ``reason`` instead of a median.

    ``before`` and ``torch`` say how many times faster it is than the rung before it in its
    chapter, and than torch.matmul on the same device; ``since`` is the date of a time that
    was not taken in this run.
    """

    shape: str
    rung: str
    step: int
    device: str
    chapter: str
    flops: int = 0
    median: float = math.nan  # seconds
    limit_share: float = math.nan
    doubt: str = ""
    reason: str = ""
    new: str = ""
    since: str = ""
    before: float = math.nan
    torch: float = math.nan

    @property
    def limit(self):
        """The shortest time in seconds that any code could take, by this run's roofline."""
        return self.median * self.limit_share


# ---- A run -------------------------------------------------------------------------


def load_run(path):
    """Return the run that ``pytest --benchmark-json`` or ``--benchmark-save`` left at ``path``.

    Raises ValueError if the file holds anything else, OSError if it can't be read.
    """
    try:
        run = json.loads(Path(path).read_text(encoding="utf-8"))
        shapes = ladders(run)
        lines(run)
        list(report(run))
        machine(run)
        if "lesson" in run:
            check_lesson(run["lesson"])
    except FAULTS as error:
        reason = printable(f"{type(error).__name__}: {error}")[:120]
        raise ValueError(f"{path}: not a run of this suite, saved as JSON ({reason})") from None
    if not shapes:
        raise ValueError(f"{path}: no rung was timed in this run")
    return run


def rates(benches):
    """Return ``{(device, "read" or "flops"): rate}``: the best of the group "limit", a second."""
    found = {}
    for bench in benches:
        info = bench["extra_info"]
        if "limit" in info:
            work = info["bytes" if info["limit"] == "read" else "flops"]
            key = info["device"], info["limit"]
            found[key] = max(found.get(key, 0), work / bench["stats"]["median"])
    return found


def add_limits(benches, known):
    """Put "gflops" and "limit_share" into the ``extra_info`` of each rung in ``benches``.

    The roofline is the shortest time that any code could take on this machine: the larger of
    bytes / read rate and flops / multiply-add rate, with the rates in ``known``.
    """
    for bench in benches:
        info, median = bench["extra_info"], bench["stats"]["median"]
        if "rung" in info:
            info["gflops"] = info["flops"] / median / 1e9
            read, flops = (known.get((info["device"], key)) for key in ("read", "flops"))
            if read and flops:
                info["limit_share"] = max(info["bytes"] / read, info["flops"] / flops) / median


def steps(run, group):
    """Return the `Step` of each benchmark in a group, whose name has {} in place of the shape."""
    found = []
    for bench in run["benchmarks"]:
        info, stats = bench["extra_info"], bench["stats"]
        if bench["group"] != group.format(info.get("shape")) or "rung" not in info:
            continue
        step = step_of(info)
        step.flops, step.median = positive(info["flops"]), positive(stats["median"])
        if "limit_share" in info:
            step.limit_share = positive(info["limit_share"])
        if not 0 <= stats["iqr"] < math.inf:
            raise ValueError(f"a spread of {stats['iqr']} s")
        noisy = stats["iqr"] > SPREAD * step.median or info.get("waited", 0) > SPREAD
        step.doubt = "*" if stats["rounds"] == 1 else "?" if noisy else ""
        step.since = printable(info.get("since", ""))
        found.append(step)
    return sorted(found, key=lambda step: (step.flops, step.step))


def step_of(info):
    """Return the `Step` that a file describes, if it is one."""
    shape, step, device = info["shape"], info["step"], info["device"]
    if not re.fullmatch(r"\d{1,12}x\d{1,12}x\d{1,12}", shape, re.ASCII):
        raise ValueError(f"a shape {shape}")
    if device not in DEVICES or not (isinstance(step, int) and 0 <= step < 10_000):
        raise ValueError(f"{info['rung']}: device {device}, step {step}")
    chapter = info.get("chapter", CHAPTERS[2 if device == "cuda" else step >= 10])
    rung, new = printable(info["rung"]), printable(info.get("new", ""))
    return Step(shape, rung, step, device, CHAPTERS[CHAPTERS.index(chapter)], new=new)


def positive(number):
    """Return a number from a file, if it may be a time, a rate or a share of one."""
    if not 1e-30 < number < 1e30:
        raise ValueError(f"{number} where a positive number belongs")
    return number


def ladders(run):
    """Return ``{shape: steps}``, by chapter: what was timed in the groups "matmul SHAPE", or skipped."""
    shapes = {}
    for step in steps(run, "matmul {}"):
        shapes.setdefault(step.shape, []).append(step)
    for shape, rows in shapes.items():
        peers = {s.device: s for s in rows if s.rung in ("matmul_torch", "matmul_torch_cuda")}
        rows += [step for step in skipped(run) if step.shape == shape]
        rows.sort(key=lambda step: (CHAPTERS.index(step.chapter), step.step))
        last = {}
        for step in timed(rows):
            if step.chapter in last:
                step.before = last[step.chapter].median / step.median
            last[step.chapter] = step
            if step.device in peers:
                step.torch = peers[step.device].median / step.median
    return shapes


def skipped(run):
    """Return the `Step` of each rung that was to be timed in a run, but was not."""
    skips = run.get("skipped", ())
    return [replace(step_of(skip), reason=printable(skip["reason"])) for skip in skips]


def lines(run):
    """Return ``{rung: steps}`` for the group "rows", which has one rung at many sizes."""
    rungs = {}
    for step in steps(run, "rows"):
        rungs.setdefault(step.rung, []).append(step)
    return rungs


def timed(rows):
    return [step for step in rows if not step.reason]


def fastest_of(rungs):
    return min(rungs, key=lambda step: step.median)


def check_lesson(lesson):
    """Refuse what the figures of the lesson could not show."""
    pixels(lesson)
    counts = lesson["histogram"]
    if not (all(0 <= x < 1 for x in lesson["rand"]) and all(n >= 0 for n in counts)):
        raise ValueError("random numbers outside of [0, 1), or counts below 0")
    positive(sum(counts))


def pixels(lesson):
    """Return the digit of a run as 28 rows of 28 values from 0 to 255."""
    rows = [list(bytes.fromhex(row)) for row in lesson["digit"]]
    if [len(row) for row in rows] != [28] * 28:
        raise ValueError("a digit that is not 28x28")
    return rows


# ---- Words and numbers -------------------------------------------------------------


def printable(text):
    """Return a text from a file without what could steer a terminal."""
    return "".join(c if c.isprintable() else "?" for c in str(text))


def digits(value):
    """Return a positive number with two or three significant digits: 1,234 or 1.23 or 0.012."""
    if value >= 99.95:
        return f"{value:,.0f}"
    if value >= 0.995:
        return f"{value:.{2 if value < 9.995 else 1}f}"
    return f"{value:.{1 - math.floor(math.log10(value))}f}"


def seconds(value):
    """Return a time with two or three digits and its unit: 0.0123 is "12.3 ms"."""
    units = (1, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"), (1e-12, "ps")
    scale, unit = next((u for u in units if value >= 0.9995 * u[0]), units[-1])
    return f"{digits(value / scale)} {unit}"


def factor(value):
    """Return how many times faster: ×2.00 is twice as fast, ÷2.00 half as fast."""
    if math.isnan(value):
        return ""
    return f"×{digits(value)}" if value >= 0.995 else f"÷{digits(1 / value)}"


def share(step):
    """Return how much of the roofline's speed a rung reaches, in words."""
    if math.isnan(step.limit_share):
        return ""
    if abs(step.limit_share - 1) <= AT_LIMIT:
        return "at the limit"
    return f"{digits(step.limit_share * 100)}%"


HEADER = "median", "the course", "step", "vs torch", "roofline"


def cells(step):
    """Return the numbers of a step as text, under `HEADER`."""
    course = COURSE.get((step.rung, step.shape))
    marks = step.doubt + ("°" if step.since else "")
    return [
        f"{seconds(step.median)}{marks or ' '}",
        seconds(course) if course else "",
        factor(step.before),
        factor(step.torch),
        share(step),
    ]


def fastest(rungs):
    """Return which of a shape's rungs is the fastest, and how far it is from the roofline, in words."""
    step = fastest_of(rungs)
    known = share(step)
    known = known and f", {known}" + ("" if known == "at the limit" else " of the roofline")
    return f"fastest: {step.rung}, {seconds(step.median)}{known}"


def arithmetic(shapes):
    """Yield one line, if the first rung was timed: time per multiply-add of the first and of the
    fastest rung of any shape, and the quotient. The course ends on a GPU, and says 5 million."""

    def per_operation(step):
        return step.median / (step.flops / 2)

    rungs = timed(chain(*shapes.values()))
    first, best = rungs[0], min(rungs, key=per_operation)
    if first.rung == "matmul_loops" and best is not first:
        quotient = float(f"{per_operation(first) / per_operation(best):.3g}")
        yield (
            f"Per multiply-add: {first.rung} {seconds(per_operation(first))} / {best.rung} "
            f"{seconds(per_operation(best))} = {digits(quotient)} (the course: 5 million)"
        )


def random_numbers(run):
    """Yield one line on 7,840 random numbers, here and in the course."""
    times = {bench["name"]: bench["stats"]["median"] for bench in run["benchmarks"]}
    known = [(name, times[name], c) for (name, s), c in COURSE.items() if not s and name in times]
    if known:
        text = "; ".join(
            f"{name[5:]} {seconds(t)} (the course: {seconds(c)})" for name, t, c in known
        )
        yield f"7,840 random numbers: {text}"


def notes(run, shapes):
    """Yield what has to be said about the machine, the marks and the gaps in the tables."""
    rungs = timed(chain(*shapes.values()))
    marks = {step.doubt for step in rungs if not step.since}
    if (load := run.get("load", 0)) > 1:
        yield (
            f"The machine was busy when the run began (load {load:.1f}): don't trust the "
            "times of rungs with several threads, nor the roofline."
        )
    if "?" in marks:
        yield (
            f"? noisy: an interquartile range above {SPREAD:.0%} of the median, or threads that "
            "waited for a core"
        )
    if "*" in marks:
        yield "* a single round: its spread is unknown"
    for since in sorted({step.since for step in rungs} - {""}):
        yield f"° not timed now: taken from the last whole run, of {since}"
    if run.get("roofline_since"):
        yield f"The roofline was measured in the last whole run, of {printable(run['roofline_since'])}."
    elif all(math.isnan(step.limit_share) for step in rungs):
        yield 'The roofline was not measured in this run (the group "limit").'
    for step in rungs:
        if step.limit_share > DISTURBED:
            yield (
                f"{step.rung} ({step.shape}) is faster than the measured roofline, so the "
                "measurement was disturbed: run the whole ladder again on a quiet machine."
            )


def machine(run):
    """Return one line on the machine, the libraries and the data of a run."""
    info = run["machine_info"]
    cpu = info["cpu"]
    libraries = ", ".join(f"{k} {v}" for k, v in run.get("libraries", {}).items())
    gpu = f", {run['gpu']}" if "gpu" in run else ""
    return printable(
        f"{cpu.get('brand_raw', info['machine'])}, {cpu.get('count', '?')} cores{gpu}; "
        f"{info['system']}, Python {info['python_version']}, {libraries}; "
        f"data: {run.get('mnist', {}).get('file', '?')}; {run['datetime'][:10]}"
    )


# ---- Tables ------------------------------------------------------------------------


def not_timed(rows):
    """Yield a line for each reason why rungs were not timed."""
    reasons = {}
    for step in rows:
        if step.reason:
            reasons.setdefault(step.reason, {})[step.rung] = True
    for reason, rungs in reasons.items():
        yield f"not timed: {', '.join(rungs)}: {reason}"


def report(run, columns=100, verbose=False):
    """Yield the lines of the run's tables as (text, style), for a terminal of so many ``columns``.

    ``style`` is empty, or one of "bold", "green", "yellow" and "light": it stresses, and says
    nothing of its own. A bar is a rung's speed on a log scale, from the slowest rung to the
    roofline, or to the fastest rung if that wasn't measured. ``verbose`` adds what is new in each.
    """
    shapes = ladders(run)
    for shape, rows in shapes.items():
        rungs = timed(rows)
        slowest, winner = max(step.median for step in rungs), fastest_of(rungs)
        best = min([winner.median, *(s.limit for s in rungs if s.limit > 0)])
        table = [(shape, *HEADER), *((step.rung, *cells(step)) for step in rungs)]
        kept = [*range(len(HEADER) + 1)]
        for dropped in (2, 3, 4):  # what a narrow terminal does without, first of all the course
            if sum(max(len(row[n]) for row in table) + 2 for n in kept) - 2 > columns:
                kept.remove(dropped)
        table = [[row[n] for n in kept] for row in table]
        name, *widths = (max(map(len, column)) for column in zip(*table, strict=True))
        room = min(BAR, columns - name - sum(widths) - 2 * len(widths) - 3)
        scale = " speed, log scale" if room > 16 else " speed" if room > 5 else ""
        header, *body = table
        heading = (shape.ljust(name), *map(str.rjust, header[1:], widths), scale)
        yield "", ""
        yield "  ".join(heading).rstrip(), "bold"
        for step, row in zip(rungs, body, strict=True):
            speed = math.log(slowest / step.median) / (math.log(slowest / best) or 1)
            bar = "█" * min(room, round(room * speed)) if room > 5 else ""
            values = map(str.rjust, row[1:], widths)
            line = "  ".join((step.rung.ljust(name), *values, f" {bar}")).rstrip()
            yield line, "green" if step is winner else "light" if step.since else ""
        yield fastest(rungs), "green"
    rest = []
    if shapes:
        sums = chain(arithmetic(shapes), random_numbers(run))
        rest += [("", ""), *((line, "bold") for line in sums)]
    told = [step for step in skipped(run) if shapes or step.reason.startswith("it failed")]
    rest += [(line, "") for line in not_timed(told)]
    if shapes:
        rest += [(note, "" if note[0] in "?*°" else "yellow") for note in notes(run, shapes)]
    if verbose:
        new = {step.rung: step.new for step in timed(chain(*shapes.values()))}
        rest += [(f"{rung}: {line}", "") for rung, line in new.items()]
    for line, style in rest:
        for part in textwrap.wrap(line, columns, subsequent_indent="  ") or [""]:
            yield part, style


def encodable(text, encoding):
    """Return the text, with plain letters for what a terminal's encoding lacks."""
    try:
        text.encode(encoding or "ascii")
    except UnicodeEncodeError:
        plain = {"×": "x", "÷": "/", "µ": "u", "█": "#", "°": "'"}
        text = text.translate(str.maketrans(plain)).encode("ascii", "replace").decode()
    return text


def markdown(run, pictures=()):
    """Return the run's tables in Markdown, with the machine that made them and its pictures."""
    shapes = ladders(run)
    text = [f"![{alt}]({path})\n" for alt, path in pictures]
    text += [f"- {shape}: {escaped(fastest(timed(rows)))}" for shape, rows in shapes.items()]
    text += [f"- {escaped(line)}" for line in chain(arithmetic(shapes), random_numbers(run))] + [""]
    for shape, rows in shapes.items():
        header = shape, *HEADER, "what is new"
        text += [f"| {' | '.join(header)} |", "| --- " + "| ---: " * len(HEADER) + "| --- |"]
        for step in timed(rows):
            values = (escaped(value.strip()) for value in (step.rung, *cells(step), step.new))
            text.append(f"| {' | '.join(values)} |")
        text.append("")
    remarks = chain(not_timed(skipped(run)), notes(run, shapes))
    text += [f"{escaped(remark)}  " for remark in remarks]
    return "\n".join([*text, escaped(f"Measured on: {machine(run)}")])


def escaped(text):
    """Return a text for Markdown, with nothing in it that Markdown or HTML would act on."""
    return re.sub(r"([\\`*|\[\]<>&])", r"\\\1", text)


def put_between_markers(path, text):
    """Replace what stands between the ladder's markers in the file at ``path``."""
    path = Path(path).resolve()
    content = path.read_bytes().decode()
    newline = "\r\n" if "\r\n" in content else "\n"
    parts = content.split(newline)
    if not (parts.count(BEGIN) == parts.count(END) == 1 and content.count(END) == 1):
        raise ValueError(f"{path}: needs one line {BEGIN} and, after it, one line {END}")
    begin, end = parts.index(BEGIN), parts.index(END)
    if begin > end:
        raise ValueError(f"{path}: needs the line {BEGIN} before the line {END}")
    parts[begin + 1 : end] = text.splitlines()
    write(path, newline.join(parts).encode())


def write(path, content):
    """Write the whole of ``content`` to the path, or leave what was there."""
    part = path.with_name(f"{path.name}.part")
    try:
        part.write_bytes(content)
        if path.exists():
            shutil.copymode(path, part)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


# ---- Several runs ------------------------------------------------------------------


def differences(runs):
    """Yield a line for each run, with what it does not share with all of the others."""
    facts = {name: re.split("[;,] ", machine(run)) for name, run in runs.items()}
    shared = set.intersection(*map(set, facts.values()))
    for name, run in runs.items():
        commit = printable(run.get("commit_info", {}).get("id", ""))
        dirty = " with changes" if run.get("commit_info", {}).get("dirty") else ""
        commit = f"commit {commit[:8]}{dirty}" if re.fullmatch("[0-9a-f]{40}", commit) else ""
        own = [fact for fact in facts[name] if fact not in shared]
        yield f"{name}: {', '.join(filter(None, [*own, commit])) or 'the same machine and versions'}"


def side_by_side(runs):
    """Yield the lines of ``{name: run}``, with a column a run, and factors to the first run's times."""
    tables = {name: ladders(run) for name, run in runs.items()}
    yield from differences(runs)
    for shape in dict.fromkeys(chain(*tables.values())):
        times = {
            name: {step.rung: step for step in timed(shapes.get(shape, []))}
            for name, shapes in tables.items()
        }
        first = next(iter(times.values()))
        rows = [(shape, *runs)]
        for rung in dict.fromkeys(chain(*times.values())):
            row = [""] * len(times)
            for n, run in enumerate(times.values()):
                if rung in run:
                    row[n] = f"{seconds(run[rung].median)}{run[rung].doubt}"
                if n and rung in run and rung in first:
                    row[n] += f" {factor(first[rung].median / run[rung].median)}"
            rows.append((rung, *row))
        name, *widths = (max(map(len, column)) for column in zip(*rows, strict=True))
        yield ""
        for row in rows:
            yield "  ".join((row[0].ljust(name), *map(str.rjust, row[1:], widths))).rstrip()
    yield f"\n×2 is twice as fast as {next(iter(runs))}, ÷2 half as fast; ? is noisy, * a single round"


def names_of(paths):
    """Return a short name for each path: that of its file, or, if two are the same, the whole path."""
    stems = [Path(path).stem for path in paths]
    return [
        stem if stems.count(stem) == 1 else str(path)
        for stem, path in zip(stems, paths, strict=True)
    ]


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("runs", nargs="+", metavar="RUN", help="a file that pytest-benchmark saved")
    parser.add_argument("--figures", metavar="DIR", help="draw the run or runs into this folder")
    parser.add_argument(
        "--readme",
        metavar="FILE",
        help="put tables and pictures between the markers there; without --figures, the "
        "pictures go to a folder named as the run",
    )
    args = parser.parse_args(argv)
    if args.readme and len(args.runs) > 1:
        parser.error("--readme takes one run")
    try:
        runs = dict(zip(names_of(args.runs), map(load_run, args.runs), strict=True))
        if len(runs) > 1:
            tables = [(line, "") for line in side_by_side(runs)]
        else:
            (run,) = runs.values()
            columns = min(100, shutil.get_terminal_size((100, 24))[0])
            tables = [*report(run, columns), ("", ""), (machine(run), "")]
        folder = args.figures or (args.readme and Path(args.runs[0]).with_suffix(""))
        if folder:
            from figures import figures, figures_of_runs

            pictures = figures(run, folder) if len(runs) == 1 else figures_of_runs(runs, folder)
        if args.readme:
            home = Path(args.readme).resolve().parent
            links = [
                (alt, Path(relpath(path.resolve(), home)).as_posix())
                for alt, path in pictures
                if path.stem == "rows"
            ]
            put_between_markers(args.readme, markdown(run, links))
        show(tables)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        sys.exit(f"ladder.py: {error.filename or ''}: {error.strerror}")
    except ValueError as error:
        sys.exit(f"ladder.py: {error}")


def show(tables):
    styles = {"bold": "1", "green": "32", "yellow": "33", "light": "2"}
    colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    for line, style in tables:
        line = encodable(line, sys.stdout.encoding)
        print(f"\x1b[{styles[style]}m{line}\x1b[0m" if style and colour else line)
    sys.stdout.flush()


if __name__ == "__main__":
    main()
