"""The command: saved runs as tables, pictures and in the README, or two commits compared."""

import argparse
import re
import sys
from pathlib import Path
from shutil import get_terminal_size

from ladder import compare, tables
from ladder.result import Run

MARKERS = re.compile(r"(<!-- ladder: begin -->\n).*(<!-- ladder: end -->)", re.DOTALL)


def main(argv):
    """Show saved runs, or compare two commits; return the exit status."""
    if argv[:1] == ["compare"]:
        return compare.main(argv[1:])
    parser = argparse.ArgumentParser(
        prog="python -m ladder",
        description="Show what pytest-benchmark saved: the ladder of one run, or several side by "
        "side. `python -m ladder compare --help` compares two commits.",
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="a file of --benchmark-json")
    parser.add_argument("--figures", metavar="DIR", help="draw the run into this folder")
    parser.add_argument("--readme", metavar="FILE", help="put the run's tables between its markers")
    args = parser.parse_args(argv)
    if (args.figures or args.readme) and len(args.runs) > 1:
        parser.error("--figures and --readme take one run")
    stems = [Path(path).stem for path in args.runs]
    names = stems if len(set(stems)) == len(stems) else args.runs
    runs = {name: Run.load(path) for name, path in zip(names, args.runs, strict=True)}
    run = runs[names[0]]
    if args.figures:
        from ladder.figures import draw_run

        Path(args.figures).mkdir(parents=True, exist_ok=True)
        draw_run(run, args.figures)
    if args.readme:
        put_between_markers(Path(args.readme), tables.markdown(run))
    if len(runs) > 1:
        lines = tables.side_by_side(runs)
    else:
        lines = [line for line, _ in tables.report(run, get_terminal_size((100, 24))[0])]
        lines += ["", ", ".join(tables.machine(run))]
    for line in lines:
        print(tables.encodable(line, sys.stdout.encoding))
    sys.stdout.flush()
    return 0


def put_between_markers(path, text):
    old = path.read_text(encoding="utf-8")
    new, count = MARKERS.subn(lambda found: f"{found[1]}{text}\n{found[2]}", old)
    if not count:
        raise ValueError(f"{path}: has no <!-- ladder: begin --> with an end below")
    path.write_text(new, encoding="utf-8")
