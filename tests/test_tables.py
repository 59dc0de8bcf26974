"""What tables and pictures say of a run, and what they don't claim."""

import copy
import json
from pathlib import Path

import pytest

from ladder import tables
from ladder.figures import draw_ladder
from ladder.result import Result, Run
from ladder.rungs import FULL, SMALL, Rung


def rung(order, name, shape, median, group="matmul", **info):
    """A saved benchmark of a rung, timed in five rounds that don't differ."""
    stats = {"median": median, "iqr": 0.0, "rounds": 5}
    stats |= {key: info.pop(key) for key in stats.keys() & info}
    new = Rung(name, type("", (), {"__doc__": f"{name} is new."}), (), order=order)
    saved = Result.of(new, shape).written() | {"chapter": "the course"} | info
    return {"group": group, "stats": stats, "extra_info": saved}


def limit(way, kind, work, device="cpu", median=1e-3):
    info = {"limit": kind, "device": device, "way": way, "work": work, "waited": 0}
    return {"group": "", "stats": {"median": median, "iqr": 0, "rounds": 9}, "extra_info": info}


BEYOND = {"chapter": "beyond the course", "iqr": 1e-3}
GPU = {"chapter": "the course, on the GPU", "device": "cuda"}
SAVED = {  # of a CPU that reads 40 GB/s and does 200 GFLOP/s, and a GPU; out of order
    "benchmarks": [
        rung(7, "last", FULL, 5e-3, before="next", **BEYOND),
        rung(2, "matmul_torch", FULL, 30e-3, course=15.5e-3, before="dot"),
        rung(6, "next", FULL, 5.2e-3, before="matmul_torch", **BEYOND),
        rung(1, "dot", SMALL, 50e-6, before="matmul_loops"),
        rung(0, "matmul_loops", SMALL, 0.4, rounds=1, course=0.416, calls=431_201),
        rung(2, "matmul_torch", SMALL, 8e-6, before="skipped", calls=1),
        rung(8, "cuda", FULL, 100e-6, **GPU),
        rung(7, "last", SMALL, 5e-7, group="rows", waited=1),
        *(limit("sum", "bytes", 30e6), limit("max", "bytes", 40e6), limit("@", "flops", 200e6)),
        *(limit("sum", "bytes", 1e8, "cuda", 25e-6), limit("@", "flops", 60e9, "cuda"))],
    "skipped": [rung(4, name, shape, 0, reason="no {GPU}")["extra_info"]
                for name in ("x", "y") for shape in (SMALL, FULL)],
    "machine_info": {"cpu": {"brand_raw": "A CPU", "family": 25, "model": 1}, "system": "Linux"},
    "suite": {"simd": "256-bit SIMD", "settings": {"NUMBA_OPT": "0"}, "data": "x.gz"},
    "datetime": "2026-01-02T03:04:05",
}  # fmt: skip


def shown(saved, columns=200):
    return "\n".join(line for line, _ in tables.report(Run(saved), columns))


SAID = [
    "5x784x10 median course step vs torch of limit GFLOP/s GB/s torch calls speed",
    "matmul_loops 400 ms* 416 ms ÷50,000* 0.0000980%* 0.000196 0.000118 431,201 matmul_loops is",
    "dot 50.0 µs ×8,000* ÷6.25 0.784% 1.57 0.945 dot is new.",
    "matmul_torch 8.00 µs 4.90% 9.80 5.91 1 matmul_torch is new.",
    "fastest at 5x784x10: matmul_torch, 8.00 µs limit",
    "take 392 ns at 200 GFLOP/s; memory is no limit, as 47.2 kB may stay in a cache",
    "matmul_torch 30.0 ms 15.5 ms 13.2% 26.1 5.29 matmul_torch is new. -- beyond the course -",
    "next 5.20 ms? ×5.77? ×5.77? 76.4%? 151 30.5 next is new.",
    "last 5.00 ms? ≈1 ×6.00? 79.4%? 157 31.8 last is new. -- the course, on the GPU -",
    "cuda 100 µs 39.7% 7,840 1,590 cuda is new. fastest at 50000x784x10: cuda, 100 µs limit",
    "784 MFLOP take 3.92 ms at 200 GFLOP/s, and 159 MB take 3.97 ms at 40.0 GB/s: memory binds",
    "reading on the CPU: sum 30.0 GB/s, max 40.0 GB/s multiply",
    "time per multiply-add: matmul_loops 10.2 µs*, cuda 0.255 ps: ×40,000,000* (the course: 5 m",
    f"not timed at {SMALL}, {FULL}: x, y: no {{GPU}} ? noisy",
]


def test_report():
    """Each number says what it is: marks stand wherever a doubtful time goes."""
    text = " ".join(shown(SAVED).replace("█", "").split())
    assert [line for line in SAID if line not in text] == []


@pytest.mark.parametrize("last, mark", [
    ({"iqr": 4e-4}, ""), ({"iqr": 6e-4}, "?"), ({"waited": 0.2}, "?"), ({"rounds": 1}, "*"),
])  # fmt: skip
def test_marks(last, mark):
    """And without limits, nothing is claimed of them."""
    benchmarks = [rung(0, "last", FULL, 5e-3, **last)]
    text = shown({"benchmarks": benchmarks})
    assert f" 5.00 ms{mark} " in text
    assert "of limit" not in text and "limit of the CPU: not measured" in text
    benchmarks += [limit("sum", "bytes", 1e8, median=8e-3), limit("@", "flops", 1e9)]
    assert "That is faster than the limit" in shown({"benchmarks": benchmarks})


@pytest.mark.parametrize("columns", [40, 60, 80, 100, 140, 200])
def test_tables_fit_the_terminal(columns):
    """The name and the time are always there, what is new only where there is room."""
    lines = shown(SAVED, columns).splitlines()
    assert max(map(len, lines)) <= columns
    assert any(line.startswith("last") and "5.00 ms?" in line for line in lines)
    assert any("last is new." in line for line in lines) == (columns > 100)


def test_command_without_torch(python, tmp_path):
    """Of one run: tables, README; of more, side by side; and a clear error."""

    def ladder(*args):
        env = {"PYTHONIOENCODING": "ascii", "COLUMNS": "100", "PYTHONPATH": str(tmp_path)}
        return python("-m", "ladder", *map(str, args), **env)

    (tmp_path / "torch.py").write_text("1 / 0")
    readme, one, two, three, wrong = (tmp_path / name for name in ("R", "1", "2", "3", "w"))
    saved = copy.deepcopy(SAVED)
    one.write_text(json.dumps(saved))
    saved["benchmarks"][5]["stats"]["median"] = 4e-6
    saved["suite"]["settings"], saved["commit_info"] = {}, {"id": "0123456789", "dirty": True}
    two.write_text(json.dumps(saved))
    saved["benchmarks"] = [b for b in saved["benchmarks"] if b["extra_info"].get("shape") != FULL]
    three.write_text(json.dumps(saved))
    wrong.write_text("{}")
    readme.write_text("Before\n<!-- ladder: begin -->\nold\n<!-- ladder: end -->\nAfter\n")
    status, output, errors = ladder(one, "--readme", readme)
    assert (status, errors) == (0, "") and "A CPU, family 25, model 1, 256-bit SIMD" in output
    text = readme.read_text(encoding="utf-8")
    assert text.startswith("Before\n<!-- ladder: begin -->\n```text\n5x784x10 ")
    assert text.endswith("\n```\n<!-- ladder: end -->\nAfter\n") and "old" not in text
    status, output, errors = ladder(one, two, three)
    assert (status, errors) == (0, "") and "1: NUMBA_OPT=0, commit ?\n" in output
    rows = [" ".join(line.split()) for line in output.splitlines()]
    assert "2: commit 01234567 with changes" in rows
    assert "matmul_torch 8.00 us 4.00 us x2.00 4.00 us x2.00" in rows
    assert "matmul_loops 400 ms* 400 ms* ~1 400 ms* ~1" in rows
    status, output, errors = ladder(wrong)
    assert (status, output) == (2, "") and "w: not a run of this suite" in errors


def test_picture(tmp_path, monkeypatch):
    """In any notebook's environment; it shows medians, marks, limits and the course's times."""
    monkeypatch.setenv("MPLBACKEND", "nonsense")
    pictures = set()
    for key in "none", "iqr", "median", "course":
        saved = copy.deepcopy(SAVED)
        saved["benchmarks"][3]["extra_info" if key == "course" else "stats"][key] = 1
        assert draw_ladder(tmp_path, Run(saved)) == "ladder.png"
        pictures.add((tmp_path / "ladder.png").read_bytes())
    assert len(pictures) == 4


def test_saved_runs():
    for path in (Path(__file__).parent.parent / "results").glob("*.json"):
        assert Run.load(path).shapes == [SMALL, FULL]
