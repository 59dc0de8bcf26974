"""The pictures of a run: its ladders, and the roofline of its machine."""

import math
import os
from contextlib import contextmanager
from pathlib import Path

from ladder.report import DEVICES, machine, marks, time_of, warnings
from ladder.text import across, folded, round_seconds, seconds, shortened, size

GREY = "#595959"
ON_WHITE = {"facecolor": "white", "edgecolor": "none", "pad": 1}  # lines stop behind such a text
COLOURS = {"cpu": "#0072b2", "cuda": "#d55e00"}
HATCHES = {"cpu": "", "cuda": "///"}
LINES = {"cpu": "--", "cuda": ":"}
MARKERS = {"cpu": "o", "cuda": "^"}
LONGEST = 28  # characters of a rung's name, beside a point


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
    """Draw a subject on a new figure and save it."""
    with own_style():
        from matplotlib.figure import Figure

        figure = Figure(layout="constrained")
        draw_on(figure, subject)
        figure.savefig(path, dpi=120)


@contextmanager
def own_style(**settings):
    """Draw in matplotlib's own style, with some settings changed, whatever the user has set."""
    os.environ["MPLBACKEND"] = "agg"  # and not that of the notebook which started this shell
    import matplotlib.style

    with matplotlib.style.context(["default", settings], after_reset=True):
        yield


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
    title = f"{across(shape)}: time of one call, log axis; a longer bar is faster"
    axes.set_title(title, loc="left", size=10)
    log_ticks(axes.xaxis, edge / fast, round_seconds)
    axes.spines[["top", "right"]].set_visible(False)


def draw_limit(axes, device, bound, y):
    axes.axvline(bound.seconds, color="black", linestyle=LINES[device], linewidth=1.2)
    text = f"limit of the {DEVICES[device]} ({bound.kind}): {seconds(bound.seconds)} "
    axes.text(bound.seconds, y, text, ha="right", va="center", size=8, bbox=ON_WHITE)


def log_ticks(axis, ratio, write):
    """Write numbers at the powers of ten; between them, too, if the ends have a small ratio."""
    from matplotlib.ticker import LogLocator

    subs = (1.0,) if ratio > 100 else (1.0, 2.0, 5.0)
    axis.set_major_locator(LogLocator(subs=subs))
    axis.set_major_formatter(lambda value, _: write(value))
    axis.set_minor_formatter("")


# ---- The roofline ------------------------------------------------------------------


def draw_roofline(figure, run):
    """The roofline with its title and the machine."""
    figure.set_size_inches(9, 5.5)
    axes = figure.subplots()
    draw_rooflines(axes, run)
    title = "Roofline: a point for each rung and shape; hollow: a doubtful time"
    axes.set_title(title, loc="left", size=10)
    axes.spines[["top", "right"]].set_visible(False)
    caption(figure, run)


def draw_rooflines(axes, run):
    """GFLOP/s over operations a byte: under which limit each rung and shape stands.

    After Williams, Waterman and Patterson (2009). A rung is drawn at the operations and bytes of
    its product, each operand once, whatever it really reads. The roofs are what memory feeds and
    what arithmetic allows; a short bar over a shape is what a call costs by itself.
    """
    intensities = [intensity(shape) for shape in run.shapes]
    low, high = min(intensities) / 20, max(intensities) * 10  # there is room for names
    axes.set(xscale="log", yscale="log", xlim=(low, high))
    axes.set(xlabel="operations a byte, log axis", ylabel="GFLOP/s, log axis")
    for device in dict.fromkeys(result.device for result in run.results):
        rates = run.best_rates(device)
        if "memory" in rates and "arithmetic" in rates:
            draw_roof(axes, device, rates, low, high)
        if "call" in rates:
            draw_call_roofs(axes, device, rates, run.shapes)
    for result in run.results:
        draw_point(axes, result)
    axes.margins(y=0.08)
    axes.autoscale(axis="y")
    for axis, (least, most) in (axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim()):
        log_ticks(axis, most / least, "{:,.10g}".format)
    for shape in run.shapes:
        x = intensity(shape)
        side = free_side(x, intensities)
        if side is None:
            continue
        name_points(axes, run.at(shape), side)
        bottom = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points"}
        looks = {"ha": side, "color": GREY, "size": 8}
        axes.annotate(across(shape), (x, 0), xytext=(0, 3), **bottom, **looks)


def intensity(shape):
    return shape.flops / shape.bytes


def speed(result):
    """Return the GFLOP/s of a result."""
    return result.shape.flops / result.median / 1e9


def free_side(x, intensities):
    """Return which end of a name is at a point: "left" if there is room on the point's right, or
    else "right" if there is some on its left; None between shapes that are near."""
    if not any(x < other < 10 * x for other in intensities):
        return "left"
    if not any(x / 10 < other < x for other in intensities):
        return "right"
    return None


def draw_roof(axes, device, rates, low, high):
    """Two roofs: as much as memory feeds, up to as much as the cores or multiprocessors compute."""
    ridge = rates["arithmetic"] / rates["memory"]
    xs = [low, min(max(ridge, low), high), high]
    ys = [min(x * rates["memory"], rates["arithmetic"]) / 1e9 for x in xs]
    axes.plot(xs, ys, color=COLOURS[device], linestyle=LINES[device], linewidth=1.2)
    memory, arithmetic = size(rates["memory"], "B/s"), size(rates["arithmetic"], "FLOP/s")
    text = f"{DEVICES[device]}: {memory}, then {arithmetic}"
    looks = {"ha": "right", "color": COLOURS[device], "size": 8, "zorder": 4}  # above names
    axes.annotate(text, (high, ys[-1]), xytext=(0, 4), textcoords="offset points", **looks)


def draw_call_roofs(axes, device, rates, shapes):
    """Draw what calls allow, where arithmetic allows more."""
    for shape in shapes:
        x, reached = intensity(shape), shape.flops * rates["call"]
        if reached < rates.get("arithmetic", math.inf):
            y = reached / 1e9
            axes.plot([x / 1.4, x * 1.4], [y, y], color=COLOURS[device], linewidth=2)


def draw_point(axes, result):
    colour = COLOURS[result.device]
    axes.plot(
        intensity(result.shape),
        speed(result),
        MARKERS[result.device],
        color=colour,
        markerfacecolor="none" if result.doubt else colour,
        markersize=4.5,
        zorder=4,  # above names
    )


def name_points(axes, results, side):
    """Name the points of one shape, from the fastest on, as far as there is room."""
    low, high = map(math.log, axes.get_ylim())
    room = 0.042 * (high - low)
    last = math.inf
    for result in sorted(results, key=lambda result: result.median):
        height = math.log(speed(result))
        if last - height >= room:
            last = height
            axes.annotate(
                shortened(result.rung, LONGEST),
                (intensity(result.shape), speed(result)),
                xytext=(-6 if side == "right" else 6, -2.5),
                textcoords="offset points",
                ha=side,
                size=7.5,
                bbox=ON_WHITE,
            )
