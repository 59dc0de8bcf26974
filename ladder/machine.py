"""What this process may use of the machine: cores and memory, including a container's limits."""

import math
import os
from pathlib import Path

LIBRARIES = "NUMBA_", "OMP_", "KMP_", "GOMP_", "MKL_", "OPENBLAS_", "TORCH_", "PYTORCH_", "CUDA_"


def control_files(name):
    """Return what the files of this name say, in all cgroups (v1 and v2) that hold this process."""
    root = Path("/sys/fs/cgroup")
    folders = [root, root / "cpu", root / "memory"]  # as a container sees its own
    try:
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            own = root / controllers / path.strip("/")  # such as memory/docker/ab, and its parents
            folders += [own, *own.parents[: len(own.relative_to(root).parts)]]
        files = dict.fromkeys(folder / name for folder in folders)
        return [file.read_text().strip() for file in files if file.is_file()]
    except (OSError, ValueError):
        return []


def cores():
    """Return how many cores this process may use, and why; with OpenMP's binding variables, torch
    narrows the affinity when it is imported, so ask before."""
    limits = [(os.cpu_count() or 1, "all")]
    if hasattr(os, "sched_getaffinity"):
        limits.append((len(os.sched_getaffinity(0)), "the CPU affinity of this process"))
    v1 = control_files("cpu.cfs_quota_us"), control_files("cpu.cfs_period_us")
    for quota, period in [*map(str.split, control_files("cpu.max")), *zip(*v1, strict=False)]:
        if quota not in ("max", "-1"):
            limits.append((max(1, int(quota) // int(period)), "the CPU quota of this container"))
    return min(limits, key=lambda limit: limit[0])


def settings():
    """Return ``{name: value}`` of the environment variables that change what is measured."""
    return {n: v for n, v in sorted(os.environ.items()) if n.startswith(LIBRARIES) and v}


def limit_threads(allowed):
    """Keep libraries that are not imported yet from more threads than cores; what is set stays."""
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
    return min(int(kib) * 1024, *(int(x) - resident for x in limits if x != "max"), math.inf)


def waited():
    """Return the seconds that this process's threads, together, have waited for a core (Linux)."""
    total = 0
    for task in Path("/proc/self/task").glob("*/schedstat"):
        try:
            total += int(task.read_text().split()[1])
        except OSError:
            pass  # a thread that has just ended
    return total / 1e9
