"""What may be used of the machine: a container's limits, by fake control files."""

import os
from math import inf, isinf
from types import SimpleNamespace

import pytest

from ladder import machine
from ladder.shape import Shape
from ladder.timing import need_memory


@pytest.fixture(autouse=True)
def container(monkeypatch, tmp_path):
    """A machine of 8 cores; its control files are in ``tmp_path``."""
    monkeypatch.setattr(os, "environ", {})
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    monkeypatch.setattr(machine, "CGROUPS", tmp_path)
    monkeypatch.setattr(machine, "OWN_CGROUPS", tmp_path / "own")
    (tmp_path / "own").write_text("4:memory:/slurm/job_1\n2:cpu,cpuacct:/slurm/job_1\n0::/a/b\n")


@pytest.mark.parametrize("files, cores, why, memory", [
    ({"cpu.max": "max 100000", "a/memory.max": "max"}, 8, "all", inf),
    ({"cpu.max": "250000 100000", "a/memory.max": 2 * 10**9}, 2, "the CPU quota", 2e9),
    ({"a/b/cpu.max": "max 10", "a/cpu.max": "5 10"}, 1, "the CPU quota", inf),
    ({"cpu/cpu.cfs_quota_us": -1, "cpu/cpu.cfs_period_us": 10}, 8, "all", inf),
    ({f"cpu,cpuacct/slurm/cpu.cfs_{x}_us": y for x, y in (("quota", 30), ("period", 10))}
     | {"memory/slurm/job_1/memory.limit_in_bytes": 2 * 10**9}, 3, "the CPU quota", 2e9),
])  # fmt: skip
def test_limits(tmp_path, files, cores, why, memory):
    without_limit = machine.free_memory()
    for path, text in files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(f"{text}\n")
    found, because = machine.cores()
    assert found == cores and because.startswith(why)
    if isinf(memory) or isinf(without_limit):  # which this platform doesn't say
        assert machine.free_memory() == pytest.approx(without_limit, rel=0.2)
        return
    with pytest.raises(pytest.skip.Exception, match=r"needs 2\.4 GB of memory, and [01]\.\d GB"):
        need_memory(Shape(500_000, 784, 10))


def test_threads_follow_the_affinity(monkeypatch):
    machine.limit_threads(8)
    assert machine.settings() == {}  # all cores: each library knows best
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {2, 5})
    monkeypatch.setenv("MKL_NUM_THREADS", "1")
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "")  # empty is not set
    assert machine.cores() == (2, "the CPU affinity of this process")
    machine.limit_threads(2)
    names = [f"{name}_NUM_THREADS" for name in ("MKL", "NUMBA", "OMP", "OPENBLAS")]
    assert machine.settings() == dict(zip(names, "1222", strict=True))


def test_a_variable_that_differs_is_named_and_not_shown(monkeypatch):
    before = machine.fingerprints()
    monkeypatch.setenv("TOKEN", "a secret")
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "default")
    after = machine.fingerprints()
    assert set(after) - set(before) == {"TOKEN", "ATEN_CPU_CAPABILITY"}
    assert "secret" not in str(after)
    assert machine.settings() == {"ATEN_CPU_CAPABILITY": "default"}


@pytest.mark.parametrize("waits, share", [
    ([{}, {}], 0), ([{1: 5.0}, {1: 5.5, 2: 9.0}], 0.5), ([{1: 5.0}, {1: 7.0}], 1),
])  # fmt: skip
def test_a_wait_is_no_longer_than_the_time(monkeypatch, waits, share):
    """Nor is that counted which a thread waited before it was looked at."""
    seconds, clock = iter(waits), iter([10.0, 11.0])
    monkeypatch.setattr(machine.Waiting, "seconds", staticmethod(lambda: next(seconds)))
    monkeypatch.setattr(machine, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    assert machine.Waiting().share() == share
