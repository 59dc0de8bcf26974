"""Whether the tests pass always: many runs of them in random order, several at a time.

``python results/soak.py [RUNS [AT_ONCE]]`` works on clones of the commit that is checked out, each with a
temporary folder of its own. It prints every run that fails, or leaves a process or a file
behind, with the seed of its order; and how many there are. Needs ``pip install
pytest-randomly==5.1.0``, and Linux or macOS.
"""

import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from queue import SimpleQueue

HERE = Path(__file__).resolve().parent.parent
PYTEST = [
    sys.executable, "-m", "pytest", "--quiet", "--mnist=sample", "--benchmark-disable",
    "-p", "no:cacheprovider",
]  # fmt: skip


def files(place):
    """What is in a clone and its temporary folder, but for bytecode and the last runs' tmp_path."""
    return {
        path.relative_to(place)
        for path in place.rglob("*")
        if not any(
            part.startswith(("__pycache__", "pytest-of-")) for part in path.parts
        )
    }


def processes(group):
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def run(places, seed):
    """Run the tests in the order of a seed; return what is wrong with that run, if anything."""
    place = places.get()
    try:
        before = files(place)
        with tempfile.TemporaryFile("w+") as output:
            tests = subprocess.Popen(
                [*PYTEST, f"--randomly-seed={seed}"],
                cwd=place / "clone",
                env=os.environ | {"TMPDIR": str(place / "tmp")},
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
            status = tests.wait()
            output.seek(0)
            text = output.read()
        wrong = []
        if status != 0:
            wrong.append(f"exit status {status}\n{text[-5000:]}")
        if processes(tests.pid):
            wrong.append("it leaves a process behind")
        wrong += [f"it leaves {path} behind" for path in files(place) - before]
        return wrong
    finally:
        places.put(place)


def main(runs=200, at_once=2):
    failed = 0
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        places = SimpleQueue()
        for n in range(at_once):
            place = Path(folder, str(n))
            (place / "tmp").mkdir(parents=True)
            clone = ["git", "clone", "--quiet", str(HERE), str(place / "clone")]
            subprocess.run(clone, check=True)
            places.put(place)
        with ThreadPoolExecutor(at_once) as pool:
            jobs = {pool.submit(run, places, seed): seed for seed in range(runs)}
            for done, job in enumerate(as_completed(jobs), 1):
                failed += bool(job.result())
                for wrong in job.result():
                    print(f"seed {jobs[job]}: {wrong}", flush=True)
                print(f"{done} of {runs} runs, {failed} failed", flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
