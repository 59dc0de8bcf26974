"""What tables and pictures say of a run, and what they don't claim."""

import copy
import json
import subprocess
import sys
from pathlib import Path

import pytest

from ladder import tables
from ladder.figures import draw_run
from ladder.result import Run
from ladder.rungs import FULL, SMALL

ROOT = Path(__file__).parent.parent


def rung(order, name, shape, median, iqr=0.0, rounds=5, group="matmul {}", **info):
    m, k, n = map(int, shape.split("x"))
    info = {"device": "cpu", "chapter": "the course", "new": f"{name} is new."} | info
    info |= {"rung": name, "shape": shape, "order": order, "flops": 2 * m * k * n}
    info["bytes"] = 4 * (m * k + k * n + m * n)
    stats = {"median": median, "iqr": iqr, "rounds": rounds, "min": median}
    return {"name": name, "group": group.format(shape), "stats": stats, "extra_info": info}


def limit(way, kind, work, device="cpu"):
    info = {"limit": kind, "device": device, "work": work}
    name = f"test_limit[{way}]"
    return {
        "name": name,
        "group": "limit",
        "stats": {"median": 1e-3, "iqr": 0, "rounds": 9},
        "extra_info": info,
    }


BEYOND = {"chapter": "beyond the course"}
GPU = {"chapter": "the course, on the GPU", "device": "cuda"}
BENCHES = [  # a CPU that reads 40 GB/s and does 200 GFLOP/s, and a GPU; out of order
    rung(7, "matmul_last", FULL, 5e-3, iqr=1e-3, **BEYOND),
    rung(2, "matmul_torch", FULL, 30e-3, course=15.5e-3, before="matmul_dot"),
    rung(6, "matmul_next", FULL, 5.2e-3, iqr=1e-3, before="matmul_torch", **BEYOND),
    rung(1, "matmul_dot", SMALL, 50e-6, before="matmul_loops"),
    rung(0, "matmul_loops", SMALL, 0.4, rounds=1, course=0.416, calls=431_201),
    rung(2, "matmul_torch", SMALL, 8e-6, before="matmul_skipped", calls=1),
    rung(3, "matmul_cuda", FULL, 100e-6, **GPU),
    rung(7, "matmul_last", FULL, 5e-3, iqr=1e-3, group="rows"),
    rung(7, "matmul_last", SMALL, 5e-7, group="rows"),
    *(limit("sum", "bytes", 30e6), limit("max", "bytes", 40e6), limit("@", "flops", 200e6)),
    *(limit("sum", "bytes", 4e9, "cuda"), limit("@", "flops", 60e9, "cuda")),
    {"name": "test_randn", "group": "", "stats": {"median": 2e-5}, "extra_info": {"course": 9e-5}},
]
SKIPS = [
    rung(4, name, SMALL, 0)["extra_info"] | {"reason": "no GPU"}
    for name in ("matmul_x", "matmul_y")
]
INFO = {"cpu": {"brand_raw": "A CPU", "family": 25, "model": 1}, "system": "Linux"}


@pytest.fixture
def saved():
    machine = INFO | {"python_version": "3.11"}
    suite = {"simd": "256-bit SIMD", "settings": {"NUMBA_OPT": "0"}, "data": "x.gz"}
    saved = {"benchmarks": BENCHES, "skipped": SKIPS, "machine_info": machine, "suite": suite}
    return copy.deepcopy(saved | {"datetime": "2026-01-02T03:04:05"})


def words(run, columns=200):
    """Return ``{first word: the other words}`` of each line, by shape."""
    lines = [line.split() for line, _ in tables.report(run, columns) if line]
    return {(line[0], line[1]): line[1:] for line in lines if len(line) > 1}


def test_table(saved):
    """Each number says what it is: marks stand wherever a doubtful time goes."""
    text = "\n".join(line for line, _ in tables.report(Run(saved), 200))
    found = words(Run(saved))
    assert found["matmul_loops", "400"][:4] == ["400", "ms*", "416", "ms"]
    assert "÷50,000*" in found["matmul_loops", "400"] and "431,201" in found["matmul_loops", "400"]
    assert "×8,000*" in found["matmul_dot", "50.0"]  # a step over the rung before it
    assert not any("×6.25" in word for word in found["matmul_torch", "8.00"])  # which was skipped
    assert found["matmul_torch", "30.0"][2:4] == ["15.5", "ms"]
    assert "×6.00?" in found["matmul_last", "5.00"] and "79.4%" in found["matmul_last", "5.00"]
    assert "×" not in "".join(found["matmul_cuda", "100"])  # there is no torch on this GPU
    assert "-- beyond the course" in text and "-- the course, on the GPU" in text
    assert (
        "784 MFLOP take 3.92 ms at 200 GFLOP/s, 159 MB 3.97 ms at 40.0 GB/s: memory binds" in text
    )
    assert "take 392 ns at 200 GFLOP/s; memory sets none, as 47.2 kB may stay in a cache" in text
    assert "fastest at 50000x784x10: matmul_cuda, 100 µs" in text
    assert "reading on the CPU: sum 30.0 GB/s, max 40.0 GB/s" in text
    assert "×40,000,000* (the course: 5 million, on a GPU)" in text
    assert "randn: 20.0 µs (the course: 90.0 µs)" in text
    assert f"not timed at {SMALL}: matmul_x, matmul_y: no GPU" in text
    assert "? noisy" in text and "* a single round" in text


@pytest.mark.parametrize("last, mark", [
    ({"iqr": 4e-4}, ""), ({"iqr": 6e-4}, "?"), ({"waited": 0.2}, "?"), ({"rounds": 1}, "*"),
])  # fmt: skip
def test_marks(last, mark):
    assert Run({"benchmarks": [rung(0, "last", FULL, 5e-3, **last)]}).timed()[0].doubt == mark


def test_no_step_within_the_spread(saved):
    saved["benchmarks"][0]["extra_info"]["before"] = "matmul_next"
    assert "≈1" in words(Run(saved))["matmul_last", "5.00"]


@pytest.mark.parametrize("columns", [40, 60, 80, 100, 140, 200])
def test_tables_fit_the_terminal(saved, columns):
    """The name and the time are always there, what is new only where there is room."""
    lines = [line for line, _ in tables.report(Run(saved), columns)]
    assert max(map(len, lines)) <= columns
    assert any(line.startswith("matmul_last") and "5.00 ms?" in line for line in lines)
    assert any("matmul_last is new." in line for line in lines) == (columns > 100)


def test_without_limits_nothing_is_claimed(saved):
    saved["benchmarks"] = [b for b in saved["benchmarks"] if b["group"] != "limit"]
    text = "\n".join(line for line, _ in tables.report(Run(saved), 200))
    assert "%" not in text.replace("10%", "") and "limit of the CPU: not measured" in text


def test_numbers():
    times = map(tables.seconds, (1.5, 0.9999, 0.9994, 0.0123, 9.996e-6, 1e-9, 2.5e-13))
    assert ", ".join(times) == "1.50 s, 1.00 s, 999 ms, 12.3 ms, 10.0 µs, 1.00 ns, 0.250 ps"
    assert [tables.times(x) for x in (1.0, 3.0, 1 / 3e4)] == ["×1.00", "×3.00", "÷30,000"]
    assert tables.size(157e6, "B") == "157 MB" and tables.size(999, "B") == "999 B"


def command(*args, **env):
    code = "import sys, runpy; sys.modules['torch'] = None; "
    code += "runpy.run_module('ladder', run_name='__main__')"
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, args)], cwd=ROOT, capture_output=True, text=True,
        env={"PATH": "", "PYTHONIOENCODING": "ascii"} | env,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def test_command_without_torch(saved, tmp_path):
    """Of one run: tables, pictures, README; of two: side by side; and a clear error."""
    one, two, wrong, readme = (tmp_path / name for name in ("1.json", "2.json", "w", "README.md"))
    one.write_text(json.dumps(saved))
    saved["benchmarks"][5]["stats"]["median"] = 4e-6
    saved["suite"]["settings"] = {}
    two.write_text(json.dumps(saved))
    wrong.write_text("{}")
    readme.write_text("Before\n<!-- ladder: begin -->\nold\n<!-- ladder: end -->\nAfter\n")
    status, output, errors = command(one, "--readme", readme, "--figures", tmp_path / "drawn")
    assert (status, errors) == (0, "") and "A CPU, family 25, model 1, 256-bit SIMD" in output
    text = readme.read_text(encoding="utf-8")
    assert text.startswith("Before\n<!-- ladder: begin -->\n| 5x784x10 | median |")
    assert text.endswith("<!-- ladder: end -->\nAfter\n") and "old" not in text
    assert "| matmul\\_torch" not in text and "| **beyond the course** " in text
    assert len(list((tmp_path / "drawn").iterdir())) == 2
    saved["benchmarks"] = [b for b in saved["benchmarks"] if FULL not in b["group"]]
    two.write_text(json.dumps(saved))
    status, output, errors = command(one, two)  # which lacks a shape
    assert (status, errors) == (0, "") and "1: NUMBA_OPT=0" in output
    assert "2: the same machine and versions" in output and "4.00 us x2.00" in output
    assert "400 ms* x1.00" not in output  # the same number is no speed-up
    status, output, errors = command(wrong)
    assert (status, output) == (2, "") and "w: not a run of this suite" in errors


def test_the_saved_runs_of_this_project():
    for path in (ROOT / "results").glob("*.json"):
        assert Run.load(path).shapes == [SMALL, FULL]


def test_pictures(saved, tmp_path, monkeypatch):
    """A picture shows what there is, and none is drawn of nothing."""
    assert draw_run(Run(saved), tmp_path) == ["ladder.png", "rows.png"]
    monkeypatch.setenv("MPLBACKEND", "nonsense")
    assert draw_run(Run(saved | {"benchmarks": BENCHES[:2]}), tmp_path) == ["ladder.png"]
    assert draw_run(Run(saved | {"benchmarks": []}), tmp_path) == []
