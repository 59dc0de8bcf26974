"""Compare two commits, and don't be fooled by noise.

``python -m ladder compare BASE [NEW] [-k EXPR] [--shape MxKxN]`` runs the benchmarks of both commits
(NEW: the working tree, if left out) in processes of their own, in the order A B B A, and says of
each benchmark whether it is faster, slower, the same, or unclear.

The exit status is 1 if something is slower, 0 if nothing is, 2 if it could not be told. The runs
are kept where ``pytest-benchmark compare`` finds them.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from ladder.machine import cores
from ladder.mnist import path_gz
from ladder.tables import aligned, encodable, seconds, times

WORDS = "same", "unclear", "faster", "slower"
STEP = 4  # processes of each side, after which those go on that are not clear
CONFIRMED = 6  # processes of each side, before anything is called faster or slower


@dataclass
class Side:
    """One of the two commits: where it is checked out, and what its processes have measured.

    ``times`` maps a benchmark to the shortest round, in seconds, of each process.
    """

    name: str
    commit: str
    folder: Path
    times: dict = field(default_factory=dict)


@dataclass
class Verdict:
    """What the processes of both sides say about one benchmark.

    ``factor`` is how many times faster the new side is, by the medians; the interval (``low``,
    ``high``) spans every process of one side over every process of the other, except for the
    slowest of each, which something else may have disturbed. Faster and slower mean that all of
    it is beyond the threshold, on enough processes; the same, that all of it is within.
    """

    word: str
    base: float
    new: float
    factor: float
    low: float
    high: float

    @classmethod
    def of(cls, base, new, threshold):
        """Judge two lists of times in seconds, a process each; a ``threshold`` of 0.05 is 5%."""
        enough = min(len(base), len(new)) >= CONFIRMED
        base, new = (sorted(x)[: max(1, len(x) - 1)] for x in (base, new))
        low, high, edge = min(base) / max(new), max(base) / min(new), 1 + threshold
        word = "unclear"
        if 1 / edge <= low and high <= edge and len(base) > 1:
            word = "same"
        elif enough and high < 1 / edge:
            word = "slower"
        elif enough and low > edge:
            word = "faster"
        return cls(word, median(base), median(new), median(base) / median(new), low, high)


# ---- git ---------------------------------------------------------------------------


def git(*args):
    done = subprocess.run(["git", *args], capture_output=True, text=True, errors="replace")
    if done.returncode:
        raise ValueError(f"git: {done.stderr.strip()}")
    return done.stdout.strip()


def commit_of(revision):
    """Return the id of the commit that a user's word means; None means the working tree."""
    if revision is None:
        if new := git("ls-files", "--others", "--exclude-standard"):
            raise ValueError(f"git doesn't know these files yet, git add them: {new.split()}")
        return git("-c", "user.name=x", "-c", "user.email=x", "stash", "create") or commit_of(
            "HEAD"
        )
    try:
        return git("rev-parse", "--verify", "--end-of-options", f"{revision}^{{commit}}")
    except ValueError:
        raise ValueError(f"{revision}: there is no such commit") from None


@contextmanager
def checked_out(base, new):
    """Yield the two sides, each in a git worktree that is gone afterwards."""
    prefix = git("rev-parse", "--show-prefix")
    commits = commit_of(base), commit_of(new)
    with tempfile.TemporaryDirectory(prefix="compare-", ignore_cleanup_errors=True) as scratch:
        folders = Path(scratch).resolve() / "base", Path(scratch).resolve() / "new"
        try:
            for folder, commit in zip(folders, commits, strict=True):
                git("worktree", "add", "--quiet", "--detach", str(folder), commit)
            names = f"base ({base})", f"new ({new or 'working tree'})"
            found = zip(names, commits, folders, strict=True)
            yield [Side(name, commit, folder / prefix) for name, commit, folder in found]
        finally:
            for folder in folders:
                if folder.exists():
                    git("worktree", "remove", "--force", str(folder))


# ---- Runs --------------------------------------------------------------------------


def run(side, args, only):
    """Run a side's benchmarks in a process of its own, and note what it measured.

    ``only`` are the full names of the benchmarks to run; without it, those of ``-k``.
    """
    saved = side.folder / "compare.json"
    threads = dict.fromkeys(("OMP", "MKL", "OPENBLAS", "NUMBA"), str(cores()[0]))
    env = {f"{library}_NUM_THREADS": n for library, n in threads.items()} | {**os.environ}
    command = [sys.executable, *"-m pytest -q --color=no --benchmark-only".split()]
    command += "-p no:randomly -p no:cacheprovider".split()
    command += [f"--mnist={args.mnist}", f"--benchmark-json={saved}"]
    command += [f"--benchmark-storage=file://{Path('.benchmarks').resolve()}"]
    command += [f"--benchmark-save=compare_{side.commit[:8]}"]
    command += [f"--shape={shape}" for shape in args.shape]
    command += [*only] if only else ["-k", args.k] if args.k else []
    done = subprocess.run(
        command, cwd=side.folder, env=env | {"PYTEST_ADDOPTS": ""}, text=True, errors="replace",
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    if done.returncode not in (0, 5):  # 5: no tests
        last = "\n".join(done.stdout.splitlines()[-25:])
        raise ValueError(f"the suite fails in {side.name}, status {done.returncode}:\n{last}")
    if saved.exists():
        for bench in json.loads(saved.read_text(encoding="utf-8") or '{"benchmarks": []}')[
            "benchmarks"
        ]:
            shortest = max(bench["stats"]["min"], 1e-12)  # a coarse clock may say 0
            side.times.setdefault(bench["fullname"], []).append(shortest)
        saved.unlink()


def verdicts(sides, threshold):
    """Return ``{benchmark: Verdict}`` of what both sides have."""
    base, new = sides
    both = [name for name in base.times if name in new.times]
    return {name: Verdict.of(base.times[name], new.times[name], threshold) for name in both}


def compare(sides, args, tell):
    """Run both sides in turns until no benchmark is unclear, or all have had their processes."""
    base, new = sides
    only, rounds = (), 0
    while rounds < args.max_runs:
        for _ in range(STEP // 2):
            for side in base, new, new, base:
                start = time.monotonic()
                run(side, args, only)
                if not base.times:
                    raise ValueError(f"no benchmark ran: -k {args.k!r} selects none")
                if not only and side is base and not rounds and not new.times:
                    each = time.monotonic() - start
                    tell(
                        f"{len(base.times)} benchmarks, {each:.0f} s a process: about "
                        f"{2 * STEP * each:.0f} s, and up to {2 * args.max_runs * each:.0f} s "
                        "for what stays unclear"
                    )
        rounds += STEP
        found = verdicts(sides, args.threshold)
        only = [name for name, verdict in found.items() if verdict.word == "unclear"]
        if not only:
            break
        tell(f"after {rounds} processes of each side, {len(only)} of {len(found)} are unclear")
    return verdicts(sides, args.threshold)


def table(found, sides):
    """Yield the lines of the result, the slower ones last, where they are seen."""
    rows = [("benchmark", "base", "new", "speed", "interval", "verdict")]
    for name, v in sorted(found.items(), key=lambda item: WORDS.index(item[1].word)):
        interval = f"{times(v.low)} to {times(v.high)}"
        name = name.rpartition("::")[2]
        rows.append((name, seconds(v.base), seconds(v.new), times(v.factor), interval, v.word))
    yield from aligned(rows)
    for side, other in sides, sides[::-1]:
        for name in side.times.keys() - other.times.keys():
            yield f"{name.rpartition('::')[2]}: only in {side.name}"
    yield "×2 is twice as fast as base, ÷2 half as fast"
    yield ", ".join(f"{sum(v.word == word for v in found.values())} {word}" for word in WORDS)


def percentage(text):
    value = float(text.removesuffix("%")) / 100
    if not 0 < value < 10:
        raise ValueError
    return value


def main(argv):
    parser = argparse.ArgumentParser(
        prog="python -m ladder compare", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("base", metavar="BASE", help="the commit to compare with")
    parser.add_argument("new", metavar="NEW", nargs="?", help="(default: the working tree)")
    parser.add_argument("-k", metavar="EXPR", help="which benchmarks, as for pytest")
    parser.add_argument("--shape", action="append", default=[], help="MxKxN, as for pytest")
    parser.add_argument(
        "--threshold", type=percentage, default="5%", help="what is no difference yet (5%%)"
    )
    parser.add_argument(
        "--max-runs", type=int, default=16, help="processes of each side for what is unclear (16)"
    )
    data = str(path_gz) if path_gz.exists() else "sample"
    parser.add_argument("--mnist", default=data, help="the data, as for pytest")
    args = parser.parse_args(argv)

    def tell(text):
        print(encodable(text, sys.stderr.encoding), file=sys.stderr, flush=True)

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(2))  # and tidy up
    try:
        with checked_out(args.base, args.new) as sides:
            found = compare(sides, args, tell)
            for line in table(found, sides):
                print(encodable(line, sys.stdout.encoding))
    except KeyboardInterrupt:
        tell("stopped; the runs so far are kept")
        return 2
    return int(any(verdict.word == "slower" for verdict in found.values()))
