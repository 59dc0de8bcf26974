"""The ladder: what the tables and the figures show of a run, and what they refuse."""

import json
import os
import re
import subprocess
import sys
from contextlib import nullcontext

import pytest

import ladder
from ladder import BEGIN, END
from rungs import FULL, SMALL

TABLES = """
5x784x10        median  × first  × before  GFLOP/s  of limit   speed, log scale
matmul_loops   400 ms*     1.00      1.00  0.00020  0.00030%
matmul_x      not timed: no GPU
matmul_torch  8.00 µs    50,000    50,000     9.80     14.8%   ████████████████████
fastest: matmul_torch, 8.00 µs, 14.8% of the machine's limit

50000x784x10    median  × first  × before  GFLOP/s  of limit   speed, log scale
matmul_torch  30.0 ms      1.00      1.00     26.1     13.2%
matmul_cuda    100 µs       300       300    7,840      100%   ████████████████████████
matmul_last   5.00 ms?     6.00     0.020      157     79.4%   ████████
fastest: matmul_cuda, 100 µs, 100% of the machine's limit

Per multiply-add: matmul_loops 10.2 µs / matmul_cuda 0.26 ps = 40,000,000 (the course: 5 million)
"""


def rung(step, name, shape, median, group="matmul {}", device="cpu", iqr=0.0, rounds=5, **info):
    m, k, n = map(int, shape.split("x"))
    info |= {"rung": name, "shape": shape, "step": step, "device": device}
    info |= {"flops": 2 * m * k * n, "bytes": 4 * (m * k + k * n + m * n)}
    stats = {"median": median, "iqr": iqr, "rounds": rounds}
    return {"group": group.format(shape), "stats": stats, "extra_info": info}


def limit(kind, work, device="cpu"):
    info = {"limit": kind, "device": device, "bytes" if kind == "read" else "flops": work}
    return {"group": "limit", "stats": {"median": 1.0}, "extra_info": info}


def run_of(*benches, **more):
    ladder.add_limits(benches)
    info = {"cpu": {"brand_raw": "A CPU"}, "machine": "", "system": "Linux", "python_version": "3"}
    return {"benchmarks": benches, "machine_info": info, "datetime": "2026-01-02T03:04:05"} | more


@pytest.fixture
def run():
    """A run, saved out of order, on a CPU that reads 40 GB/s and does 200 GFLOP/s, and a GPU."""
    skip = {"rung": "matmul_x", "shape": SMALL, "step": 1, "device": "cuda", "reason": "no GPU"}
    return run_of(
        rung(9, "matmul_last", FULL, 0.005, iqr=0.001),
        rung(2, "matmul_torch", FULL, 0.03),
        rung(2, "matmul_torch", SMALL, 8e-6),
        rung(0, "matmul_loops", SMALL, 0.4, rounds=1),
        rung(8, "matmul_cuda", FULL, 1e-4, device="cuda"),
        rung(0, "alone, and so no ladder", "1x1x1", 1.0),
        rung(9, "matmul_last", "500x784x10", 5e-5, "rows"),
        rung(9, "matmul_last", SMALL, 5e-7, "rows"),
        *(limit("read", 40e9), limit("read", 30e9), limit("flops", 200e9)),
        *(limit("read", 1.5883136e12, "cuda"), limit("flops", 60e12, "cuda")),
        skipped=[skip],
        lesson={"digit": [bytes(range(28)).hex()] * 28, "rand": [0.0, 0.75], "histogram": [3, 1]},
    )


@pytest.fixture
def saved(run, tmp_path):
    (tmp_path / "run.json").write_text(json.dumps(run))
    return tmp_path / "run.json"


def printed(run):
    return [line for line, _ in ladder.report(run)]


def test_tables(run):
    assert printed(run)[:-2] == TABLES.splitlines()  # two notes follow


@pytest.mark.parametrize("last, load, end", [
    ({"iqr": 0.1}, 1.0, "µs = 1.00$"),  # no note, and no word of the course's loops
    ({"iqr": 0.11}, 1.0, r"^\? doubtful"),
    ({"iqr": 0.11, "rounds": 1}, 1.0, r"^\* one round"),
    ({"limit_share": 1.09}, 1.0, "µs = 1.00$"),
    ({"limit_share": 1.11}, 1.0, r"^last \(5x784x10\) is faster than the measured limit"),
    ({}, 2.34, r"^The machine was busy .*load 2\.3\b"),
])  # fmt: skip
def test_notes(last, load, end):
    first = rung(1, "first", SMALL, 1.0, limit_share=0.5)
    run = run_of(first, rung(2, "last", SMALL, 1.0, **last), load=load)
    assert re.search(end, printed(run)[-1])


@pytest.mark.parametrize("rates, share", [
    ([limit("read", 40e9), limit("flops", 200e9)], pytest.approx(47_240 / 40e9)),  # bytes
    ([limit("read", 40e9), limit("flops", 20e9)], pytest.approx(78_400 / 20e9)),  # operations
    ([limit("read", 40e9), limit("flops", 200e9, "cuda")], None),
], ids=["memory", "arithmetic", "another device"])  # fmt: skip
def test_limit(rates, share):
    run = run_of(rung(0, "first", SMALL, 2.0), rung(1, "last", SMALL, 1.0), *rates)
    assert run["benchmarks"][1]["extra_info"].get("limit_share") == share
    assert ("limit was not measured" in printed(run)[-1]) == (share is None)


@pytest.mark.parametrize("times, limit, bars", [
    ([1, 0.1, 0.01], None, [0, 12, 24]),
    ([0.1, 1, 0.01], None, [12, 0, 24]),  # the slowest is not the first
    ([1, 0.1, 0.01], 1e-4, [0, 6, 12]),  # the limit is as far again
    ([1, 1], None, [0, 0]),
])  # fmt: skip
def test_bars(times, limit, bars):
    shares = [{"limit_share": limit / time} if limit else {} for time in times]
    rungs = [rung(i, "rung", SMALL, times[i], **shares[i]) for i in range(len(times))]
    assert [line.count("█") for line in printed(run_of(*rungs)) if line[:5] == "rung "] == bars


@pytest.mark.parametrize("columns, width", [(300, 87), (72, 72), (40, 60)])
def test_bars_fill_what_room_the_terminal_has(saved, columns, width, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    ladder.main([str(saved)])
    assert max(map(len, re.findall("^matmul_.*", capsys.readouterr().out, re.M))) == width


def test_seconds():
    texts = map(ladder.seconds, (1.5, 0.9999, 0.9994, 0.0123, 9.996e-6, 1e-9, 2.5e-13))
    assert ", ".join(texts) == "1.50 s, 1.00 s, 999 ms, 12.3 ms, 10.0 µs, 1.00 ns, 0.25 ps"


def test_command_without_torch(saved, tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text(f"Before\n{BEGIN}\nold\n{END}\nAfter\n")
    code = "import sys; sys.modules['torch'] = None; import ladder; ladder.main()"
    command = [sys.executable, "-c", code, saved, "--readme", readme]
    env = os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONPATH": os.path.dirname(__file__)}
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    assert (done.stderr, done.returncode) == ("", 0)
    assert done.stdout.startswith(TABLES.translate(str.maketrans("×µ█", "xu#")))
    assert "A CPU, ? cores; Linux, Python 3, " in done.stdout
    text = readme.read_text(encoding="utf-8")
    assert text.startswith(f"Before\n{BEGIN}\n- {SMALL}: fastest: matmul_torch, 8.00 µs")
    assert "\n| matmul_x | no GPU | | | | |\n| matmul_torch | 8.00 µs | 50,000 | " in text
    assert re.findall(r"\((.*png)\)", text) == ["run/ladder.png", "run/rows.png"]
    assert text.endswith(f"2026-01-02\n{END}\nAfter\n") and "old" not in text
    ladder.main([str(saved), "--figures", str(tmp_path / "again")])
    drawn, again = (sorted((tmp_path / folder).iterdir()) for folder in ("run", "again"))
    assert [p.read_bytes() for p in drawn] == [p.read_bytes() for p in again] and len(drawn) == 10


def test_nobody_reads_the_output(saved):
    command = [sys.executable, ladder.__file__, saved]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        child.stdout.close()
        assert (child.stderr.read(), child.wait()) == (b"", 0)


@pytest.mark.parametrize("old, new", [
    (f"é\n{BEGIN}\nold\nold\n{END}\nb\n", f"é\n{BEGIN}\nnew\n×\n{END}\nb\n"),
    (f"a\r\n{BEGIN}\r\n{END}\r\nb\r\n", f"a\r\n{BEGIN}\r\nnew\r\n×\r\n{END}\r\nb\r\n"),
    (f"{END}\n{BEGIN}\n", None),
    (f"{BEGIN}\n{END}\n" * 2, None),
    (f"No {END} in prose.\n{BEGIN}\n{END}\n", None),
], ids=["LF", "CRLF", "wrong order", "twice", "in prose"])  # fmt: skip
def test_readme(tmp_path, old, new):
    path = tmp_path / "README.md"
    path.write_bytes(old.encode())
    with nullcontext() if new else pytest.raises(ValueError, match="README.md: needs .* line"):
        ladder.put_between_markers(path, "new\n×")
    assert path.read_bytes() == (new or old).encode()


def test_a_file_is_written_whole_or_not_at_all_and_keeps_mode_and_link(tmp_path):
    resource = pytest.importorskip("resource")  # not on Windows
    path, link = tmp_path / "README.md", tmp_path / "link.md"
    path.write_text(f"{BEGIN}\n{END}\n")
    path.chmod(0o600)
    link.symlink_to(path)
    with path.open() as reader:
        ladder.put_between_markers(link, "new")
        assert reader.read() == f"{BEGIN}\n{END}\n"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        with pytest.raises(OSError):
            ladder.put_between_markers(link, "newer" * 100)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (path.read_text(), {*tmp_path.iterdir()}) == (f"{BEGIN}\nnew\n{END}\n", {path, link})
    assert link.is_symlink() and path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("old, new", [
    ("{", None),
    ("{", "[" * 100_000),
    ('"matmul 5', '"other 5'),
    ('"median": 0.005', '"median": "\\u001b[2J"'),
    ('"median": 0.005', '"median": NaN'),
    ('"iqr": 0.001', '"iqr": Infinity'),
    ('"step": 9', '"step": null'),
    ('"device": "cpu"', '"device": []'),
    ('"reason"', '"raisin"'),
    ('"cpu": {', '"gpu": {'),
    ('"digit": ["', '"digit": ["00'),
    ('"rand": [0.0', '"rand": [NaN'),
], ids=lambda text: str(text)[:20])  # fmt: skip
def test_no_run(saved, old, new):
    saved.unlink() if new is None else saved.write_text(saved.read_text().replace(old, new))
    with pytest.raises(SystemExit, match="run.json: (not a run|there|No such)") as error:
        ladder.main([str(saved)])
    assert str(error.value).isprintable()


def test_a_file_steers_neither_the_terminal_nor_markdown(saved):
    content = saved.read_text().replace("matmul_last", r"evil\u001b[2J<b>|`*")
    content = content.replace("no GPU", r"\u001b]0;x" * 30).replace("A CPU", r"\u001b[31mred")
    saved.write_text(content)
    run = ladder.load_run(saved)
    text = "".join(printed(run)) + ladder.machine(run)
    assert "evil?[2J" in text and "?]0;x" in text and "?[31mred" in text and text.isprintable()
    assert "| evil?\\[2J\\<b\\>\\|\\`\\* | 5.00 ms? |" in ladder.markdown(run)
    assert max(map(len, printed(run))) == 100


def test_figures(run):
    def words(texts):
        return [text.get_text().strip() for text in texts]

    small, full = ladder.draw_ladder(run, "").axes
    assert words(small.get_yticklabels()) == ["matmul_loops", "matmul_x", "matmul_torch"]
    assert [round(bar.get_y() + 0.35) for bar in small.patches] == [0, 2]
    assert [bar.get_x() + bar.get_width() for bar in small.patches] == pytest.approx([0.4, 8e-6])
    text = "400 ms*   1.00×, not timed: no GPU, 8.00 µs   50,000×, limit of the CPU: 1.18 µs"
    assert words(small.texts) == text.split(", ")
    assert [x.get_xdata()[0] for x in full.lines] == pytest.approx([158_831_360 / 40e9, 1e-4])
    assert [bool(bar.get_hatch()) for bar in full.patches] == [False, True, False]
    draw = ladder.draw_rows, ladder.draw_digit, ladder.draw_rand, ladder.draw_histogram
    rows, digit, rand, histogram = (figure(run, "").axes[0] for figure in draw)
    assert small.get_xscale() == rows.get_xscale() == rows.get_yscale() == "log"
    legends = [*small.get_legend().texts, *rows.get_legend().texts]
    assert words(legends)[:3] == ["CPU", "GPU", "matmul_last"]
    times, limit = (line.get_ydata() for line in rows.lines)
    assert [*times] == [5e-7, 5e-5] and [*limit] == pytest.approx([1.181e-6, 4.0484e-5])
    assert digit.images[0].get_array().tolist() == [[*range(28)]] * 28
    assert [*rand.lines[0].get_ydata()] == [0.0, 0.75]
    assert [bar.get_height() for bar in histogram.patches] == [3, 1]
