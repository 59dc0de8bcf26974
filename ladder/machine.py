"""What this process may use of the machine: cores and memory, including a container's limits."""

import math
import os
from contextlib import suppress
from pathlib import Path

PREFIXES = "NUMBA_", "OMP_", "KMP_", "GOMP_", "MKL_", "OPENBLAS_", "TORCH_", "PYTORCH_", "CUDA_"
CGROUPS, OWN = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def control_files(name):
    """Return what the files of this name say, in all cgroups (v1 and v2) that hold this process."""
    folders = {CGROUPS, CGROUPS / "cpu", CGROUPS / "memory"}  # as a container sees its own
    with suppress(OSError):
        for line in OWN.read_text().splitlines():  # such as 4:memory:/slurm/job_1, or 0::/job_1
            _, controllers, path = line.split(":", 2)
            own = CGROUPS / controllers / path.strip("/")
            folders |= {x for x in (own, *own.parents) if CGROUPS in x.parents}
    files = [folder / name for folder in folders]
    return [file.read_text().strip() for file in files if os.access(file, os.R_OK)]


def cores():
    """Return how many cores this process may use, and why; with OpenMP's binding variables, torch
    narrows the affinity when it is imported, so ask before."""
    limits = [(os.cpu_count() or 1, "all")]
    if hasattr(os, "sched_getaffinity"):
        limits.append((len(os.sched_getaffinity(0)), "the CPU affinity of this process"))
    v1 = zip(control_files("cpu.cfs_quota_us"), control_files("cpu.cfs_period_us"), strict=False)
    for quota, period in [*map(str.split, control_files("cpu.max")), *v1]:
        if quota not in ("max", "-1"):
            limits.append((max(1, int(quota) // int(period)), "the CPU quota of this container"))
    return min(limits, key=lambda limit: limit[0])


def settings():
    """Return ``{name: value}`` of the environment variables that change what is measured."""
    return {n: v for n, v in sorted(os.environ.items()) if n.startswith(PREFIXES) and v}


def limit_threads(allowed):
    """Keep libraries that are not imported yet from more threads than cores; what is set stays."""
    if allowed < (os.cpu_count() or 1):
        for library in "OMP", "MKL", "OPENBLAS", "NUMBA":
            os.environ.setdefault(f"{library}_NUM_THREADS", str(allowed))


def free_memory():
    """Return how many bytes this process can still allocate; infinity if that is not known."""
    try:
        facts = dict(x.split()[:2] for x in Path("/proc/meminfo").read_text().splitlines())
        resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return math.inf
    limits = control_files("memory.max") + control_files("memory.limit_in_bytes")
    free = int(facts["MemAvailable:"]) * 1024
    return min(free, *(int(x) - resident for x in limits if x != "max"), math.inf)


def waited():
    """Return how many seconds each thread of this process has waited for a core (Linux)."""
    seconds = {}
    for thread in Path("/proc/self/task").glob("*/schedstat"):
        with suppress(OSError):  # a thread that has just ended
            seconds[thread] = int(thread.read_text().split()[1]) / 1e9
    return seconds
