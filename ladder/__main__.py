"""``python -m ladder RUN.json ...``, ``... compare BASE NEW`` and ``... page RUN.json``."""

import os
import sys


def main(argv):
    """Show saved runs, as text or as a page, or compare two commits; return the exit status."""
    from ladder import compare

    if argv[:1] == ["compare"]:
        return compare.main(argv[1:])
    if argv[:1] == ["page"]:
        from ladder.page import command

        return command.main(argv[1:])
    show(argv)
    return 0


def show(argv):
    """Print the ladder of a saved run, or of several side by side."""
    import argparse
    from pathlib import Path
    from shutil import get_terminal_size

    from ladder import export
    from ladder.page.command import load_one
    from ladder.report import report
    from ladder.side_by_side import side_by_side
    from ladder.text import encodable

    description = (
        "The ladder of a saved run, or of several side by side. For commits: compare --help; for a "
        "page: page --help."
    )
    parser = argparse.ArgumentParser(prog="python -m ladder", description=description)
    parser.add_argument("runs", nargs="+", metavar="RUN", help="a file of --benchmark-json")
    parser.add_argument("--csv", action="store_true", help="as comma-separated values, in seconds")
    parser.add_argument("--markdown", action="store_true", help="as tables of Markdown")
    parser.add_argument("--figures", metavar="DIR", help="draw the ladder and the roofline there")
    parser.add_argument("--readme", metavar="FILE", help="replace what stands between its markers")
    args = parser.parse_args(argv)
    stems = [Path(path).stem for path in args.runs]
    names = stems if len(set(stems)) == len(stems) else args.runs
    runs = dict(zip(names, (load_one(Path(path)) for path in args.runs), strict=True))
    first = runs[names[0]]
    width, _ = get_terminal_size((80, 24))
    if args.figures:
        from ladder import figures

        Path(args.figures).mkdir(parents=True, exist_ok=True)
        lines = [f"drawn in {args.figures}: {', '.join(figures.draw(args.figures, first))}"]
    elif args.readme:
        export.into_readme(args.readme, first)
        lines = []
    elif args.csv:
        lines = export.csv_lines(runs)
    elif args.markdown:
        lines = export.markdown_lines(first)
    elif len(runs) > 1:
        lines = side_by_side(runs, width)
    else:
        lines = [line for line, _ in report(first, width)]
    for line in lines:
        print(encodable(line, sys.stdout.encoding))
    sys.stdout.flush()


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
