"""The ladder: what a run says about the rungs, as tables that a person reads at a glance.

``python ladder.py RUN.json`` prints the tables of a saved run, ``--readme README.md`` puts
them between the markers in that file. Needs no torch.
"""

import argparse
import json
import sys
from pathlib import Path

BEGIN, END = "<!-- ladder: begin -->", "<!-- ladder: end -->"


def load_run(path):
    """Return the run that ``pytest --benchmark-json`` saved at ``path``.

    Raises ValueError if the file holds anything else, OSError if it can't be read.
    """
    try:
        run = json.loads(Path(path).read_text(encoding="utf-8"))
        rungs = [bench for bench in run["benchmarks"] if "rung" in bench["extra_info"]]
        ladders(run), machine(run)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path}: not a run saved by pytest --benchmark-json "
            f"({type(error).__name__}: {str(error)[:100]})"
        ) from None
    if not rungs:
        raise ValueError(f"{path}: no rung was timed in this run")
    return run


def ladders(run):
    """Return ``{shape: rows}``; a row is (rung, median, times first, times before, GFLOP/s)."""
    benches = [b for b in run["benchmarks"] if "rung" in b["extra_info"]]
    benches.sort(key=lambda bench: bench["extra_info"]["step"])
    shapes = {}
    for bench in benches:
        info, median = bench["extra_info"], bench["stats"]["median"]
        rows = shapes.setdefault(info["shape"], [])
        first, before = (rows[0][1], rows[-1][1]) if rows else (median, median)
        rows.append(
            (
                info["rung"],
                median,
                first / median,
                before / median,
                info["flops"] / median / 1e9,
            )
        )
    return dict(
        sorted(shapes.items(), key=lambda item: item[1][0][0] != "matmul_loops")
    )


def seconds(value):
    """Return a time with three digits and its unit: 0.0123 is "12.3 ms"."""
    units = (1, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns")
    scale, unit = next((u for u in units if value >= u[0]), units[-1])
    return f"{digits(value / scale)} {unit}"


def digits(value):
    """Return a number with three significant digits, without an exponent."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.{2 if value < 10 else 1}f}" if value >= 0.1 else f"{value:.2g}"


def markdown(run):
    """Return the run's ladders as Markdown tables, with the machine that made them."""
    lines = [machine(run), ""]
    for shape, rows in ladders(run).items():
        first = rows[0][0]
        lines += [
            f"| {shape} | median | times {first} | times the rung before | GFLOP/s |",
            "| --- | ---: | ---: | ---: | ---: |",
        ]
        for rung, median, first, before, gflops in rows:
            lines.append(
                f"| {rung} | {seconds(median)} | {digits(first)}× | {digits(before)}× "
                f"| {digits(gflops)} |"
            )
        lines.append("")
    return "\n".join(lines)


def machine(run):
    """Return one line on the machine, the libraries and the data of a run."""
    info = run["machine_info"]
    cpu = info["cpu"]
    libraries = ", ".join(f"{k} {v}" for k, v in run.get("libraries", {}).items())
    gpu = f", {run['gpu']}" if "gpu" in run else ""
    return (
        f"{cpu.get('brand_raw', info['machine'])}, {cpu.get('count', '?')} cores{gpu}; "
        f"{info['system']}, Python {info['python_version']}, {libraries}; "
        f"data: {run.get('mnist', {}).get('file', '?')}; {run['datetime'][:10]}"
    )


def put_between_markers(path, text):
    """Replace what stands between the ladder's markers in the file at ``path``."""
    path = Path(path)
    before, begin, rest = path.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        raise ValueError(f"{path}: has no lines {BEGIN} and {END}")
    path.write_text(f"{before}{begin}\n{text}\n{end}{after}", encoding="utf-8")


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run", help="a file made by pytest --benchmark-json")
    parser.add_argument("--readme", help="put the tables between the markers there")
    args = parser.parse_args(argv)
    try:
        text = markdown(load_run(args.run))
        if args.readme:
            put_between_markers(args.readme, text)
        else:
            print(text)
    except (OSError, ValueError) as error:
        sys.exit(f"ladder.py: {error}")


if __name__ == "__main__":
    main()
