"""What this process may use of the machine: cores and memory, including a container's limits."""

import hashlib
import math
import os
import time
from contextlib import suppress
from pathlib import Path

# Variables of the environment that change what libraries do; their values are shown and saved.
PREFIXES = (
    *("ATEN_", "BLIS_", "CUBLAS_", "CUDA_", "CUDNN_", "GOMP_", "KMP_", "LD_PRELOAD", "MALLOC_"),
    *("GLIBC_TUNABLES", "MKL_", "NPY_", "NUMBA_", "NVIDIA_TF32", "OMP_", "OPENBLAS_"),
    *("PYTHONMALLOC", "PYTORCH_", "TBB_", "TORCH_", "TRITON_", "VECLIB_"),
)
CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUPS = Path("/proc/self/cgroup")
MEMORY = Path("/proc/meminfo")


def cgroup_folders():
    """Return the folders of all control groups (v1 and v2) that hold this process."""
    folders = {CGROUPS, CGROUPS / "cpu", CGROUPS / "memory"}  # as a container sees its own
    with suppress(OSError):
        for line in OWN_CGROUPS.read_text().splitlines():  # 4:memory:/slurm/job_1, or 0::/job_1
            _, controllers, path = line.split(":", 2)
            own = CGROUPS / controllers / path.strip("/")
            folders |= {folder for folder in (own, *own.parents) if CGROUPS in folder.parents}
    return folders


def read_words(file):
    """Return the words in a file; none if it can't be read."""
    with suppress(OSError):
        return file.read_text().split()
    return []


def cores():
    """Return how many cores this process may use, and why.

    Ask before torch is imported: with OpenMP's binding variables, torch narrows the affinity.
    """
    limits = [(os.cpu_count() or 1, "all")]
    if hasattr(os, "sched_getaffinity"):
        limits.append((len(os.sched_getaffinity(0)), "the CPU affinity of this process"))
    for folder in cgroup_folders():
        version_1 = read_words(folder / "cpu.cfs_quota_us") + read_words(
            folder / "cpu.cfs_period_us"
        )
        for quota_and_period in read_words(folder / "cpu.max"), version_1:
            if len(quota_and_period) == 2 and quota_and_period[0] not in ("max", "-1"):
                quota, period = map(int, quota_and_period)
                limits.append((max(1, quota // period), "the CPU quota of this container"))
    return min(limits, key=lambda limit: limit[0])


def limit_threads(allowed):
    """Keep libraries that are not imported yet from more threads than cores; what is set stays."""
    if allowed < (os.cpu_count() or 1):
        for library in "OMP", "MKL", "OPENBLAS", "NUMBA":
            os.environ.setdefault(f"{library}_NUM_THREADS", str(allowed))


def settings():
    """Return ``{name: value}`` of the environment variables that libraries look at."""
    names = [name for name in sorted(os.environ) if name.startswith(PREFIXES)]
    return {name: os.environ[name] for name in names if os.environ[name]}


def fingerprints():
    """Return ``{name: fingerprint of its value}`` of all environment variables.

    They show which variables differ between two runs, and not what is in them: that may be secret.
    """
    return {
        name: hashlib.sha256(f"{name}={value}".encode(errors="replace")).hexdigest()[:8]
        for name, value in sorted(os.environ.items())
    }


def free_memory():
    """Return how many bytes this process can still allocate; infinity if that is not known."""
    facts = {}
    with suppress(OSError):
        for line in MEMORY.read_text().splitlines():
            name, _, value = line.partition(":")
            facts[name] = value.split()
    if "MemAvailable" not in facts:
        return math.inf
    free = [int(facts["MemAvailable"][0]) * 1024]
    with suppress(OSError, IndexError):
        pages = int(read_words(Path("/proc/self/statm"))[1])
        resident = pages * os.sysconf("SC_PAGE_SIZE")
        for folder in cgroup_folders():
            for name in "memory.max", "memory.limit_in_bytes":
                limits = [word for word in read_words(folder / name) if word != "max"]
                free += [int(limit) - resident for limit in limits]
    return min(free)


class Waiting:
    """Notes, from when it is made on, how long the threads of this process wait for a core (Linux)."""

    def __init__(self):
        self.before, self.start = self.seconds(), time.perf_counter()

    @staticmethod
    def seconds():
        """Return ``{thread: how many seconds it has waited}``."""
        found = {}
        for thread in Path("/proc/self/task").glob("*/schedstat"):
            words = read_words(thread)  # none of a thread that has just ended
            if len(words) > 1:
                found[thread] = int(words[1]) / 1e9
        return found

    def share(self):
        """Return the largest share of the time since then that a thread waited, from 0 to 1.

        A wait that began earlier is counted when it ends, so it may seem longer than the time.
        """
        elapsed = time.perf_counter() - self.start
        waits = [
            seconds - self.before[thread]
            for thread, seconds in self.seconds().items()
            if thread in self.before
        ]
        return min(1.0, max(waits, default=0.0) / elapsed)
