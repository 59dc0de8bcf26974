"""What mutation.py and soak.py share: work on clones of this commit, several at a time."""

import os
import signal
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import SimpleQueue

HERE = Path(__file__).resolve().parent.parent
TESTS = "--quiet --mnist=sample --benchmark-disable -p no:cacheprovider -p no:randomly".split()
RUNNING = set()  # the groups of processes that have to be gone when all is done


@contextmanager
def clones(count):
    """Lend folders, each with nothing in it but a clone: get one from the queue, and put it back."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary:
        folders = SimpleQueue()
        for n in range(count):
            folder = Path(temporary, str(n))
            clone = ["git", "clone", "--quiet", str(HERE), str(folder / "clone")]
            subprocess.run(clone, check=True)
            folders.put(folder)
        yield folders


def kill(group):
    """Kill a group of processes; return whether there was any."""
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)
        return True
    return False


def each(items, work, at_once):
    """Yield ``(item, work(item))`` as they are done; at Ctrl-C or an error, kill what still runs."""
    pool = ThreadPoolExecutor(at_once)
    try:
        jobs = {pool.submit(work, item): item for item in items}
        for job in as_completed(jobs):
            yield jobs[job], job.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for group in list(RUNNING):
            kill(group)
        pool.shutdown()


def stop_at_sigterm():
    """Let SIGTERM do what Ctrl-C does."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
