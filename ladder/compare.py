"""Compare two commits, and don't be fooled by noise.

``python -m ladder compare BASE [NEW]`` runs the benchmarks of both commits in processes of their
own, in the order A B B A, and says of each whether it is faster, slower, the same, or unclear.
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

from ladder.mnist import path_gz
from ladder.text import aligned, encodable, seconds, times

WORDS = "same", "unclear", "faster", "slower"
BLOCK = 4  # processes of each side, after which those benchmarks go on that are unclear
CONFIRMED = 2 * BLOCK  # processes of each side, before anything is called faster or slower


@dataclass
class Side:
    """One of the two commits: where it is checked out, and what its processes have measured."""

    name: str
    commit: str
    folder: Path
    times: dict = field(default_factory=dict)  # {benchmark: [shortest round in s, by process]}


def judge(base, new, threshold):
    """Return a word for two lists of times, and how many times faster new is, at least and at most.
    The interval spans every process of one side over every process of the other, except for the
    slowest quarter, which something else may have disturbed. Faster and slower mean that all of
    it is beyond the ``threshold`` (0.05 is 5%), on enough processes; the same, that all is within."""
    enough = min(len(base), len(new)) >= CONFIRMED
    base, new = without_slowest(base), without_slowest(new)
    low, high = min(base) / max(new), max(base) / min(new)
    edge = 1 + threshold
    if low >= 1 / edge and high <= edge and min(len(base), len(new)) > 1:
        return "same", low, high
    if enough and low > edge:
        return "faster", low, high
    if enough and high < 1 / edge:
        return "slower", low, high
    return "unclear", low, high


def without_slowest(times):
    """Return the times without the slowest quarter, which is at least one, if there are more."""
    dropped = max(1, len(times) // 4)
    return sorted(times)[: max(1, len(times) - dropped)]


# ---- git ---------------------------------------------------------------------------


def git(*args):
    try:
        done = subprocess.run(["git", *args], capture_output=True, text=True, errors="replace")
    except FileNotFoundError:
        raise ValueError("git is not installed, which checks the commits out") from None
    if done.returncode:
        said = done.stderr.strip() or "it said nothing"
        raise ValueError(f"git {' '.join(args)}: status {done.returncode}: {said}")
    return done.stdout.strip()


def untracked_code():
    """Return the Python files that git doesn't know, but for those of virtual environments."""
    found = []
    environments = {Path(x).parent for x in untracked("pyvenv.cfg")}
    for name in untracked("*.py"):
        if not environments & set(Path(name).parents):
            found.append(name)
    return found


def untracked(pattern):
    listed = git("ls-files", "--others", "--exclude-standard", "--", pattern, f"**/{pattern}")
    return listed.splitlines()


def commit_of(revision):
    """Return the id of the commit that a user's word means; None means the working tree."""
    if revision:
        return git("rev-list", "-1", "--end-of-options", revision, "--")
    if missing := untracked_code():
        names = ", ".join(missing[:5]) + (f" and {len(missing) - 5} more" if missing[5:] else "")
        tell(f"left out, as git doesn't know them yet (git add takes them in): {names}")
    who = "-c", "user.name=compare", "-c", "user.email=compare"
    return git(*who, "stash", "create") or commit_of("HEAD")


@contextmanager
def checked_out(base, new):
    """Yield the two sides, each in a git worktree that is gone afterwards."""
    names = f"base ({base})", f"new ({new or 'working tree'})"
    try:
        prefix = git("rev-parse", "--show-prefix")
    except ValueError as error:
        raise ValueError(f"this is no git checkout, which holds the commits: {error}") from None
    commits = commit_of(base), commit_of(new)
    with tempfile.TemporaryDirectory(prefix="compare-", ignore_cleanup_errors=True) as scratch:
        folders = [Path(scratch).resolve() / side for side in ("base", "new")]
        try:
            for folder, commit in zip(folders, commits, strict=True):
                git("worktree", "add", "--quiet", "--detach", str(folder), commit)
            yield list(map(Side, names, commits, [folder / prefix for folder in folders]))
        finally:
            for folder in folders:
                if folder.exists():
                    git("worktree", "remove", "--force", str(folder))


# ---- Runs --------------------------------------------------------------------------


def run(side, args, only):
    """Run a side's benchmarks in a process of its own, and note what it measured: those with the
    full names ``only``, or else those of ``-k``."""
    saved, storage = side.folder / "compare.json", Path(".benchmarks").resolve()
    command = [sys.executable, *"-m pytest -q --color=no --benchmark-only".split()]
    command += "-p no:randomly -p no:cacheprovider".split()
    command += [f"--mnist={args.mnist}", *(f"--shape={shape}" for shape in args.shape)]
    command += [f"--benchmark-json={saved}", f"--benchmark-storage=file://{storage}"]
    command += [f"--benchmark-save=compare-{side.commit[:8]}"]
    command += only or (["-k", args.k] if args.k else [])
    done = subprocess.run(
        command, cwd=side.folder, env=os.environ | {"PYTEST_ADDOPTS": ""}, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
    )  # fmt: skip
    if done.returncode not in (0, 5):  # 5: no tests
        last = "\n".join(done.stdout.splitlines()[-25:])
        raise ValueError(f"the suite fails in {side.name}, status {done.returncode}:\n{last}")
    text = saved.read_text(encoding="utf-8") if saved.exists() else ""
    for bench in json.loads(text)["benchmarks"] if text else []:
        side.times.setdefault(bench["fullname"], []).append(bench["stats"]["min"])
    saved.unlink(missing_ok=True)


def verdicts(sides, args):
    """Return ``{benchmark: (word, low, high)}`` of what both sides have."""
    base, new = (side.times for side in sides)
    return {x: judge(base[x], new[x], args.threshold / 100) for x in base if x in new}


def compare(sides, args):
    """Run both sides in turns until no benchmark is unclear, or all have had their processes."""
    (base, new), only, start = sides, [], time.monotonic()
    for done in range(BLOCK, args.max_runs + 1, BLOCK):
        for side in (base, new, new, base) * (BLOCK // 2):
            run(side, args, only)
            if not base.times:
                raise ValueError(f"no benchmark ran: -k {args.k!r} selects none")
            if not new.times:
                each = 2 * (time.monotonic() - start)
                least, most = each * BLOCK, each * args.max_runs
                tell(f"benchmarks: {len(base.times)}; {least:.0f} s, or {most:.0f} s if unclear")
        if not (found := verdicts(sides, args)):
            raise ValueError("no benchmark is in both commits")
        only = [name for name, (word, *_) in found.items() if word == "unclear"]
        tell(f"{done} processes of each side: {len(only)} of {len(found)} are unclear")
        if not only:
            return


def tell(text):
    print(text, file=sys.stderr, flush=True)


def table(sides, found):
    """Yield the lines of the result, the slower ones last, where they are seen."""
    base, new = (side.times for side in sides)
    rows = [("benchmark", "base", "new", "speed", "worst case", "best case", "verdict")]
    for name, (word, *interval) in sorted(found.items(), key=lambda x: WORDS.index(x[1][0])):
        old, now = median(base[name]), median(new[name])
        speeds = map(times, (old / now, *interval))
        rows.append((name.rpartition("::")[2], seconds(old), seconds(now), *speeds, word))
    yield from aligned(rows)
    for side in sides if base and new else ():
        for name in sorted(side.times.keys() - found):
            yield f"{name.rpartition('::')[2]}: only in {side.name}"
    yield "×2 is twice as fast as base, ÷2 half as fast"
    words = [word for word, *_ in found.values()]
    yield ", ".join(f"{words.count(word)} {word}" for word in WORDS)


def main(argv):
    about = __doc__.partition("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m ladder compare", description=about)
    add = parser.add_argument
    add("base", metavar="BASE", help="the commit to compare with")
    add("new", metavar="NEW", nargs="?", help="the new commit (default: the working tree)")
    add("-k", metavar="EXPR", help="which benchmarks, as for pytest")
    add("--shape", metavar="MxKxN", action="append", default=[], help="as for pytest")
    data = str(path_gz) if path_gz.exists() else "sample"
    add("--mnist", metavar="PATH", default=data, help="the data: a path, or sample")
    add("--threshold", metavar="%", type=float, default=5, help="what is no difference yet (5)")
    add("--max-runs", type=int, default=16, help="processes of each side if unclear (16)")
    args = parser.parse_args(argv)
    args.max_runs = max(2 * BLOCK, -(-args.max_runs // BLOCK) * BLOCK)
    args.mnist = args.mnist if args.mnist == "sample" else str(Path(args.mnist).resolve())
    for name in {"SIGTERM", "SIGHUP"} & {*dir(signal)}:
        signal.signal(getattr(signal, name), signal.default_int_handler)
    with checked_out(args.base, args.new) as sides:
        status = 2
        try:
            compare(sides, args)
            status = 0
        except KeyboardInterrupt:
            tell("stopped: this is what there is so far")
        found = verdicts(sides, args)
        for line in table(sides, found):
            print(encodable(line, sys.stdout.encoding))
    return status or int(any(word == "slower" for word, *_ in found.values()))
