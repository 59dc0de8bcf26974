"""The ladder: what a run says about the rungs, as tables that a person reads at a glance.

``python ladder.py RUN.json`` prints the tables of a saved run, ``--readme README.md`` puts
them between the markers in that file. Needs no torch.
"""

import argparse
import json
import math
import sys
from pathlib import Path

BEGIN, END = "<!-- ladder: begin -->", "<!-- ladder: end -->"


def load_run(path):
    """Return the run that ``pytest --benchmark-json`` saved at ``path``.

    Raises ValueError if the file holds anything else, OSError if it can't be read.
    """
    try:
        run = json.loads(Path(path).read_text(encoding="utf-8"))
        rungs = ladders(run["benchmarks"])
        machine(run)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path}: not a run saved by pytest --benchmark-json "
            f"({type(error).__name__}: {str(error)[:100]})"
        ) from None
    if not rungs:
        raise ValueError(f"{path}: no rung was timed in this run")
    return run


def add_limits(benches):
    """Put "gflops" and "limit_share" into the ``extra_info`` of each rung in ``benches``.

    The limit is the shortest time that any code could take on this machine: the larger of
    bytes / read rate and flops / multiply-add rate, where the rates are the best medians
    of the group "limit" on the rung's device. Without these there is no share.
    """
    rates = {}
    for bench in benches:
        info, median = bench["extra_info"], bench["stats"]["median"]
        if "limit" in info:
            work = info["bytes" if info["limit"] == "read" else "flops"]
            key = info["device"], info["limit"]
            rates[key] = max(rates.get(key, 0), work / median)
    for bench in benches:
        info, median = bench["extra_info"], bench["stats"]["median"]
        if "rung" in info:
            info["gflops"] = info["flops"] / median / 1e9
            read, flops = (
                rates.get((info["device"], key)) for key in ("read", "flops")
            )
            if read and flops:
                limit = max(info["bytes"] / read, info["flops"] / flops)
                info["limit_share"] = limit / median
    return rates


def ladders(benches):
    """Return ``{shape: rungs}`` for what was timed in the groups "matmul ...", in order.

    A rung is a dict: rung, median (s), times_first, times_before, gflops, limit_share.
    """
    rungs = [
        b for b in benches if b["group"] == f"matmul {b['extra_info'].get('shape')}"
    ]
    rungs.sort(
        key=lambda bench: (bench["extra_info"]["flops"], bench["extra_info"]["step"])
    )
    shapes = {}
    for bench in rungs:
        info, median = bench["extra_info"], bench["stats"]["median"]
        rows = shapes.setdefault(info["shape"], [])
        first, before = (rows[0], rows[-1]) if rows else ({"median": median},) * 2
        rows.append(
            {
                "rung": info["rung"],
                "median": median,
                "times_first": first["median"] / median,
                "times_before": before["median"] / median,
                "gflops": info["gflops"],
                "limit_share": info.get("limit_share"),
            }
        )
    return shapes


def seconds(value):
    """Return a time with three digits and its unit: 0.0123 is "12.3 ms"."""
    units = (1, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns")
    scale, unit = next((u for u in units if value >= u[0]), units[-1])
    return f"{digits(value / scale)} {unit}"


def digits(value):
    """Return a positive number with two or three significant digits: 1,234 or 1.23 or 0.012."""
    if value >= 99.95:
        return f"{value:,.0f}"
    if value >= 0.995:
        return f"{value:.{2 if value < 9.995 else 1}f}"
    return f"{value:.{1 - math.floor(math.log10(value))}f}"


def cells(row):
    """Return a row of `ladders` as text."""
    share = row["limit_share"]
    return [
        row["rung"],
        seconds(row["median"]),
        f"{digits(row['times_first'])}×",
        f"{digits(row['times_before'])}×",
        digits(row["gflops"]),
        "" if share is None else f"{digits(share * 100)}%",
    ]


HEADER = "median", "times the first", "times the one before", "GFLOP/s", "of the limit"


def markdown(run):
    """Return the run's ladders as Markdown tables, with the machine that made them."""
    lines = [machine(run), ""]
    for shape, rows in ladders(run["benchmarks"]).items():
        lines += [f"| {' | '.join((shape, *HEADER))} |", "| --- " + "| ---: " * 5 + "|"]
        lines += [f"| {' | '.join(cells(row))} |" for row in rows]
        lines.append("")
    return "\n".join(lines)


def report(benches):
    """Yield the lines of a text table for each ladder in ``benches``, and what to doubt."""
    add_limits(benches)
    for shape, rows in ladders(benches).items():
        table = [(shape, *HEADER), *map(cells, rows)]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        yield ""
        for name, *values in table:
            values = map(str.rjust, values, widths[1:])
            yield "  ".join((name.ljust(widths[0]), *values)).rstrip()
        for row in rows:
            if (row["limit_share"] or 0) > 1.1:
                yield (
                    f"{row['rung']} is faster than the measured limit: the limit was "
                    "disturbed; run again on a quiet machine"
                )
    yield ""


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
