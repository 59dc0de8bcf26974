"""``python -m ladder RUN.json ...`` and ``python -m ladder compare BASE NEW``."""

import os
import sys


def main(argv):
    """Show saved runs, or compare two commits; return the exit status."""
    import argparse
    import re
    from pathlib import Path
    from shutil import get_terminal_size

    from ladder import compare, tables
    from ladder.result import Run

    if argv[:1] == ["compare"]:
        return compare.main(argv[1:])
    about = "The ladder of a saved run, or of several side by side. For commits: compare --help."
    parser = argparse.ArgumentParser(prog="python -m ladder", description=about)
    parser.add_argument("runs", nargs="+", metavar="RUN", help="a file of --benchmark-json")
    parser.add_argument("--readme", metavar="FILE", help="put the first between its markers")
    args = parser.parse_args(argv)
    stems = [Path(path).stem for path in args.runs]
    names = stems if len(set(stems)) == len(stems) else args.runs
    runs = dict(zip(names, map(Run.load, args.runs), strict=True))
    run = runs[names[0]]

    def ladders(columns):
        lines = [line for line, _ in tables.report(run, columns)]
        return [*lines, *tables.folded(["Measured on: " + ", ".join(tables.machine(run))], columns)]

    if args.readme:
        text = "\n".join(["```text", *ladders(230)[1:], "```"])
        markers = r"(?s)(?<=<!-- ladder: begin -->\n).*(?=\n<!-- ladder: end -->)"
        old = Path(args.readme).read_text(encoding="utf-8")
        new, count = re.subn(markers, lambda _: text, old)
        if not count:
            raise ValueError(f"{args.readme}: has no <!-- ladder: begin --> with an end below")
        Path(args.readme).write_text(new, encoding="utf-8")
    columns, _ = get_terminal_size((100, 24))
    for line in tables.side_by_side(runs) if len(runs) > 1 else ladders(columns):
        print(tables.encodable(line, sys.stdout.encoding))
    sys.stdout.flush()
    return 0


if __name__ == "__main__":
    status = 2  # also for what ends in a traceback: Python's own, 1, says that something is slower
    try:
        status = main(sys.argv[1:])
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError) as error:
        print(f"python -m ladder: {error}", file=sys.stderr)
    except Exception:
        import traceback

        traceback.print_exc()
    sys.exit(status)
