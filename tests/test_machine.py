"""What may be used of the machine: a container's limits, by fake control files."""

import math
import os
import subprocess
import sys

import pytest

from ladder import machine
from ladder.timing import need_memory


@pytest.fixture
def container(monkeypatch):
    """``container(name=text)`` sets what the control files say, on a machine of 8 cores."""
    for variable in [*machine.settings()]:
        monkeypatch.delenv(variable)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)

    def container(**files):
        files = {name.replace("__", "."): [text] for name, text in files.items()}
        monkeypatch.setattr(machine, "control_files", lambda name: files.get(name, []))

    container()
    return container


@pytest.mark.parametrize(
    "files, count, why",
    [
        ({}, 8, "all"),
        ({"cpu__max": "max 100000"}, 8, "all"),
        ({"cpu__max": "250000 100000"}, 2, "the CPU quota"),
        ({"cpu__max": "50000 100000"}, 1, "the CPU quota"),
        ({"cpu__cfs_quota_us": "-1", "cpu__cfs_period_us": "100000"}, 8, "all"),
        ({"cpu__cfs_quota_us": "300000", "cpu__cfs_period_us": "100000"}, 3, "the CPU quota"),
    ],
)
def test_cores(container, files, count, why):
    container(**files)
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
@pytest.mark.parametrize("name", ["memory__max", "memory__limit_in_bytes"])
def test_free_memory(container, name):
    without_limit = machine.free_memory()
    container(**{name: "max" if name == "memory__max" else str(2**63)})
    assert machine.free_memory() == pytest.approx(without_limit, rel=0.2)
    container(**{name: str(2 * 10**9)})
    assert machine.free_memory() < 2e9
    with pytest.raises(pytest.skip.Exception, match=r"needs 2\.0 GB of memory, and [01]\.\d GB"):
        need_memory(2e9)


@pytest.mark.skipif(not machine.waited(), reason="this platform doesn't say")
def test_waited():
    """Two processes on two cores or fewer."""
    before = machine.waited()
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(4)]
    sum(range(20_000_000))
    for other in others:
        other.kill()
        other.wait()
    assert machine.waited() > before
