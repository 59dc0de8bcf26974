"""``python -m ladder RUN.json ...`` and ``python -m ladder compare BASE NEW``."""

import os
import sys


def main(argv):
    """Show saved runs, or compare two commits; return the exit status."""
    import argparse
    from pathlib import Path
    from shutil import get_terminal_size

    from ladder import compare, figures, tables
    from ladder.result import Run

    if argv[:1] == ["compare"]:
        return compare.main(argv[1:])
    parser = argparse.ArgumentParser(
        prog="python -m ladder",
        description="Show runs that pytest-benchmark saved: the ladder of one, or several side by "
        "side. `python -m ladder compare --help` compares two commits.",
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="a file of --benchmark-json")
    parser.add_argument("--figures", metavar="DIR", help="draw the first run into this folder")
    parser.add_argument("--readme", metavar="FILE", help="put its tables between the markers there")
    args = parser.parse_args(argv)
    stems = [Path(path).stem for path in args.runs]
    names = stems if len(set(stems)) == len(stems) else args.runs
    runs = dict(zip(names, map(Run.load, args.runs), strict=True))
    run = runs[names[0]]
    if args.figures:
        Path(args.figures).mkdir(parents=True, exist_ok=True)
        figures.draw_run(run, args.figures)
    if args.readme:
        begin, end = "<!-- ladder: begin -->\n", "<!-- ladder: end -->"
        before, _, rest = Path(args.readme).read_text(encoding="utf-8").partition(begin)
        if end not in rest:
            raise ValueError(f"{args.readme}: has no {begin.strip()} with {end} below")
        text = f"{before}{begin}{tables.markdown(run)}\n{end}{rest.partition(end)[2]}"
        Path(args.readme).write_text(text, encoding="utf-8")
    lines = [line for line, _ in tables.report(run, get_terminal_size((100, 24))[0])]
    lines += ["", ", ".join(tables.machine(run))]
    for line in tables.side_by_side(runs) if len(runs) > 1 else lines:
        print(tables.encodable(line, sys.stdout.encoding))
    sys.stdout.flush()
    return 0


if __name__ == "__main__":
    try:
        status = main(sys.argv[1:])
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 0
    except (OSError, ValueError) as error:
        print(f"python -m ladder: {error}", file=sys.stderr)
        status = 2
    except Exception:  # Python's own status for it is 1, which says that something is slower
        import traceback

        traceback.print_exc()
        status = 2
    sys.exit(status)
