"""The pictures of runs: the ladder, time by rows, and what the course draws; runs side by side."""

import math
from io import BytesIO
from itertools import chain
from pathlib import Path

from ladder import (
    COURSE,
    fastest_of,
    ladders,
    lines,
    machine,
    pixels,
    seconds,
    timed,
    write,
)

# The same run makes the same file, byte for byte.
STYLE = {"svg.hashsalt": "ladder", "font.size": 10, "text.parse_math": False}
BOX = {"facecolor": "white", "edgecolor": "none", "pad": 0.4}
BLUE, ORANGE, GREY = "#0072b2", "#d55e00", "#595959"  # told apart by colour-blind eyes
DEVICES = {"cpu": ("CPU", BLUE, "", "-"), "cuda": ("GPU", ORANGE, "///", "--")}


def figures(run, folder):
    """Draw the run into ``folder``, as PNG and SVG; return the PNGs as (what it shows, path)."""
    import matplotlib

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    pictures = []
    drawn = {
        "ladder": ("The ladder: speed of one call, by rung", draw_ladder),
        "rows": ("Time by the number of rows", draw_rows),
    }
    if "lesson" in run:
        drawn |= {
            "digit": ("The first digit of the training data", draw_digit),
            "rand": ("Fifty random numbers", draw_rand),
            "histogram": ("Ten thousand random numbers", draw_histogram),
        }
    with matplotlib.rc_context(STYLE):
        for name, (title, draw) in drawn.items():
            if figure := draw(run, title):
                pictures.append(save(figure, title, folder / name))
    return pictures


def save(figure, title, path):
    """Write a figure as PNG and SVG; return its title, and the path of the PNG."""
    for kind, metadata in ("svg", {"Date": None}), ("png", {}):
        file = BytesIO()
        figure.savefig(file, format=kind, dpi=120, metadata=metadata)
        write(path.with_name(f"{path.name}.{kind}"), file.getvalue())
    return title, path.with_name(f"{path.name}.png")


def figures_of_runs(runs, folder):
    """Draw ``{name: run}``, shape by shape: bars in pairs for two runs, else lines over the runs by date."""
    import matplotlib

    folder, pictures = Path(folder), []
    folder.mkdir(parents=True, exist_ok=True)
    draw = draw_pairs if len(runs) == 2 else draw_history
    with matplotlib.rc_context(STYLE):
        for shape in dict.fromkeys(chain(*map(ladders, runs.values()))):
            title = f"{shape.replace('x', ' × ')}: time of one call"
            pictures.append(save(draw(runs, shape, title), title, folder / f"runs-{shape}"))
    return pictures


def draw_pairs(runs, shape, title):
    """Two bars for each rung, on a log axis; a longer bar is faster, as in the ladder."""
    tables = [medians(run, shape) for run in runs.values()]
    rungs = [*dict.fromkeys(chain(*tables))]
    figure, axes = one_panel(9, 0.42 * len(rungs) + 1.6, f"{title}; a longer bar is faster")
    slowest = 1.5 * max(max(table.values()) for table in tables if table)
    for n, (name, table) in enumerate(zip(runs, tables, strict=True)):
        _, colour, hatch, _ = [*DEVICES.values()][n]
        rows = [(y, table[rung]) for y, rung in enumerate(rungs) if rung in table]
        for y, median in rows:
            at = y + 0.4 * n - 0.2
            bar = {"color": colour, "hatch": hatch, "edgecolor": "white"}
            axes.barh(at, median - slowest, left=slowest, height=0.36, **bar)
            axes.text(median, at, f" {seconds(median)}", va="center", size=8)
        axes.barh(0, 0, color=colour, hatch=hatch, edgecolor="white", label=name)
    fastest = min(min(table.values()) for table in tables if table)
    axes.set(xscale="log", xlim=(slowest, fastest / (slowest / fastest) ** 0.2))
    axes.set_yticks(range(len(rungs)), rungs, size=8.5)
    axes.invert_yaxis()
    axes.xaxis.set_major_formatter(tick)
    axes.legend(frameon=False, loc="upper right")
    return figure


def draw_history(runs, shape, title):
    """A line for each rung over the runs, by date, on a log axis."""
    order = sorted(runs, key=lambda name: runs[name]["datetime"])
    tables = [medians(runs[name], shape) for name in order]
    figure, axes = one_panel(9, 6, title)
    for n, rung in enumerate(dict.fromkeys(chain(*tables))):
        style = {"marker": "os^vDP*X"[n % 8], "linestyle": ["-", "--", ":"][n // 8 % 3]}
        times = [table.get(rung, math.nan) for table in tables]
        axes.plot(range(len(order)), times, label=rung, **style)
    axes.set(yscale="log")
    axes.set_xticks(range(len(order)), order, rotation=20, ha="right", size=8)
    axes.yaxis.set_major_formatter(tick)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def medians(run, shape):
    return {step.rung: step.median for step in timed(ladders(run).get(shape, []))}


def figure_of_verdicts(verdicts, threshold, path):
    """Draw (benchmark, Verdict) pairs of compare.py to ``path`` (PNG, and SVG beside it): each factor
    with its interval, and as a band what is no difference yet."""
    import matplotlib

    with matplotlib.rc_context(STYLE):
        title = "new time / old time, and what all runs span; right of the band is slower"
        figure, axes = one_panel(9, 0.3 * len(verdicts) + 1.4, title)
        axes.axvspan(1 / (1 + threshold), 1 + threshold, color="#dddddd")
        for y, (_, v) in enumerate(verdicts):
            _, colour, _, _ = DEVICES["cuda" if v.word == "slower" else "cpu"]
            axes.plot([v.low, v.high], [y, y], color=colour, linewidth=2)
            axes.plot(v.factor, y, "s" if v.word == "slower" else "o", color=colour)
            axes.text(v.high, y, f"  {v.factor:.2f} {v.word}", va="center", size=8)
        axes.set(xscale="log", ylim=(len(verdicts) - 0.4, -0.6))
        axes.margins(x=0.15)
        axes.set_yticks(range(len(verdicts)), [name for name, _ in verdicts], size=8)
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter("{x:g}")
        return save(figure, title, Path(path).with_suffix(""))


def new_figure(width, height):
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def one_panel(width, height, title):
    figure = new_figure(width, height)
    axes = figure.subplots()
    axes.set_title(title, loc="left", size=10)
    return figure, axes


def draw_ladder(run, title):
    """A panel for each shape: bars of speed on a log axis, the course's times, and the roofline."""
    shapes = ladders(run)
    if not shapes:
        return None
    heights = [len(timed(rows)) + 2.5 for rows in shapes.values()]
    figure = new_figure(9, 0.25 * sum(heights) + 0.8)
    panels = figure.subplots(len(shapes), squeeze=False, height_ratios=heights)[:, 0]
    for axes, (shape, rows) in zip(panels, shapes.items(), strict=True):
        rungs = timed(rows)
        winner = fastest_of(rungs)
        limits = {step.device: step.limit for step in rungs if step.limit > 0}
        slowest = 1.5 * max(max(s.median, COURSE.get((s.rung, shape), 0)) for s in rungs)
        best = min(winner.median, *limits.values()) if limits else winner.median
        for y, step in enumerate(rungs):
            _, colour, hatch, _ = DEVICES[step.device]
            bar = {"color": colour, "hatch": hatch, "edgecolor": "white"}
            axes.barh(y, step.median - slowest, left=slowest, height=0.7, **bar)
            course = COURSE.get((step.rung, shape))
            label = f" {seconds(step.median)}{step.doubt}"
            if course:
                axes.plot(course, y, "D", color="white", markeredgecolor="black", ms=4.5, zorder=5)
                label += f"   (the course: {seconds(course)})"
            weight = "bold" if step is winner else "normal"
            end = min(step.median, course or step.median)
            axes.text(end, y, f" {label}", va="center", size=8.5, fontweight=weight, bbox=BOX)
        for device, limit in limits.items():
            name, _, _, dash = DEVICES[device]
            axes.axvline(limit, color="black", linestyle=dash, linewidth=1.2)
            text = f"roofline of the {name}: {seconds(limit)} "
            axes.text(limit, -0.9, text, ha="right", size=8.5)
        for y in range(1, len(rungs)):
            if rungs[y].chapter != rungs[y - 1].chapter:
                axes.axhline(y - 0.5, color=GREY, linewidth=0.6, linestyle=":")
        axes.set(
            xscale="log",
            xlim=(slowest, best / (slowest / best) ** 0.3),
            ylim=(len(rungs) - 0.4, -1.6),
        )
        axes.set_yticks(range(len(rungs)), [step.rung for step in rungs], size=8.5)
        what = f"{shape.replace('x', ' × ')}: time of one call; a longer bar is faster"
        axes.set_title(f"{what}; ◇: the course's", loc="left", size=10)
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
            label="roofline, if all is read from memory",
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
