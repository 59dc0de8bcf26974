"""The pictures of a run: its ladders, and the roofline of its machine."""

import os
from pathlib import Path

from ladder.report import DEVICES, machine, marks, time_of, warnings
from ladder.text import folded, seconds, size

GREY = "#595959"
ON_WHITE = {"facecolor": "white", "edgecolor": "none", "pad": 1}  # lines stop behind such a text
COLOURS = {"cpu": "#0072b2", "cuda": "#d55e00"}
HATCHES = {"cpu": "", "cuda": "///"}
LINES = {"cpu": "--", "cuda": ":"}
MARKERS = "osD^vPX*"  # a shape each, in the roofline


def draw(folder, run):
    """Draw a run's pictures into a folder that exists; return the names of the files."""
    if not run.shapes:
        return []
    names = ["ladder.png"]
    save(draw_ladders, run, Path(folder) / "ladder.png")
    if any(run.bounds(result.device, result.shape) for result in run.results):
        names.append("roofline.png")
        save(draw_roofline, run, Path(folder) / "roofline.png")
    return names


def save(draw_on, subject, path):
    """Draw a subject on a new figure, in matplotlib's own style, and save it."""
    os.environ["MPLBACKEND"] = "agg"  # and not that of the notebook which started this shell
    import matplotlib.style
    from matplotlib.figure import Figure

    with matplotlib.style.context("default", after_reset=True):
        figure = Figure(layout="constrained")
        draw_on(figure, subject)
        figure.savefig(path, dpi=120)


def caption(figure, run, *more):
    """Write below a figure on which machine it was measured, and what its marks mean."""
    facts = machine(run)
    middle = len(facts) // 2
    lines = [*warnings(run), *more, ", ".join(facts[:middle]), ", ".join(facts[middle:])]
    figure.supxlabel("\n".join(folded(lines, 160)), size=7, color=GREY)


# ---- The ladder --------------------------------------------------------------------


def draw_ladders(figure, run):
    """A panel for each shape."""
    heights = [len(run.at(shape)) + 4 for shape in run.shapes]
    figure.set_size_inches(9, 0.24 * sum(heights) + 1)
    panels = figure.subplots(len(run.shapes), squeeze=False, height_ratios=heights)[:, 0]
    for axes, shape in zip(panels, run.shapes, strict=True):
        draw_ladder(axes, run, shape)
    meanings = list(marks(run.results))
    if any(result.course for result in run.results):
        meanings.append("◇ the course's own time")
    caption(figure, run, *meanings)


def draw_ladder(axes, run, shape):
    """Bars on a log axis, from the slowest rung to the fastest, and the limits of the machine."""
    results = run.at(shape)
    devices = list(dict.fromkeys(result.device for result in results))
    limits = {device: run.bounds(device, shape) for device in devices}
    times = [result.median for result in results]
    times += [result.course for result in results if result.course]
    least = [bounds[0].seconds for bounds in limits.values() if bounds]
    slow, fast = max(times), min(times + least)
    edge = 1.2 * slow * (slow / fast) ** 0.02  # where the bars begin
    for y, result in enumerate(results):
        axes.barh(
            y,
            result.median - edge,
            left=edge,
            height=0.7,
            color=COLOURS[result.device],
            hatch=HATCHES[result.device],
            edgecolor="white",
        )
        if result.course:
            axes.plot(result.course, y, "D", color="white", markeredgecolor="black", ms=5)
        if y and result.chapter != results[y - 1].chapter:
            axes.axhline(y - 0.5, color=GREY, linewidth=0.8)
            left = {"transform": axes.get_yaxis_transform(), "ha": "right", "va": "center"}
            axes.text(-0.01, y - 0.5, result.chapter, size=6, color=GREY, **left)
    rows = 0
    for device in devices:
        if bounds := limits[device]:
            rows += 1
            draw_limit(axes, device, bounds[0], -0.2 - 0.9 * rows)
    axes.set_yticks(range(len(results)), [f"{r.rung}  {time_of(r)}" for r in results], size=8)
    axes.set(xscale="log", ylim=(len(results) - 0.4, -0.9 - 0.9 * rows))
    axes.set_xlim(edge, fast / (slow / fast) ** 0.04)
    across = str(shape).replace("x", " × ")
    title = f"{across}: time of one call, log axis; a longer bar is faster"
    axes.set_title(title, loc="left", size=10)
    log_ticks(axes.xaxis, edge / fast)
    axes.spines[["top", "right"]].set_visible(False)


def draw_limit(axes, device, bound, y):
    axes.axvline(bound.seconds, color="black", linestyle=LINES[device], linewidth=1.2)
    text = f"limit of the {DEVICES[device]} ({bound.kind}): {seconds(bound.seconds)} "
    axes.text(bound.seconds, y, text, ha="right", va="center", size=8, bbox=ON_WHITE)


def log_ticks(axis, decades):
    """Write times such as "10 µs" at the powers of ten; between them, too, if there are few."""
    from matplotlib.ticker import LogLocator

    subs = (1.0,) if decades > 100 else (1.0, 2.0, 5.0)
    axis.set_major_locator(LogLocator(subs=subs))
    axis.set_major_formatter(lambda x, _: seconds(x).replace(".00", "").replace(".0 ", " "))
    axis.set_minor_formatter("")


# ---- The roofline ------------------------------------------------------------------


def draw_roofline(figure, run):
    """GFLOP/s over operations a byte: under which limit each rung and shape stands.

    After Williams, Waterman and Patterson (2009). A rung is drawn at the operations and bytes of
    its product, each operand once, whatever it really reads.
    """
    figure.set_size_inches(9, 5.5)
    axes = figure.subplots()
    intensities = [shape.flops / shape.bytes for shape in run.shapes]
    low, high = min(intensities) / 3, max(intensities) * 3
    for device in dict.fromkeys(result.device for result in run.results):
        rates = run.best_rates(device)
        if "memory" in rates and "arithmetic" in rates:
            draw_roof(axes, device, rates, low, high)
    for shape, marker in zip(run.shapes, MARKERS * 9, strict=False):
        for result in run.at(shape):
            axes.plot(
                shape.flops / shape.bytes,
                shape.flops / result.median / 1e9,
                marker,
                color=COLOURS[result.device],
                markerfacecolor="none" if result.doubt else COLOURS[result.device],
                markersize=5,
            )
        label_fastest(axes, run, shape)
    axes.set(xscale="log", yscale="log", xlim=(low, high))
    axes.set(xlabel="operations a byte (log axis)", ylabel="GFLOP/s (log axis)")
    shapes = ", ".join(
        f"{m} {shape}" for shape, m in zip(run.shapes, "● ■ ◆ ▲ ▼".split(), strict=False)
    )
    axes.set_title(
        f"Roofline: a point a rung. {shapes}; hollow: a doubtful time", loc="left", size=10
    )
    axes.spines[["top", "right"]].set_visible(False)
    caption(figure, run)


def draw_roof(axes, device, rates, low, high):
    """Two roofs: as much as memory feeds, up to as much as the cores or multiprocessors compute."""
    ridge = rates["arithmetic"] / rates["memory"]
    xs = [low, min(max(ridge, low), high), high]
    ys = [min(x * rates["memory"], rates["arithmetic"]) / 1e9 for x in xs]
    axes.plot(xs, ys, color=COLOURS[device], linestyle=LINES[device], linewidth=1.2)
    memory, arithmetic = size(rates["memory"], "B/s"), size(rates["arithmetic"], "FLOP/s")
    text = f"{DEVICES[device]}: {memory}, then {arithmetic} "
    axes.text(high, ys[-1], text, size=8, color=COLOURS[device], ha="right", va="bottom")


def label_fastest(axes, run, shape):
    """Name the fastest rung of each device beside its point."""
    for device in dict.fromkeys(result.device for result in run.at(shape)):
        of_device = [result for result in run.at(shape) if result.device == device]
        best = min(of_device, key=lambda result: result.median)
        axes.annotate(
            best.rung,
            (shape.flops / shape.bytes, shape.flops / best.median / 1e9),
            xytext=(-6, 0),
            textcoords="offset points",
            ha="right",
            va="center",
            size=7,
            bbox=ON_WHITE,
        )
