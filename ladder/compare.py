"""Compare two commits, and don't be fooled by noise.

``python compare.py BASE [NEW] [-k EXPR]`` runs the benchmarks of both commits (NEW: the
working tree, if left out) in several processes each, in the order A B B A, and says of
each benchmark whether it became faster, slower, stayed the same, or is unclear. A run is
the better of two processes.

The exit status is 1 if something is slower, 0 if nothing is, 2 if it could not be told.
The runs are kept where ``pytest-benchmark compare`` finds them.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from ladder import encodable, printable, seconds, write
from machine import cores

WORDS = "same", "unclear", "faster", "slower"


class CannotCompare(Exception):
    """Why the comparison can't be made, for the user."""


@dataclass
class Side:
    """One of the two commits: where it is checked out, and what its runs have measured.

    ``times`` maps a benchmark to one time for each process, the shortest of its rounds.
    """

    name: str
    commit: str
    folder: Path
    times: dict = field(default_factory=dict)


@dataclass
class Verdict:
    """What the runs of both sides say about one benchmark; ``factor`` is new time / old time.

    The interval (``low``, ``high``) spans every run of one side over every run of the
    other. Faster and slower mean that all of it is beyond the threshold.
    """

    word: str
    base: float
    new: float
    factor: float
    low: float
    high: float

    @classmethod
    def of(cls, base, new, threshold, confirmed):
        """Judge two lists of times in seconds; a ``threshold`` of 0.05 is 5%.

        On less than ``confirmed`` runs nothing is called faster or slower.
        """
        factor = median(new) / median(base)
        low, high = min(new) / max(base), max(new) / min(base)
        beyond = low > 1 + threshold or high < 1 / (1 + threshold)
        if beyond and len(base) >= confirmed:
            word = "slower" if factor > 1 else "faster"
        elif 1 / (1 + threshold) <= factor <= 1 + threshold:
            word = "same"
        else:
            word = "unclear"
        return cls(word, median(base), median(new), factor, low, high)


# ---- git ---------------------------------------------------------------------------


def git(*args, env=None):
    done = subprocess.run(
        ["git", *args],
        capture_output=True,
        text=True,
        errors="surrogateescape",  # names of files may be in any encoding
        env=env and os.environ | env,
    )
    if done.returncode:
        raise CannotCompare(f"git: {printable(done.stderr.strip())}")
    return done.stdout.strip()


def commit_of(revision):
    """Return the id of the commit that a user's word means."""
    try:
        return git("rev-parse", "--verify", "--end-of-options", f"{revision}^{{commit}}")
    except CannotCompare:
        raise CannotCompare(f"{revision}: there is no such commit") from None


def commit_of_working_tree(scratch):
    """Return the id of a new commit, on no branch, of the working tree as it is.

    It is made from an index and among objects of its own: the user's index, files, branches
    and objects stay as they are.
    """
    if git("diff", "--cached", "--name-only"):
        raise CannotCompare(
            "the index holds changes that are not committed, so it isn't clear what the "
            "working tree is to be: commit them, or take them out with git restore --staged"
        )
    objects = Path(git("rev-parse", "--git-path", "objects")).resolve()
    (scratch / "objects").mkdir()
    os.environ["GIT_ALTERNATE_OBJECT_DIRECTORIES"] = str(objects)
    os.environ["GIT_OBJECT_DIRECTORY"] = str(scratch / "objects")
    env = {"GIT_INDEX_FILE": str(scratch / "index")}
    top = git("rev-parse", "--show-toplevel")
    git("read-tree", "HEAD", env=env)
    git("-C", top, "add", "--all", env=env)
    tree = git("write-tree", env=env)
    name = {"NAME": "compare.py", "EMAIL": "compare.py"}
    env = {f"GIT_{who}_{key}": v for who in ("AUTHOR", "COMMITTER") for key, v in name.items()}
    return git("commit-tree", tree, "-p", "HEAD", "-m", "The working tree", env=env)


@contextmanager
def checked_out(base, new):
    """Yield the two sides, each in a git worktree that is gone afterwards, whatever happens."""
    prefix = git("rev-parse", "--show-prefix")
    scratch = Path(tempfile.mkdtemp(prefix="compare-")).resolve()
    try:
        commits = {"base": commit_of(base)}
        tree = new is None
        commits["new"] = commit_of_working_tree(scratch) if tree else commit_of(new)
        names = {"base": base, "new": "working tree" if tree else new}
        for side, commit in commits.items():
            git("worktree", "add", "--quiet", "--detach", str(scratch / side), commit)
        yield [
            Side(f"{side} ({names[side]})", commit, scratch / side / prefix)
            for side, commit in commits.items()
        ]
    finally:
        on_stop(signal.SIG_IGN)  # what is tidied up is tidied up
        for side in "base", "new":
            if (scratch / side).exists():
                # Not `git worktree prune`: it would drop the user's that are away just now.
                subprocess.run(
                    ["git", "worktree", "remove", "--force", "--force", scratch / side],
                    capture_output=True,
                )
        shutil.rmtree(scratch, ignore_errors=True)


def on_stop(handler):
    """Let ``handler`` answer Ctrl-C, and the signals that end a process."""
    for name in "SIGINT", "SIGTERM", "SIGHUP":
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), handler)


def stop(*_):
    """Stop once: a second Ctrl-C must not keep the first from tidying up."""
    on_stop(signal.SIG_IGN)
    raise KeyboardInterrupt


# ---- Runs --------------------------------------------------------------------------


def start(side, args, only=()):
    """Run a side's benchmarks in a process of its own; return what it saved, or None.

    ``only`` are the full names of the benchmarks to run; without it, those of ``-k``.
    """
    saved = side.folder / "compare.json"
    saved.unlink(missing_ok=True)
    threads = str(args.threads)
    env = os.environ | {
        "PYTHONHASHSEED": "0",
        "OMP_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        "OPENBLAS_NUM_THREADS": threads,
        "NUMBA_NUM_THREADS": threads,
        "PYTEST_ADDOPTS": "",
    }
    command = [sys.executable, *"-m pytest --quiet --color=no --benchmark-only".split()]
    command += "-p no:randomly -p no:cacheprovider".split()
    command += [f"--rootdir={side.folder}", f"--mnist={args.mnist}"]
    command += [f"--benchmark-json={saved}", f"--benchmark-max-time={args.max_time}"]
    command += [*only] if only else ["-k", args.k] if args.k else []
    done = subprocess.run(
        command, cwd=side.folder, env=env, text=True, errors="replace",
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    if done.returncode < 0:
        raise CannotCompare(f"signal {-done.returncode} ended the run of {side.name}")
    nothing_ran = done.returncode == 5  # pytest's status for no tests
    if done.returncode and not nothing_ran:
        last = "\n".join(done.stdout.splitlines()[-25:])
        raise CannotCompare(f"the suite fails in {side.name}:\n{last}")
    if not saved.exists() or not saved.stat().st_size:
        return None
    result = json.loads(saved.read_text(encoding="utf-8"))
    for bench in result["benchmarks"]:
        times = side.times.setdefault(bench["fullname"], [])
        times.append(max(bench["stats"]["min"], 1e-12))  # a coarse clock may say 0
    return result


def keep(result, side, storage):
    """Put a run into pytest-benchmark's storage, whole, under the next free number."""
    from pytest_benchmark.utils import get_machine_id

    folder = storage / get_machine_id()
    folder.mkdir(parents=True, exist_ok=True)
    saved = storage.glob("*/[0-9][0-9][0-9][0-9]*_*.json")
    numbers = [int(path.name.partition("_")[0]) for path in saved]
    name = f"{max(numbers, default=0) + 1:04}_compare_{side.commit[:8]}.json"
    write(folder / name, json.dumps(result, indent=1).encode())


def runs_of(times):
    """Return a time for each run, which is the better of two processes, started A B B A.

    So one process that was disturbed spoils nothing.
    """
    return [min(times[n : n + 2]) for n in range(0, len(times), 2)]


def verdicts(sides, args):
    """Return ``{benchmark: Verdict}`` of what both sides have."""
    base, new = sides
    return {
        name: Verdict.of(runs_of(times), runs_of(new.times[name]), args.threshold, args.confirmed)
        for name, times in base.times.items()
        if name in new.times
    }


def undecided(sides, args, runs):
    """Return the names of the benchmarks that need more than the ``runs`` that each side had.

    Those are the unclear ones, until they have had the most runs that the user allows.
    """
    found = verdicts(sides, args)
    return [name for name in found if found[name].word == "unclear" and runs < args.max_runs]


def compare(sides, args, tell):
    """Run both sides in turns until no benchmark is undecided, or all have had their runs."""
    base, new = sides
    storage = Path(".benchmarks").resolve()
    storage.mkdir(exist_ok=True)
    blocks, runs, only = args.runs, 0, ()
    while blocks:
        started, processes = time.monotonic(), 4 * blocks
        for done in range(processes):
            side = (base, new, new, base)[done % 4]
            what = f"{len(only)} not clear yet" if only else "all benchmarks"
            each = (time.monotonic() - started) / done if done else 0
            left = f", about {each * (processes - done):.0f} s left" if done else ""
            tell(f"process {4 * runs + done + 1}: {side.name}, {what}{left}")
            if result := start(side, args, only):
                keep(result, side, storage)
            if done and not base.times and not new.times:
                raise CannotCompare(f"no benchmark ran: -k {args.k!r} selects none")
        runs += blocks
        only = undecided(sides, args, runs)
        blocks = 1 if only else 0
    return verdicts(sides, args)


# ---- What is said ------------------------------------------------------------------


def table(found, sides):
    """Yield the lines of the result, the slower ones last, where they are seen."""
    rows = by_word(found)
    width = max((len(name) for name, _ in rows), default=9)
    yield f"{'benchmark':{width}}  {'base':>8}  {'new':>8}  factor  interval      verdict"
    for name, v in rows:
        times = f"{seconds(v.base):>8}  {seconds(v.new):>8}"
        interval = f"{v.low:.2f} to {v.high:.2f}"
        yield f"{name:{width}}  {times}  {v.factor:6.2f}  {interval:12}  {v.word}"
    base, new = sides
    for side, other in (base, new), (new, base):
        for name in side.times.keys() - other.times.keys():
            yield f"{short(name)}: only in {side.name}"
    counts = [f"{sum(v.word == word for v in found.values())} {word}" for word in WORDS]
    yield ", ".join(counts)


def by_word(found):
    """Return (short name, Verdict) for each benchmark, the slower ones last, where they are seen."""
    rows = sorted(found.items(), key=lambda item: (WORDS.index(item[1].word), item[1].factor))
    return [(short(name), verdict) for name, verdict in rows]


def short(name):
    """Return a benchmark's name without its file, cut to what leaves room for the numbers."""
    return printable(name.rpartition("::")[2])[:48]


def main(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("base", metavar="BASE", help="the commit to compare with")
    parser.add_argument(
        "new",
        metavar="NEW",
        nargs="?",
        help="the new commit (default: the working tree)",
    )
    parser.add_argument("-k", metavar="EXPR", help="which benchmarks, as for pytest")
    parser.add_argument(
        "--threshold", type=percentage, default="5%", help="what is no difference yet"
    )
    parser.add_argument(
        "--runs",
        type=positive,
        default=2,
        help="runs of each side, of two processes each",
    )
    parser.add_argument(
        "--max-runs",
        type=positive,
        default=8,
        help="and for what is unclear",
    )
    parser.add_argument(
        "--confirmed",
        type=positive,
        default=6,
        help="runs of each side before anything is called faster or slower",
    )
    parser.add_argument(
        "--max-time",
        type=float,
        default=0.2,
        help="seconds for each benchmark in each process",
    )
    parser.add_argument(
        "--threads",
        type=positive,
        default=cores()[0],
        help="threads of the libraries",
    )
    parser.add_argument("--mnist", default=default_data(), help="the data, as for pytest")
    parser.add_argument("--figure", metavar="PNG", help="draw the factors and intervals, too")
    args = parser.parse_args(argv)
    args.max_runs = max(args.runs, args.max_runs)

    def tell(text):
        end = "\r" if sys.stderr.isatty() else "\n"
        print(
            f"{encodable(text, sys.stderr.encoding):<79}",
            end=end,
            file=sys.stderr,
            flush=True,
        )

    if args.mnist not in ("auto", "sample"):
        args.mnist = str(Path(args.mnist).resolve())
    on_stop(stop)
    found = {}
    try:
        with checked_out(args.base, args.new) as sides:
            found = compare(sides, args, tell)
            tell("")
            for line in table(found, sides):
                print(encodable(line, sys.stdout.encoding))
            sys.stdout.flush()
        if args.figure and found:
            from figures import figure_of_verdicts

            figure_of_verdicts(by_word(found), args.threshold, args.figure)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (CannotCompare, OSError) as error:
        print(f"compare.py: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\ncompare.py: stopped; the runs so far are kept", file=sys.stderr)
        return 2
    return int(any(verdict.word == "slower" for verdict in found.values()))


def default_data():
    path = Path("data/mnist.pkl.gz").resolve()
    return str(path) if path.exists() else "sample"


def percentage(text):
    value = float(text.removesuffix("%")) / 100
    if not 0 <= value < 10:
        raise ValueError
    return value


def positive(text):
    value = int(text)
    if value < 1:
        raise ValueError
    return value


if __name__ == "__main__":
    try:
        status = main()
    except Exception:
        traceback.print_exc()
        status = 2  # and not 1, which says that something is slower
    sys.exit(status)
