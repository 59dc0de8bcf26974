"""The pictures of a run: the ladder, time by rows; and what the course draws."""

import os
from pathlib import Path

from ladder.tables import machine, seconds

BLUE, ORANGE, GREY = "#0072b2", "#d55e00", "#595959"  # colour-blind-safe, and apart in grey
DEVICES = {"cpu": ("CPU", BLUE, "", "--"), "cuda": ("GPU", ORANGE, "///", ":")}


def draw_run(run, folder):
    """Draw a `Run` into a folder that exists, as PNG; return the names of the files."""
    drawn = [save(draw_ladder, (run,), folder, "ladder.png")] if run.shapes else []
    return drawn + ([save(draw_rows, (run,), folder, "rows.png")] if run.rows else [])


def draw_lesson(digit, numbers, folder):
    """Draw a digit (784,), fifty random numbers and the histogram of all; return the files' names."""
    return [
        save(draw_digit, (digit.reshape(28, 28),), folder, "digit.png"),
        save(draw_rand, (numbers[:50],), folder, "rand.png"),
        save(draw_histogram, (numbers,), folder, "histogram.png"),
    ]


def save(draw, args, folder, name):
    os.environ["MPLBACKEND"] = "agg"  # and not that of the notebook which started this shell
    import matplotlib.style
    from matplotlib.figure import Figure

    with matplotlib.style.context("default", after_reset=True):
        figure = Figure(layout="constrained")
        draw(figure, *args)
        figure.savefig(Path(folder) / name, dpi=120)
    return name


def tick(value, _):
    return seconds(value).replace(".00 ", " ").replace(".0 ", " ")


def caption(figure, run):
    facts = machine(run)
    half = len(facts) // 2
    text = "\n".join([", ".join(facts[:half]), ", ".join(facts[half:])])
    figure.supxlabel(text, size=7, color=GREY)


def draw_ladder(figure, run):
    """A panel for each shape: bars of speed on a log axis, with the limits of the machine."""
    heights = [len(run.timed(shape)) + 3 for shape in run.shapes]
    figure.set_size_inches(9, 0.24 * sum(heights) + 0.8)
    panels = figure.subplots(len(run.shapes), squeeze=False, height_ratios=heights)[:, 0]
    for axes, shape in zip(panels, run.shapes, strict=True):
        results = run.timed(shape)
        limits = {
            r.device: max(run.bounds(r).items(), key=lambda b: b[1])
            for r in results
            if run.bounds(r)
        }
        times = [r.median for r in results] + [r.course for r in results if r.course]
        slow, fast = max(times), min([*times, *(limit for _, limit in limits.values())])
        edge = slow * (slow / fast) ** 0.02
        for y, result in enumerate(results):
            _, colour, hatch, _ = DEVICES[result.device]
            bar = {"color": colour, "hatch": hatch, "edgecolor": "white"}
            axes.barh(y, result.median - edge, left=edge, height=0.7, **bar)
            if result.course:
                axes.plot(result.course, y, "D", color="white", markeredgecolor="black", ms=5)
            if y and result.chapter != results[y - 1].chapter:
                axes.axhline(y - 0.5, color=GREY, linewidth=0.8)
        for device, (kind, limit) in limits.items():
            name, _, _, dash = DEVICES[device]
            axes.axvline(limit, color="black", linestyle=dash, linewidth=1.2)
            text = f"{kind} limit of the {name}: {seconds(limit)} "
            axes.text(limit, -0.9, text, ha="right", size=8)
        labels = [f"{r.rung}  {seconds(r.median)}{r.doubt or ' '}" for r in results]
        axes.set_yticks(range(len(results)), labels, size=8)
        axes.set(
            xscale="log",
            xlim=(edge, fast / (slow / fast) ** 0.03),
            ylim=(len(results) - 0.4, -1.6),
        )
        marks = "; ◇ the course's time" if any(r.course for r in results) else ""
        what = f"{shape.replace('x', ' × ')}: time of one call; a longer bar is faster{marks}"
        axes.set_title(what, loc="left", size=10)
        axes.xaxis.set_major_formatter(tick)
        axes.spines[["top", "right"]].set_visible(False)
    caption(figure, run)


def draw_rows(figure, run):
    """Time against rows, log-log: a line for each rung, and the limits of the machine."""
    figure.set_size_inches(9, 5)
    axes = figure.subplots()
    axes.set_title("Time by the number of rows; a hollow mark is noisy", loc="left", size=10)
    rungs, limits = {}, {}
    for result in sorted(run.rows, key=lambda result: result.flops):
        rows = int(result.shape.partition("x")[0])
        rungs.setdefault(result.rung, []).append((rows, result))
        for kind, limit in run.bounds(result).items():
            limits.setdefault(kind, {})[rows] = limit
    colours = BLUE, ORANGE, "#009e73", "#cc79a7"
    for n, (rung, points) in enumerate(rungs.items()):
        style = {"color": colours[n % 4], "marker": "os^v"[n % 4]}
        axes.plot([x for x, _ in points], [r.median for _, r in points], label=rung, **style)
        noisy = [(x, r.median) for x, r in points if r.doubt]
        if noisy:
            axes.plot(*zip(*noisy, strict=True), style["marker"], mfc="white", mec=style["color"])
    for kind, points in limits.items():
        dash = "--" if kind == "memory" else ":"
        axes.plot(*zip(*points.items(), strict=True), color="black", ls=dash, label=f"{kind} limit")
    axes.set(xscale="log", yscale="log", xlabel="rows × 784 × 10")
    axes.yaxis.set_major_formatter(tick)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    caption(figure, run)


def draw_digit(figure, image):
    figure.set_size_inches(3, 3.2)
    figure.subplots().imshow(image, cmap="gray")


def draw_rand(figure, numbers):
    figure.set_size_inches(6, 3.4)
    axes = figure.subplots()
    axes.plot(numbers, marker=".")
    axes.set(ylim=(-0.03, 1.03), xlabel="number drawn", ylabel="rand()")


def draw_histogram(figure, numbers):
    figure.set_size_inches(6, 3.4)
    axes = figure.subplots()
    axes.hist(numbers, range=(0, 1), edgecolor="white")
    axes.axhline(len(numbers) / 10, color="black", linestyle="--", linewidth=1)
    axes.set(xlabel="rand()", ylabel="count (dashed: expected)")
