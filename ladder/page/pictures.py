"""The pictures of a page, as SVG that takes its colours from style.css."""

import math
import os
from io import StringIO
from xml.etree import ElementTree

from markupsafe import Markup

from ladder.report import DEVICES
from ladder.text import seconds, size, times

INK, GREY, COLOURS = "#010203", "#040506", {"cpu": "#070809", "cuda": "#0a0b0c"}
STYLES = {INK: "currentColor", GREY: "var(--muted)"}
STYLES |= {COLOURS["cpu"]: "var(--cpu)", COLOURS["cuda"]: "var(--gpu)"}
MARKERS = {"cpu": "o", "cuda": "^"}
LINES = {"cpu": "--", "cuda": ":"}
SETTINGS = {
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "",  # the same run gives the same file
    "text.parse_math": False,
    "text.color": INK,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "font.size": 9,
}
INCHES = 6.4
LONGEST = 28  # characters of a rung's name
MOST_LABELS = 30  # of runs, side by side
LANE = 2  # the factor between the base lines of two rungs, in the picture over time
SVG = "{http://www.w3.org/2000/svg}"
WIDTH = 0.6  # of a letter, at most, for a height of 1
LINK = "{http://www.w3.org/1999/xlink}href"


def draw(draw_on, *subjects, title, prefix):
    """Return the SVG of what ``draw_on(axes, *subjects)`` draws, as Markup.

    ``title`` is what a screen reader says of it; ``prefix`` makes its ids the only ones of the page.
    """
    os.environ["MPLBACKEND"] = "agg"  # and not that of the notebook which started this shell
    import matplotlib.style
    from matplotlib.figure import Figure

    with matplotlib.style.context("default", after_reset=True):
        matplotlib.rcParams.update(SETTINGS)
        axes = Figure(figsize=(INCHES, 0.65 * INCHES)).add_subplot()
        axes.spines[["top", "right"]].set_visible(False)
        draw_on(axes, *subjects)
        out = StringIO()
        axes.figure.savefig(out, format="svg", transparent=True, metadata={"Date": None})
    return embedded(out.getvalue(), title, prefix)


def embedded(text, title, prefix):
    """Return an SVG file as an element of a page."""
    ElementTree.register_namespace("", SVG[1:-1])
    root = ElementTree.fromstring(text)
    used = references(root)
    for element in root.iter():
        name = element.attrib.pop("id", None)
        if name in used:
            element.set("id", prefix + name)
        link = element.attrib.pop(LINK, None)
        if link:
            element.set("href", f"#{prefix}{link[1:]}")
        if "clip-path" in element.attrib:
            element.set("clip-path", element.get("clip-path").replace("#", f"#{prefix}"))
        style = element.get("style", "")
        for colour, ours in STYLES.items():
            style = style.replace(colour, ours)
        if style:
            element.set("style", style)
    for parent in list(root.iter()):
        for element in parent.findall(f"{SVG}metadata") + parent.findall(f"{SVG}style"):
            parent.remove(element)  # a style would hold for the whole page
    for side in "width", "height":
        del root.attrib[side]
    root.attrib |= {"role": "img", "aria-label": title}
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def references(root):
    """Return the ids that something in an SVG refers to."""
    links = [element.get(LINK, "")[1:] for element in root.iter()]
    clips = [element.get("clip-path", "")[len("url(#") : -1] for element in root.iter()]
    return {*links, *clips}


def shortened(name):
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…"


def place(axes, left, bottom, right=0.1, top=0.1):
    """Leave so many inches around the axes: matplotlib would have to draw twice to know them."""
    width, height = axes.figure.get_size_inches()
    across, up = (width - left - right) / width, (height - bottom - top) / height
    axes.set_position((left / width, bottom / height, across, up))


def inches(texts, points):
    """Return about how long the longest of some texts is."""
    return WIDTH * points * max(map(len, texts)) / 72


# ---- The roofline ------------------------------------------------------------------


def draw_roofline(axes, run):
    """GFLOP/s over operations a byte, after Williams, Waterman and Patterson (2009).

    A point a rung and shape; the roofs are what memory feeds and what arithmetic allows, a bar over
    a shape what a call allows that has nothing else to do.
    """
    from matplotlib.ticker import NullLocator

    intensities = [shape.flops / shape.bytes for shape in run.shapes]
    low, high = min(intensities) / 20, max(intensities) * 10
    axes.set(xscale="log", yscale="log", xlim=(low, high))
    axes.set(xlabel="operations a byte, log axis", ylabel="GFLOP/s, log axis")
    for device in dict.fromkeys(result.device for result in run.results):
        rates = run.best_rates(device)
        if "memory" in rates and "arithmetic" in rates:
            draw_roofs(axes, device, rates, low, high)
        if "call" in rates:
            draw_call_floors(axes, device, rates, run.shapes)
    for shape in run.shapes:
        draw_points(axes, run.at(shape))
    axes.margins(y=0.08)
    axes.autoscale(axis="y")
    place(axes, left=1.0, bottom=0.5)
    for axis in axes.xaxis, axes.yaxis:
        axis.set_major_formatter(lambda value, _: f"{value:,.10g}")
        axis.set_minor_locator(NullLocator())
    for shape, intensity in zip(run.shapes, intensities, strict=True):
        crowded = any(intensity < other < 10 * intensity for other in intensities)
        side = "right" if crowded else "left"  # of the text, which is at the point
        name_points(axes, run.at(shape), side)
        axes.annotate(
            str(shape).replace("x", " × "),
            (intensity, 0),
            xycoords=("data", "axes fraction"),
            xytext=(0, 3),
            textcoords="offset points",
            ha=side,
            color=GREY,
            size=8,
        )


def draw_roofs(axes, device, rates, low, high):
    ridge = min(max(rates["arithmetic"] / rates["memory"], low), high)
    xs = [low, ridge, high]
    ys = [min(x * rates["memory"], rates["arithmetic"]) / 1e9 for x in xs]
    axes.plot(xs, ys, color=COLOURS[device], linestyle=LINES[device], linewidth=1.2)
    text = f"{DEVICES[device]}: {size(rates['arithmetic'], 'FLOP/s')}"
    looks = {"textcoords": "offset points", "ha": "right", "color": COLOURS[device], "size": 8}
    axes.annotate(text, (high, ys[2]), xytext=(0, 4), **looks)
    axes.annotate(size(rates["memory"], "B/s"), (ridge, ys[1]), xytext=(-8, 2), **looks)


def draw_call_floors(axes, device, rates, shapes):
    """Draw what calls allow, where arithmetic allows more."""
    for shape in shapes:
        x, reached = shape.flops / shape.bytes, shape.flops * rates["call"]
        if reached < rates.get("arithmetic", math.inf):
            y = reached / 1e9
            axes.plot([x / 1.4, x * 1.4], [y, y], color=COLOURS[device], linewidth=2)


def draw_points(axes, results):
    for result in results:
        axes.plot(
            result.shape.flops / result.shape.bytes,
            result.shape.flops / result.median / 1e9,
            MARKERS[result.device],
            color=COLOURS[result.device],
            markerfacecolor="none" if result.doubt else COLOURS[result.device],
            markersize=4.5,
        )


def name_points(axes, results, side):
    """Name the points of one shape, from the fastest on, as far as there is room."""
    low, high = map(math.log, axes.get_ylim())
    room = 0.042 * (high - low)
    last = math.inf
    for result in sorted(results, key=lambda result: result.median):
        x, y = result.shape.flops / result.shape.bytes, result.shape.flops / result.median / 1e9
        if last - math.log(y) >= room:
            last = math.log(y)
            axes.annotate(
                shortened(result.rung),
                (x, y),
                xytext=(-6 if side == "right" else 6, -2.5),
                textcoords="offset points",
                ha=side,
                size=7.5,
            )


# ---- Over time ---------------------------------------------------------------------


def draw_over_time(axes, entries, shape, breaks):
    """A lane a rung: its shortest rounds over the runs, relative to the least of them.

    The band reaches up to the median. ``breaks`` are ``{number of a run: text}``, where
    something else than the commit differs from the run before.
    """
    rungs = rungs_of(entries, shape)
    names, labels = [shortened(rung) for rung in rungs], [one.label for one in entries]
    below = inches(labels, 7.5) + 0.1
    axes.figure.set_size_inches(INCHES, 0.35 + 0.34 * len(rungs) + below)
    place(axes, left=inches(names, 8) + 0.1, bottom=below, right=0.65, top=0.25)
    for lane, rung in enumerate(rungs):
        base = len(rungs) - 1 - lane
        results = [one.run.find(shape, rung) for one in entries]
        draw_lane(axes, base, results)
    for number, text in breaks.items():
        axes.axvline(number - 0.5, color=GREY, linestyle=":", linewidth=1)
        axes.text(number - 0.5, len(rungs) + 0.05, text, ha="center", va="bottom", size=8)
    axes.set(xlim=(-0.5, len(entries) - 0.5), ylim=(-0.35, len(rungs)))
    axes.set_yticks(range(len(rungs)), names[::-1], size=8)
    numbers = range(0, len(entries), 1 + len(entries) // MOST_LABELS)
    axes.set_xticks(numbers, [labels[n] for n in numbers], rotation=90, size=7.5)
    axes.tick_params(length=0)
    axes.spines[["left", "bottom"]].set_visible(False)


def rungs_of(entries, shape):
    """Return the rungs of a shape in any of the runs, in the ladder's order: the newest run's."""
    found = {}
    for one in reversed(entries):
        found |= {result.rung: None for result in one.run.at(shape)}
    return list(found)


def draw_lane(axes, base, results):
    """Draw one rung's results, of which those that a run lacks are None."""
    there = [result for result in results if result]
    best = min(result.shortest for result in there)
    colour = COLOURS[there[0].device]

    def height(time):
        return base + min(math.log(time / best, LANE), 0.95)

    axes.axhline(base, color=GREY, linewidth=0.4, alpha=0.6)
    numbers = range(len(results))
    low = [height(result.shortest) if result else math.nan for result in results]
    high = [height(result.median) if result else math.nan for result in results]
    axes.fill_between(numbers, low, high, color=colour, alpha=0.3, linewidth=0)
    axes.plot(numbers, low, color=colour, linewidth=1.3)
    for hollow in False, True:
        chosen = [n for n in numbers if results[n] and bool(results[n].doubt) == hollow]
        axes.plot(
            chosen,
            [low[n] for n in chosen],
            MARKERS[there[0].device],
            color=colour,
            markerfacecolor="none" if hollow else colour,
            markersize=3.5,
        )
    for n in numbers:
        if results[n] and math.log(results[n].shortest / best, LANE) > 0.95:
            text = times(best / results[n].shortest)
            axes.text(n + 0.12, low[n], text, size=7, va="center")
    axes.text(
        len(results) - 0.45, base, seconds(there[-1].shortest), size=8, va="center", clip_on=False
    )
