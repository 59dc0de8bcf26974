"""The pictures of a page, as SVG that takes its colours from style.css."""

import math
from io import StringIO
from xml.etree import ElementTree

from markupsafe import Markup

from ladder.figures import COLOURS, GREY, LONGEST, MARKERS, draw_rooflines, own_style
from ladder.text import seconds, shortened, times

INK, WHITE = "#000000", "#ffffff"
STYLES = {
    INK: "currentColor",
    WHITE: "var(--paper)",
    GREY: "var(--muted)",
    COLOURS["cpu"]: "var(--cpu)",
    COLOURS["cuda"]: "var(--gpu)",
}
SETTINGS = {
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "",  # the same run gives the same file
    "text.parse_math": False,
    "axes.edgecolor": GREY,
    "font.size": 9,
}
INCHES = 6.4
MOST_LABELS = 30  # of runs, side by side
LANE = 2  # the factor between the base lines of two rungs, in the picture over time
SVG = "{http://www.w3.org/2000/svg}"
WIDTH = 0.6  # of a letter, at most, for a height of 1
LINK = "{http://www.w3.org/1999/xlink}href"


def draw(draw_on, *subjects, title, prefix):
    """Return the SVG of what ``draw_on(axes, *subjects)`` draws, as Markup.

    ``title`` is what a screen reader says of it; ``prefix`` makes its ids the only ones of the page.
    """
    with own_style(**SETTINGS):
        from matplotlib.figure import Figure

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
    draw_rooflines(axes, run)
    place(axes, left=1.0, bottom=0.5)


# ---- Over time ---------------------------------------------------------------------


def draw_over_time(axes, entries, shape, breaks):
    """A lane a rung: its shortest rounds over the runs, relative to the least of them.

    The band reaches up to the median. ``breaks`` are ``{number of a run: text}``, where
    something else than the commit differs from the run before.
    """
    rungs = rungs_of(entries, shape)
    names, labels = [shortened(rung, LONGEST) for rung in rungs], [one.label for one in entries]
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
