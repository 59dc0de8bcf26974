"""Saved runs for the tests of what reads them: of a machine that reads 40 GB/s, does 200 GFLOP/s,
and takes 1 µs for a call."""

import copy
import json

from ladder.shape import FULL, SMALL

RUNGS = {  # name: (device, chapter, before, the notebook's times)
    "loops": ("cpu", "the course", None, {SMALL: 0.416}),
    "dot": ("cpu", "the course", "loops", {}),
    "broadcast": ("cpu", "the course", "dot", {SMALL: 72.4e-6, FULL: 0.673}),
    "torch": ("cpu", "the course", "broadcast", {FULL: 15.5e-3}),
    "cublas": ("cuda", "the course, on the GPU", None, {FULL: 429e-6}),
    "tile": ("cpu", "beyond the course", None, {}),
    "last": ("cpu", "beyond the course", "tile", {}),
}


def bench(rung, shape, median, group=None, iqr=0.0, rounds=9, shortest=None, **info):
    """Return a saved benchmark of a rung."""
    stats = {"min": shortest or median, "median": median, "iqr": iqr, "rounds": rounds}
    extra = {"rung": rung, "shape": str(shape), "waited": 0.0} | info
    name = f"test_rung[{rung}-{shape}]"
    return {
        "group": group or f"matmul {shape}",
        "name": name,
        "fullname": f"test_matmul.py::{name}",
        "stats": stats,
        "extra_info": extra,
        "options": {"timer": "perf_counter"},
    }


def limit(kind, way, work, shortest=1e-3, device="cpu"):
    """Return a saved benchmark of a limit: its median is no matter."""
    stats = {"min": shortest, "median": 50 * shortest, "iqr": shortest, "rounds": 9}
    info = {"limit": kind, "device": device, "way": way, "work": work, "waited": 0.0}
    return {"group": "limit", "name": way, "stats": stats, "extra_info": info}


LIMITS = [
    limit("memory", "sum", 30e6),
    limit("memory", "max", 40e6),
    limit("arithmetic", "registers", 200e6),
    limit("call", "torch of 1x1x1", 1, 1e-6),
]
BENCHMARKS = [
    bench("last", FULL, 5e-3, iqr=1e-3),
    bench("torch", FULL, 30e-3),
    bench("tile", FULL, 5.2e-3, iqr=1e-3),
    bench("broadcast", FULL, 0.8),
    bench("dot", SMALL, 50e-6),
    bench("loops", SMALL, 0.4, rounds=1, torch_calls=431_201),
    bench("broadcast", SMALL, 80e-6),
    bench("torch", SMALL, 8e-6, torch_calls=1),
    bench("last", SMALL, 4e-6, same_as="tile"),
    bench("last", SMALL, 5e-7, group="rows", waited=1),
]


def saved(benchmarks=BENCHMARKS, limits=LIMITS, untimed=(), **about):
    """Return a saved run, a dict of its own."""
    rungs = {
        name: {
            "device": device,
            "chapter": chapter,
            "sentence": f"{name} is new.",
            "source": f"def {name}(a, b):\n    return a @ b\n",
            "course": {str(shape): seconds for shape, seconds in course.items()},
            "yardstick": name in ("torch", "cublas"),
            "before": before,
        }
        for name, (device, chapter, before, course) in RUNGS.items()
    }
    facts = {"simd": "256-bit SIMD", "settings": {"NUMBA_OPT": "0"}, "data": "x.gz"}
    cpu = {"brand_raw": "A CPU", "family": 25, "model": 1}
    return copy.deepcopy(
        {
            "benchmarks": [*benchmarks, *limits],
            "ladder": {"rungs": rungs, "untimed": list(untimed), **facts, **about},
            "machine_info": {"cpu": cpu, "system": "Linux", "python_version": "3.11.7"},
            "commit_info": {"id": "0123456789abcdef", "dirty": False},
            "datetime": "2026-01-02T03:04:05",
        }
    )


def write(path, run):
    path.write_text(json.dumps(run))
    return path
