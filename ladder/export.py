"""A run's ladders for other documents: CSV, Markdown, and the project's README."""

import csv
import io
import re
from pathlib import Path

from ladder.report import COLUMNS, report, table

MARKERS = re.compile(r"(?s)(?<=<!-- ladder: begin -->\n).*(?=\n<!-- ladder: end -->)")
README_WIDTH = 230


def csv_lines(runs):
    """Return the results of ``{name: run}`` as comma-separated values, a line each: times in
    seconds, shares from 0 to 1, rates in operations and bytes a second."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    measured = "shortest", "median", "iqr", "rounds", "doubt"
    names = "run", "shape", "rung", "device", *measured, "of_limit", "flop_per_s", "bytes_per_s"
    writer.writerow([*names, "torch_calls", "course"])
    for name, run in runs.items():
        for result in run.results:
            row = [name, result.shape, result.rung, result.device]
            row += [getattr(result, column) for column in measured]
            row += [run.share(result)]
            row += [result.shape.flops / result.median, result.shape.bytes / result.median]
            writer.writerow([*row, result.torch_calls, result.course])
    return out.getvalue().splitlines()


def markdown_lines(run):
    """Yield each shape's ladder as a table of Markdown."""
    for shape in run.shapes:
        heading, *rows = table(run, shape, COLUMNS)
        yield f"| {' | '.join(heading)} |"
        yield f"| --- |{' ---: |' * (len(heading) - 1)}"
        for row in rows:
            yield f"| {' | '.join(row)} |"
        yield ""


def into_readme(path, run):
    """Replace what stands between the markers of a Markdown file with a run's report."""
    lines = [line for line, _ in report(run, README_WIDTH)]
    text = "\n".join(["```text", *lines[1:], "```"])
    old = Path(path).read_text(encoding="utf-8")
    new, count = MARKERS.subn(lambda _: text, old)
    if not count:
        raise ValueError(f"{path}: has no <!-- ladder: begin --> with an end below")
    Path(path).write_text(new, encoding="utf-8")
