"""What may be used of the machine: a container's limits, by fake control files."""

import math
import os
import subprocess
import sys

import pytest

from ladder import machine
from ladder.timing import need_memory


@pytest.fixture
def container(monkeypatch, tmp_path):
    """``container(path, text)`` writes a control file, on a machine of 8 cores."""
    for variable in machine.settings():
        monkeypatch.delenv(variable)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    monkeypatch.setattr(machine, "CGROUPS", tmp_path)
    monkeypatch.setattr(machine, "OWN", tmp_path / "own")
    (tmp_path / "own").write_text("4:memory:/slurm/job_1\n2:cpu,cpuacct:/slurm/job_1\n0::/a/b\n")

    def container(path, text):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(f"{text}\n")

    return container


@pytest.mark.parametrize(
    "files, count, why",
    [
        ({}, 8, "all"),
        ({"cpu.max": "max 100000"}, 8, "all"),
        ({"cpu.max": "250000 100000"}, 2, "the CPU quota"),
        ({"a/b/cpu.max": "max 100000", "a/cpu.max": "50000 100000"}, 1, "the CPU quota"),
        ({"cpu/cpu.cfs_quota_us": -1, "cpu/cpu.cfs_period_us": 100_000}, 8, "all"),
        (
            {f"cpu,cpuacct/slurm/cpu.cfs_{x}_us": y for x, y in (("quota", 30), ("period", 10))},
            3,
            "the CPU quota",
        ),
    ],
)
def test_cores(container, files, count, why):
    for path, text in files.items():
        container(path, text)
    found, because = machine.cores()
    assert found == count and because.startswith(why)


def test_threads_follow_the_affinity(container, monkeypatch):
    machine.limit_threads(8)
    assert machine.settings() == {}  # all cores: each library knows best
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {2, 5})
    monkeypatch.setenv("MKL_NUM_THREADS", "1")
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "")  # empty is not set
    assert machine.cores() == (2, "the CPU affinity of this process")
    machine.limit_threads(2)
    names = [f"{name}_NUM_THREADS" for name in ("MKL", "NUMBA", "OMP", "OPENBLAS")]
    assert machine.settings() == dict(zip(names, "1222", strict=True))


@pytest.mark.skipif(math.isinf(machine.free_memory()), reason="this platform doesn't say")
@pytest.mark.parametrize("path, none", [
    ("a/memory.max", "max"), ("memory/slurm/job_1/memory.limit_in_bytes", 2**63),
])  # fmt: skip
def test_free_memory(container, path, none):
    without_limit = machine.free_memory()
    container(path, none)
    assert machine.free_memory() == pytest.approx(without_limit, rel=0.2)
    container(path, 2 * 10**9)
    assert machine.free_memory() < 2e9
    with pytest.raises(pytest.skip.Exception, match=r"needs 2\.4 GB of memory, and [01]\.\d GB"):
        need_memory(500_000, 784, 10)


@pytest.mark.skipif(not machine.waited(), reason="this platform doesn't say")
def test_waited():
    """Five processes take turns on two cores."""
    before = machine.waited()
    others = [subprocess.Popen([sys.executable, "-c", "sum(range(10**7))"]) for _ in range(4)]
    while any(other.poll() is None for other in others):
        sum(range(10_000))
    assert machine.waited() > before
