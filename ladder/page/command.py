"""``python -m ladder page RUN.json ... -o report.html``."""

import argparse
import sys
from pathlib import Path

from ladder.page.history import differences, entry
from ladder.report import DEVICES, about, machine, remarks, warnings
from ladder.run import Run, is_number
from ladder.text import encodable

LARGEST = 100_000_000  # bytes of a run; one that is larger holds each round, or is no run


def main(argv):
    """Write the page of saved runs; return the exit status.

    Raises OSError or ValueError for what can't be read, or written; the old page then stays.
    """
    description = "Saved runs as one page of HTML: code beside its number, and runs over time."
    parser = argparse.ArgumentParser(prog="python -m ladder page", description=description)
    what = "a file of --benchmark-json, or a folder of such files, such as .benchmarks"
    parser.add_argument("runs", nargs="+", metavar="RUN", help=what)
    parser.add_argument("-o", "--output", default="report.html", metavar="FILE", help="report.html")
    args = parser.parse_args(argv)
    runs, left_out = load(args.runs)
    if any(Path(args.output).exists() and Path(args.output).samefile(path) for path in runs):
        raise ValueError(f"{args.output}: is one of the runs, and would be lost")
    size = write(args.output, runs)
    for line in left_out:
        print(f"left out: {line}", file=sys.stderr)
    line = f"written: {args.output} (runs: {len(runs)}, {size / 1e3:,.0f} kB)"
    print(encodable(line, sys.stdout.encoding))
    return 0


def load(paths):
    """Return ``{path: run}`` of files and folders, and why files of the folders are left out.

    Raises OSError or ValueError for a file that was named itself and is no run, or if none is left.
    """
    runs, left_out = {}, []
    for path in map(Path, paths):
        if not path.is_dir():
            runs[str(path)] = load_one(path)
            continue
        for file in sorted(path.rglob("*.json")):
            try:
                runs[str(file)] = load_one(file)
            except (OSError, ValueError) as error:
                left_out.append(str(error))
    if not runs:
        why = f", but for example {left_out[0]}" if left_out else ""
        raise ValueError(f"{', '.join(map(str, paths))}: no run of this suite is there{why}")
    return runs, left_out


def load_one(path):
    """Return the run in a file. Raises OSError or ValueError, unless a page can show all of it."""
    size = path.stat().st_size
    if size > LARGEST:
        most = f"a run of up to {LARGEST / 1e6:.0f} MB is read; save it without its rounds' data"
        raise ValueError(f"{path}: {size / 1e6:,.0f} MB; {most}")
    run = Run.load(path)
    try:
        check(run)
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError) as error:
        what = f"{type(error).__name__}: {str(error)[:200]}"
        raise ValueError(f"{path}: not a run of this suite, as JSON ({what})") from None
    return run


def check(run):
    """Raise ValueError or another error unless a run's texts are texts, and its times are times."""
    if not run.results:
        raise ValueError("no rung was timed in it")
    for rung in run.about["rungs"].values():
        "".join([rung["source"], rung["sentence"], rung["chapter"]])  # or a TypeError
    for result in run.results:
        if result.device not in DEVICES:
            raise ValueError(f"the device {result.device!r:.20} is unknown")
        for time in result.shortest, result.median, result.rounds:
            if not is_number(time) or not 1e-15 < time < 1e15:
                raise ValueError(f"a time of {result.rung:.40} is {time!r:.20}")
        if not is_number(result.iqr) or not is_number(result.waited):
            raise ValueError(f"a spread of {result.rung:.40} is no number")
        if result.course is not None and not (is_number(result.course) and result.course > 0):
            raise ValueError(f"the course's time of {result.rung:.40} is {result.course!r:.20}")
    for limit in run.limits:
        if not is_number(limit.rate) or not limit.rate > 0:
            raise ValueError(f"a limit is {limit.rate!r:.20}")
    told = [*remarks(run), *warnings(run), *machine(run), *run.about.get("notes", [])]
    for shape in run.shapes:
        told += about(run, shape)
    told += differences(run, run)
    "".join(told)  # or a TypeError
    entry("", run)


def write(path, runs):
    """Write the page of ``{name: run}`` to a file, all of it or nothing; return its size in bytes."""
    from ladder.page.page import page

    text = page(named(runs)).encode()
    part = Path(f"{path}.part")
    try:
        part.write_bytes(text)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return len(text)


def named(runs):
    """Return ``{path: run}`` with the names of the files, unless two of them are the same."""
    names = [Path(path).name for path in runs]
    return dict(zip(names, runs.values(), strict=True)) if len({*names}) == len(names) else runs
