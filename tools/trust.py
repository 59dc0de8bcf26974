"""How far compare.py can be trusted: commits compared with themselves, and with a slower rung.

``python tools/trust.py [WITH_ITSELF [SLOWER]]`` works on a clone in a temporary folder. It compares
the commit that is checked out with itself, and with a copy of it in which one rung takes 1.3
times as long; it prints every verdict that is wrong, and how many there are.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent
BENCHMARKS = (
    "outer or rung and 5x784x10 and (dot or elementwise or broadcast or einsum or torch "
    "or numpy or vector)"
)
SLOWED = "test_rung[matmul_broadcast-5x784x10]"
ONLY_SLOWED = "rung and 5x784x10 and broadcast"
SLOWER = """

from time import perf_counter

from rungs import FULL, RUNGS, Rung


def _slower(fn, factor):

    def slower(a, b):
        start = perf_counter()
        c = fn(a, b)
        end = start + factor * (perf_counter() - start)
        while perf_counter() < end:
            pass
        return c

    return slower


RUNGS["matmul_broadcast"] = Rung(
    "matmul_broadcast", _slower(matmul_broadcast, 1.3), (SMALL, FULL), "cpu"
)
"""


def compared(folder, base, new, benchmarks):
    """Return ``{benchmark: verdict}`` of one comparison."""
    command = [sys.executable, "compare.py", base, new, "-k", benchmarks]
    command += ["--max-time=0.1", "--mnist=sample"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode == 2:
        sys.exit(done.stderr)
    lines = [line.split() for line in done.stdout.splitlines()]
    return {words[0]: words for words in lines if words[0].startswith("test_")}


def main(with_itself=20, slower=20):
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:

        def git(*args):
            who = ["-c", "user.name=trust.py", "-c", "user.email=trust.py"]
            subprocess.run(["git", *who, *args], cwd=folder, check=True)

        git("clone", "--quiet", str(HERE), ".")
        kernels = Path(folder, "kernels.py")
        kernels.write_text(kernels.read_text(encoding="utf-8") + SLOWER, encoding="utf-8")
        git("commit", "--quiet", "--all", "-m", "One rung takes 1.3 times as long")
        wrong = unclear = verdicts = found = 0
        for n in range(1, with_itself + 1):
            for words in compared(folder, "HEAD~1", "HEAD~1", BENCHMARKS).values():
                verdicts += 1
                unclear += words[-1] == "unclear"
                if words[-1] in ("faster", "slower"):
                    wrong += 1
                    print(n, "FALSE:", *words, flush=True)
        print(
            f"with itself: {with_itself} comparisons, {verdicts} verdicts, {wrong} false, "
            f"{unclear} unclear",
            flush=True,
        )
        for n in range(1, slower + 1):
            words = compared(folder, "HEAD~1", "HEAD", ONLY_SLOWED)[SLOWED]
            found += words[-1] == "slower"
            print(n, *words, flush=True)
        print(f"1.3 times slower: {slower} comparisons, found in {found}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("with_itself", type=int, nargs="?", default=20)
    parser.add_argument("slower", type=int, nargs="?", default=20)
    main(**vars(parser.parse_args()))
