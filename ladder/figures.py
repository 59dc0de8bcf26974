"""The pictures of a run: the ladder, and what the course draws."""

import os
from pathlib import Path

from ladder.tables import DEVICES, machine, seconds, time_of

GREY = "#595959"
STYLES = {"cpu": ("#0072b2", "", "--"), "cuda": ("#d55e00", "///", ":")}


def draw_lesson(folder, digit, numbers):
    """Draw what the course draws, a digit (784,) and random numbers; return the file's name."""

    def draw(figure):
        figure.set_size_inches(9, 3)
        image, line, histogram = figure.subplots(1, 3)
        image.imshow(digit.reshape(28, 28), cmap="gray")
        line.plot(numbers[:50], marker=".")
        line.set(ylim=(-0.03, 1.03), title="50 random numbers")
        histogram.hist(numbers, range=(0, 1), edgecolor="white")
        histogram.axhline(len(numbers) / 10, color="black", linestyle="--", linewidth=1)
        histogram.set(title=f"{len(numbers):,} of them")

    return save(draw, folder, "lesson.png")


def save(draw, folder, name):
    os.environ["MPLBACKEND"] = "agg"  # and not that of the notebook which started this shell
    import matplotlib.style
    from matplotlib.figure import Figure

    with matplotlib.style.context("default", after_reset=True):
        figure = Figure(layout="constrained")
        draw(figure)
        figure.savefig(Path(folder) / name, dpi=120)
    return name


def draw_ladder(folder, run):
    """Draw a panel for each shape into a folder that exists; return the name of the file."""

    def draw(figure):
        heights = [len(run.timed(shape)) + 3 for shape in run.shapes]
        figure.set_size_inches(9, 0.24 * sum(heights) + 0.8)
        panels = figure.subplots(len(run.shapes), squeeze=False, height_ratios=heights)[:, 0]
        for axes, shape in zip(panels, run.shapes, strict=True):
            draw_shape(axes, run, shape)
        facts = machine(run)
        halves = facts[: len(facts) // 2], facts[len(facts) // 2 :]
        figure.supxlabel("\n".join(map(", ".join, halves)), size=7, color=GREY)

    return save(draw, folder, "ladder.png")


def draw_shape(axes, run, shape):
    """Bars of speed on a log axis, with the limits of the machine."""
    results = run.timed(shape)
    bounds = {r.device: [(*limit, kind) for kind, limit in run.bounds(r).items()] for r in results}
    limits = {device: max(found) for device, found in bounds.items() if found}
    times = [r.median for r in results] + [r.course for r in results if r.course]
    slow, fast = max(times), min([*times, *(least for least, *_ in limits.values())])
    edge = 1.1 * slow * (slow / fast) ** 0.02
    for y, result in enumerate(results):
        colour, hatch, _ = STYLES[result.device]
        bar = {"color": colour, "hatch": hatch, "edgecolor": "white"}
        axes.barh(y, result.median - edge, left=edge, height=0.7, **bar)
        if result.course:
            axes.plot(result.course, y, "D", color="white", markeredgecolor="black", ms=5)
        if y and result.chapter != results[y - 1].chapter:
            axes.axhline(y - 0.5, color=GREY, linewidth=0.8)
            place = {"transform": axes.get_yaxis_transform(), "ha": "right", "va": "center"}
            axes.text(-0.01, y - 0.5, result.chapter, size=6, color=GREY, **place)
    for row, (device, (least, limit, kind)) in enumerate(limits.items()):
        axes.axvline(least, color="black", linestyle=STYLES[device][-1], linewidth=1.2)
        text = f"{kind} limit of the {DEVICES[device]}: {seconds(least)}{limit.doubt} "
        axes.text(least, -0.9 - 0.8 * row, text, ha="right", size=8)
    axes.set_yticks(range(len(results)), [f"{r.rung}  {time_of(r)}" for r in results], size=8)
    axes.set(xscale="log", ylim=(len(results) - 0.4, -2.2))
    axes.set_xlim(edge, fast / (slow / fast) ** 0.03)
    title = f"{shape.replace('x', ' × ')}: time of one call; a longer bar is faster"
    title += "; ◇ the course's time" * any(r.course for r in results)
    axes.set_title(title, loc="left", size=10)
    axes.xaxis.set_major_formatter(lambda x, _: seconds(x).replace(".00", "").replace(".0 ", " "))
    axes.xaxis.set_minor_formatter("")
    axes.spines[["top", "right"]].set_visible(False)
