"""Whether the tests pass always: many runs of them in random order, several at a time.

It works on clones of the commit that is checked out, each with a temporary folder of its own. A
run fails if a test does, if it doesn't end, or if it leaves a process of its group or a file
behind; the seed of its order is printed. The exit status is 1 if any run failed. For Linux and macOS.
"""

import argparse
import os
import random
import subprocess
import sys
import tempfile
from contextlib import closing
from itertools import groupby

from clones import HERE, RUNNING, TESTS, clones, each, kill, stop_at_sigterm

KEPT = "__pycache__", "pytest-of-", ".benchmarks", ".hypothesis"
SECONDS = 1800


def pytest_collection_modifyitems(items):
    """Shuffle the files, and the tests of each, when this module is pytest's plugin."""
    order = random.Random(int(os.environ["SOAK_SEED"]))
    modules = [list(tests) for _, tests in groupby(items, lambda item: item.path)]
    order.shuffle(modules)
    for tests in modules:
        order.shuffle(tests)
    items[:] = sum(modules, [])


def files(place):
    """What is in a clone and its temporary folder, but for what pytest and its plugins keep."""
    return {
        path.relative_to(place)
        for path in place.rglob("*")
        if not any(part.startswith(KEPT) for part in path.parts)
    }


def run(folders, seed):
    """Run the tests in the order of a seed; return what is wrong with that run, if anything."""
    place = folders.get()
    (place / "tmp").mkdir(exist_ok=True)
    own = {"TMPDIR": place / "tmp", "PYTHONPATH": HERE / "results", "SOAK_SEED": seed}
    env = os.environ | {name: str(value) for name, value in own.items()}
    before, wrong = files(place), []
    try:
        with tempfile.TemporaryFile("w+", errors="replace") as output:
            tests = subprocess.Popen(
                [sys.executable, "-m", "pytest", *TESTS, "-p", "soak"],
                cwd=place / "clone", env=env, stdout=output, stderr=output,
                start_new_session=True,
            )  # fmt: skip
            RUNNING.add(tests.pid)
            try:
                status = tests.wait(SECONDS)
            except subprocess.TimeoutExpired:
                status = f"none after {SECONDS} s"
            if status != 0:
                output.seek(0)
                wrong.append(f"exit status {status}\n{output.read()[-5000:]}")
            if kill(tests.pid):
                wrong.append("it leaves a process behind")
            tests.wait()
            RUNNING.discard(tests.pid)
        return wrong + [f"it leaves {path} behind" for path in files(place) - before]
    finally:
        folders.put(place)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=int, nargs="?", default=200)
    parser.add_argument("--at-once", type=int, default=2, help="(default: 2)")
    parser.add_argument("--first-seed", type=int, default=0, help="(default: 0)")
    args = parser.parse_args()
    if args.runs < 1 or args.at_once < 1:
        parser.error("there is at least one run, and one at once")
    seeds, failed = range(args.first_seed, args.first_seed + args.runs), 0
    with clones(args.at_once) as folders:
        runs = each(seeds, lambda seed: run(folders, seed), args.at_once)
        with closing(runs):
            for done, (seed, wrongs) in enumerate(runs, 1):
                failed += bool(wrongs)
                for wrong in wrongs:
                    print(f"seed {seed}: {wrong}", flush=True)
                print(f"{done} of {args.runs} runs, {failed} failed", flush=True)
    return failed > 0


if __name__ == "__main__":
    stop_at_sigterm()
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("stopped")
