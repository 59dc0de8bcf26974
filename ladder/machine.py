"""What this process may use of the machine: cores and memory, including a container's limits."""

import math
import os
from pathlib import Path


def control_files(name):
    """Return what the files of this name say, in all cgroups (v1 and v2) that hold this process."""
    root = Path("/sys/fs/cgroup")
    folders = [root, root / "cpu", root / "memory"]  # as a container sees its own
    try:
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            own = root / controllers / path.strip("/")  # such as memory/docker/ab, and its parents
            folders += [own, *own.parents[: len(own.relative_to(root).parts)]]
        files = [folder / name for folder in dict.fromkeys(folders)]
        return [file.read_text().strip() for file in files if file.is_file()]
    except (OSError, ValueError):
        return []


def cores():
    """Return how many cores this process may use, and what limits it to them."""
    limits = [(os.cpu_count() or 1, "all")]
    if hasattr(os, "sched_getaffinity"):
        limits.append((len(os.sched_getaffinity(0)), "the CPU affinity of this process"))
    quotas = [tuple(text.split()) for text in control_files("cpu.max")]
    quotas += zip(
        control_files("cpu.cfs_quota_us"), control_files("cpu.cfs_period_us"), strict=False
    )
    for quota, period in quotas:
        if quota not in ("max", "-1"):
            limits.append((max(1, int(quota) // int(period)), "the CPU quota of this container"))
    return min(limits, key=lambda limit: limit[0])


def limit_threads():
    """If only some cores may be used, keep torch, BLAS and Numba from starting more threads.

    These would stall each other. It takes effect for what is not imported yet, and leaves alone
    what the user has set.
    """
    allowed, _ = cores()
    if allowed < (os.cpu_count() or 1):
        for library in "OMP", "MKL", "OPENBLAS", "NUMBA":
            os.environ.setdefault(f"{library}_NUM_THREADS", str(allowed))


def free_memory():
    """Return how many bytes this process can still allocate; infinity if that is not known."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        kib = next(line.split()[1] for line in lines if line.startswith("MemAvailable:"))
        resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, StopIteration):
        return math.inf
    limits = control_files("memory.max") + control_files("memory.limit_in_bytes")
    free = [int(limit) - resident for limit in limits if limit != "max"]
    return min([int(kib) * 1024, *free])


def waited():
    """Return how many seconds this process's threads, taken together, have waited for a core (Linux)."""
    total = 0
    for task in Path("/proc/self/task").glob("*/schedstat"):
        try:
            total += int(task.read_text().split()[1])
        except OSError:
            pass  # a thread that has just ended
    return total / 1e9
