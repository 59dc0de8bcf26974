"""The ladder: what a run says about the rungs, at a glance.

``python ladder.py RUN.json`` prints the tables of a saved run; ``--figures DIR`` draws them,
``--readme README.md`` puts tables and pictures between the markers in that file. Needs no
torch, and matplotlib only to draw.
"""

import argparse
import json
import math
import os
import re
import shutil
import sys
from dataclasses import dataclass
from io import BytesIO
from itertools import chain
from os.path import relpath
from pathlib import Path

BEGIN, END = "<!-- ladder: begin -->", "<!-- ladder: end -->"
# A time is doubtful if half of its rounds spread over more than this share of the median.
SPREAD = 0.1
# What is faster than the limit by more than this was not noise: the limit was wrong.
NOISE = 1.1
BAR = 24  # characters
FAULTS = (  # of what is read from a file and isn't what it should be
    ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError
)  # fmt: skip


@dataclass
class Step:
    """One rung of a shape in a run; a rung that was not timed has a ``reason`` instead."""

    shape: str
    rung: str
    step: int
    device: str
    flops: int
    median: float = math.nan  # seconds
    limit_share: float = math.nan
    doubt: str = ""
    reason: str = ""
    times_first: float = 1.0
    times_before: float = 1.0

    @property
    def gflops(self):
        return self.flops / self.median / 1e9

    @property
    def limit(self):
        """The shortest time in seconds that any code could take, by this run's limits."""
        return self.median * self.limit_share


def load_run(path):
    """Return the run that ``pytest --benchmark-json`` saved at ``path``.

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
        raise ValueError(f"{path}: not a run saved by pytest --benchmark-json ({reason})") from None
    if not shapes:
        raise ValueError(f"{path}: there is no shape of which two rungs were timed")
    return run


def add_limits(benches):
    """Put "gflops" and "limit_share" into the ``extra_info`` of each rung in ``benches``.

    The limit is the shortest time that any code could take on this machine: the larger of
    bytes / read rate and flops / multiply-add rate, where the rates are the best medians
    of the group "limit" on the rung's device. Without these there is no share.
    """
    rates = {}
    for bench in benches:
        info, median = bench["extra_info"], bench["stats"]["median"]
        if "limit" in info:
            work = info["bytes" if info["limit"] == "read" else "flops"]
            key = info["device"], info["limit"]
            rates[key] = max(rates.get(key, 0), work / median)
    for bench in benches:
        info, median = bench["extra_info"], bench["stats"]["median"]
        if "rung" in info:
            info["gflops"] = info["flops"] / median / 1e9
            read, flops = (rates.get((info["device"], key)) for key in ("read", "flops"))
            if read and flops:
                limit = max(info["bytes"] / read, info["flops"] / flops)
                info["limit_share"] = limit / median


def steps(run, group):
    """Return the `Step` of each benchmark in a group, by size and in course order.

    ``group`` is the group's name, with {} in the place of the shape.
    """
    found = []
    for bench in run["benchmarks"]:
        info, stats = bench["extra_info"], bench["stats"]
        if bench["group"] != group.format(info.get("shape")) or "rung" not in info:
            continue
        median, flops = positive(stats["median"]), positive(info["flops"])
        share = positive(info["limit_share"]) if "limit_share" in info else math.nan
        if not 0 <= stats["iqr"] < math.inf:
            raise ValueError(f"a spread of {stats['iqr']} s")
        doubt = "?" if stats["iqr"] > SPREAD * median else ""
        found.append(
            Step(
                *place(info),
                flops,
                median,
                share,
                "*" if stats["rounds"] == 1 else doubt,
            )
        )
    return sorted(found, key=lambda step: (step.flops, step.step))


def place(info):
    """Return (shape, rung, step, device) from a file, if they are what they should be."""
    shape, rung, step, device = (info[key] for key in ("shape", "rung", "step", "device"))
    if not re.fullmatch(r"\d{1,12}x\d{1,12}x\d{1,12}", shape, re.ASCII):
        raise ValueError(f"a shape {shape}")
    if device not in DEVICES or not (isinstance(step, int) and 0 <= step < 10_000):
        raise ValueError(f"{rung}: device {device}, step {step}")
    return shape, printable(rung), step, device


def positive(number):
    """Return a number from a file, if it may be a time, a rate or a share of one."""
    if not 1e-30 < number < 1e30:
        raise ValueError(f"{number} where a positive number belongs")
    return number


def ladders(run):
    """Return ``{shape: steps}``: what was timed in the groups "matmul SHAPE", and what was skipped.

    Each step knows how many times faster it is than the shape's first, and than the one
    before. A shape of which fewer than two rungs were timed makes no ladder.
    """
    shapes = {}
    for step in steps(run, "matmul {}"):
        shapes.setdefault(step.shape, []).append(step)
    shapes = {shape: rows for shape, rows in shapes.items() if len(rows) > 1}
    for shape, rows in shapes.items():
        for before, step in zip(rows, rows[1:], strict=False):
            step.times_first = rows[0].median / step.median
            step.times_before = before.median / step.median
        for skip in run.get("skipped", ()):
            if skip["shape"] == shape:
                reason = printable(skip["reason"])
                rows.append(Step(*place(skip), rows[0].flops, reason=reason))
        rows.sort(key=lambda step: step.step)
    return shapes


def lines(run):
    """Return ``{rung: steps}`` for the group "rows", which has one rung at many sizes."""
    rungs = {}
    for step in steps(run, "rows"):
        rungs.setdefault(step.rung, []).append(step)
    return rungs


def timed(rows):
    return [step for step in rows if not step.reason]


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


HEADER = "median", "× first", "× before", "GFLOP/s", "of limit"


def cells(step):
    """Return the numbers of a step as text, under `HEADER`."""
    share = step.limit_share
    return [
        f"{seconds(step.median)}{step.doubt or ' '}",
        digits(step.times_first),
        digits(step.times_before),
        digits(step.gflops),
        "" if math.isnan(share) else f"{digits(share * 100)}%",
    ]


def arithmetic(shapes):
    """Return one line: time per multiply-add of the first and of the fastest rung, of any shape,
    and the quotient. The course ends on a GPU, and says 5 million."""

    def per_operation(step):
        return step.median / (step.flops / 2)

    rungs = timed(chain(*shapes.values()))
    first, fastest = rungs[0], min(rungs, key=per_operation)
    quotient = per_operation(first) / per_operation(fastest)
    course = " (the course: 5 million)" if first.step == 0 else ""
    return (
        f"Per multiply-add: {first.rung} {seconds(per_operation(first))} / {fastest.rung} "
        f"{seconds(per_operation(fastest))} = {digits(float(f'{quotient:.3g}'))}{course}"
    )


def fastest_of(rungs):
    return min(rungs, key=lambda step: step.median)


def fastest(rungs):
    """Return which of a shape's rungs is the fastest, and how far it is from the limit, in words."""
    step = fastest_of(rungs)
    share = step.limit_share
    known = "" if math.isnan(share) else f", {digits(share * 100)}% of the machine's limit"
    return f"fastest: {step.rung}, {seconds(step.median)}{known}"


def notes(run, shapes):
    """Yield what has to be said about the machine, the marks and the gaps in the tables."""
    rungs = timed(chain(*shapes.values()))
    marks = {step.doubt for step in rungs}
    if (load := run.get("load", 0)) > 1:
        yield (
            f"The machine was busy when the run began (load {load:.1f}): don't trust the "
            "times of rungs with several threads, nor the shares of the limit."
        )
    if "?" in marks:
        yield f"? doubtful: half of the rounds spread over more than {SPREAD:.0%} of the median"
    if "*" in marks:
        yield "* one round only, so nothing is known of its spread"
    if all(math.isnan(step.limit_share) for step in rungs):
        yield 'The machine\'s limit was not measured in this run (the group "limit").'
    for step in rungs:
        if step.limit_share > NOISE:
            yield (
                f"{step.rung} ({step.shape}) is faster than the measured limit: the limit "
                "was disturbed; run again on a quiet machine."
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


def report(run, columns=100):
    """Yield the lines of the run's tables as (text, style); they fit into 100 ``columns``.

    ``style`` is empty, or one of "bold", "green" and "yellow": it stresses, and says nothing
    of its own. The bars show speed on a log scale, from the slowest rung to the machine's
    limit, or to the fastest rung if the limit wasn't measured. A narrow terminal gets
    shorter bars.
    """
    shapes = ladders(run)
    for shape, rows in shapes.items():
        rungs = timed(rows)
        slowest = max(step.median for step in rungs)
        winner = fastest_of(rungs)
        best = min([winner.median, *(s.limit for s in rungs if s.limit > 0)])
        table = [(shape, *HEADER), *((step.rung, *cells(step)) for step in rungs)]
        name, *widths = (max(map(len, column)) for column in zip(*table, strict=True))
        name = max(name, *(len(step.rung) for step in rows))
        values = map(str.rjust, HEADER, widths)
        room = max(0, min(BAR, columns - name - sum(widths) - 2 * len(widths) - 3))
        scale = " speed, log scale"[: room + 1]
        yield "", ""
        yield "  ".join((shape.ljust(name), *values, scale)).rstrip(), "bold"
        for step in rows:
            if step.reason:
                yield f"{step.rung:{name}}  not timed: {step.reason}"[:100], ""
                continue
            values = map(str.rjust, cells(step), widths)
            speed = math.log(slowest / step.median) / (math.log(slowest / best) or 1)
            bar = "█" * min(room, round(room * speed))
            line = "  ".join((step.rung.ljust(name), *values, f" {bar}"))
            yield line.rstrip(), "green" if step is winner else ""
        yield fastest(rungs), "green"
    if shapes:
        yield "", ""
        yield arithmetic(shapes), "bold"
        for note in notes(run, shapes):
            yield note, "" if note[0] in "?*" else "yellow"


def encodable(text, encoding):
    """Return the text, with plain letters for what a terminal's encoding lacks."""
    try:
        text.encode(encoding or "ascii")
    except UnicodeEncodeError:
        plain = {"×": "x", "µ": "u", "█": "#"}
        text = text.translate(str.maketrans(plain)).encode("ascii", "replace").decode()
    return text


def markdown(run, pictures=()):
    """Return the run's tables in Markdown, with the machine that made them and its pictures."""
    shapes = ladders(run)
    text = [f"- {shape}: {escaped(fastest(timed(rows)))}" for shape, rows in shapes.items()]
    text += [f"- {escaped(arithmetic(shapes))}", ""]
    text += [f"![{alt}]({path})\n" for alt, path in pictures]
    for shape, rows in shapes.items():
        text += [f"| {' | '.join((shape, *HEADER))} |", "| --- " + "| ---: " * 5 + "|"]
        for step in rows:
            if step.reason:
                text.append(f"| {escaped(step.rung)} | {escaped(step.reason)} |" + " |" * 4)
            else:
                values = (escaped(value.strip()) for value in (step.rung, *cells(step)))
                text.append(f"| {' | '.join(values)} |")
        text.append("")
    text += [f"{escaped(note)}  " for note in notes(run, shapes)]
    return "\n".join([*text, escaped(f"Measured on: {machine(run)}")])


def escaped(text):
    """Return a text for Markdown, with nothing in it that Markdown or HTML would act on."""
    return re.sub(r"([\\`*|\[\]<>&])", r"\\\1", text)


def put_between_markers(path, text):
    """Replace what stands between the ladder's markers in the file at ``path``."""
    path = Path(path).resolve()
    content = path.read_bytes().decode()
    lines = content.splitlines()
    if not (lines.count(BEGIN) == lines.count(END) == 1 and content.count(END) == 1):
        raise ValueError(f"{path}: needs one line {BEGIN} and, after it, one line {END}")
    begin, end = lines.index(BEGIN), lines.index(END)
    if begin > end:
        raise ValueError(f"{path}: needs the line {BEGIN} before the line {END}")
    newline = "\r\n" if "\r\n" in content else "\n"
    lines[begin + 1 : end] = text.splitlines()
    write(path, (newline.join(lines) + newline).encode())


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


# ---- Figures -----------------------------------------------------------------------

BLUE, ORANGE, GREY = "#0072b2", "#d55e00", "#595959"  # told apart by colour-blind eyes
DEVICES = {"cpu": ("CPU", BLUE, "", "-"), "cuda": ("GPU", ORANGE, "///", "--")}


def figures(run, folder):
    """Draw the run into ``folder``, as PNG and SVG; return the PNGs as (what it shows, path)."""
    import matplotlib

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    pictures = []
    drawn = {
        "ladder": ("The ladder: time of one call, by rung", draw_ladder),
        "rows": ("Time by the number of rows", draw_rows),
    }
    if "lesson" in run:
        drawn |= {
            "digit": ("The first digit of the training data", draw_digit),
            "rand": ("Fifty random numbers", draw_rand),
            "histogram": ("Ten thousand random numbers", draw_histogram),
        }
    # The same run makes the same file, byte for byte.
    style = {"svg.hashsalt": "ladder", "font.size": 10, "text.parse_math": False}
    with matplotlib.rc_context(style):
        for name, (title, draw) in drawn.items():
            figure = draw(run, title)
            if figure is None:
                continue
            for kind, metadata in ("svg", {"Date": None}), ("png", {}):
                file = BytesIO()
                figure.savefig(file, format=kind, dpi=120, metadata=metadata)
                write(folder / f"{name}.{kind}", file.getvalue())
            pictures.append((title, folder / f"{name}.png"))
    return pictures


def new_figure(width, height):
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def one_panel(width, height, title):
    figure = new_figure(width, height)
    axes = figure.subplots()
    axes.set_title(title, loc="left", size=10)
    return figure, axes


def draw_ladder(run, title):
    """A panel for each shape: a bar for each rung, on a log axis, and the limit of each device."""
    shapes = ladders(run)
    if not shapes:
        return None
    heights = [len(rows) + 2.5 for rows in shapes.values()]
    figure = new_figure(9, 0.24 * sum(heights) + 0.8)
    panels = figure.subplots(len(shapes), squeeze=False, height_ratios=heights)[:, 0]
    for axes, (shape, rows) in zip(panels, shapes.items(), strict=True):
        limits = {}
        rungs = timed(rows)
        winner = fastest_of(rungs)
        low = min(min(step.median, step.limit or math.inf) for step in rungs) / 2
        for y, step in enumerate(rows):
            if step.reason:
                axes.text(
                    low * 1.05,
                    y,
                    f"not timed: {step.reason}",
                    va="center",
                    color=GREY,
                    size=8,
                    bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},
                )
                continue
            _, colour, hatch, _ = DEVICES[step.device]
            axes.barh(
                y,
                step.median - low,
                left=low,
                height=0.7,
                color=colour,
                hatch=hatch,
                edgecolor="white",
            )
            label = f" {seconds(step.median)}{step.doubt}   {digits(step.times_first)}×"
            weight = "bold" if step is winner else "normal"
            axes.text(step.median, y, label, va="center", size=8.5, fontweight=weight)
            limits[step.device] = step.limit
        for device, limit in limits.items():
            name, colour, _, dash = DEVICES[device]
            if limit > 0:
                axes.axvline(limit, color="black", linestyle=dash, linewidth=1.2)
                axes.text(
                    limit,
                    -0.9,
                    f" limit of the {name}: {seconds(limit)}",
                    ha="left",
                    size=8.5,
                )
        slowest = max(step.median for step in rungs)
        axes.set(
            xscale="log",
            xlim=(low, slowest * (slowest / low) ** 0.22),
            ylim=(len(rows) - 0.4, -1.6),
        )
        axes.set_yticks(range(len(rows)), [step.rung for step in rows], size=8.5)
        axes.set_title(
            f"{shape.replace('x', ' × ')}: time of one call, and how many times faster than the first",
            loc="left",
            size=10,
        )
        axes.xaxis.set_major_formatter(tick)
        axes.spines[["top", "right"]].set_visible(False)
    devices = {step.device for step in timed(chain(*shapes.values()))}
    if len(devices) > 1:
        from matplotlib.patches import Patch

        handles = [
            Patch(facecolor=c, hatch=h, edgecolor="white", label=name)
            for device, (name, c, h, _) in DEVICES.items()
            if device in devices
        ]
        panels[0].legend(handles=handles, loc="lower right", frameon=False)
    caption(figure, run)
    return figure


def draw_rows(run, title):
    """Time against rows, log-log: a line for each rung, and the limit of the machine."""
    rungs = lines(run)
    if not rungs:
        return None
    figure, axes = one_panel(9, 5, title)
    limit = {}
    for marker, (rung, points) in zip("os^vDP*X", rungs.items(), strict=False):
        rows = [int(step.shape.partition("x")[0]) for step in points]
        axes.plot(rows, [step.median for step in points], marker=marker, label=rung)
        limit |= {n: s.limit for n, s in zip(rows, points, strict=True) if s.limit > 0}
    if limit:
        axes.plot(
            limit.keys(),
            limit.values(),
            color="black",
            linestyle="--",
            label="limit, if all is read from memory",
        )
    axes.set(xscale="log", yscale="log", xlabel="rows × 784 × 10")
    axes.yaxis.set_major_formatter(tick)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    caption(figure, run)
    return figure


def tick(value, _):
    return seconds(value).replace(".00 ", " ").replace(".0 ", " ")


def caption(figure, run):
    figure.supxlabel(machine(run).replace("; ", "\n", 1), size=7, color=GREY)


def check_lesson(lesson):
    """Refuse what `draw_digit`, `draw_rand` and `draw_histogram` could not draw."""
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


def draw_digit(run, title):
    figure, axes = one_panel(4, 4.2, title)
    axes.imshow(pixels(run["lesson"]), cmap="gray")
    return figure


def draw_rand(run, title):
    figure, axes = one_panel(6, 3.4, title)
    axes.plot(run["lesson"]["rand"], marker=".")
    axes.set(ylim=(0, 1), xlabel="number drawn", ylabel="rand()")
    return figure


def draw_histogram(run, title):
    figure, axes = one_panel(6, 3.4, title)
    counts = run["lesson"]["histogram"]
    width = 1 / len(counts)
    axes.bar(
        [i * width for i in range(len(counts))],
        counts,
        width,
        align="edge",
        edgecolor="white",
    )
    axes.axhline(sum(counts) * width, color="black", linestyle="--", linewidth=1)
    axes.set(xlabel="rand()", ylabel="count (dashed: expected)")
    return figure


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run", help="a file made by pytest --benchmark-json")
    parser.add_argument("--figures", metavar="DIR", help="draw the run into this folder")
    parser.add_argument(
        "--readme",
        metavar="FILE",
        help="put tables and pictures between the markers there; without --figures, the "
        "pictures go to a folder named as the run",
    )
    args = parser.parse_args(argv)
    styles = {"bold": "1", "green": "32", "yellow": "33"}
    colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    try:
        run = load_run(args.run)
        folder = args.figures or (args.readme and Path(args.run).with_suffix(""))
        pictures = figures(run, folder) if folder else []
        if args.readme:
            home = Path(args.readme).resolve().parent
            links = [
                (alt, Path(relpath(path.resolve(), home)).as_posix())
                for alt, path in pictures
                if path.stem in ("ladder", "rows")
            ]
            put_between_markers(args.readme, markdown(run, links))
        for line, style in report(run, min(100, shutil.get_terminal_size((100, 24))[0])):
            line = encodable(line, sys.stdout.encoding)
            if style and colour:
                line = f"\x1b[{styles[style]}m{line}\x1b[0m"
            print(line)
        print(encodable(f"\n{machine(run)}", sys.stdout.encoding), flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        sys.exit(f"ladder.py: {error.filename}: {error.strerror}")
    except ValueError as error:
        sys.exit(f"ladder.py: {error}")


if __name__ == "__main__":
    main()
