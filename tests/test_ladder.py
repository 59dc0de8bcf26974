"""The ladder: what the tables and the figures show of a run, and what they refuse."""

import json
import os
import re
import subprocess
import sys
from contextlib import nullcontext

import figures
import pytest
from rungs import FULL, SMALL

import ladder
from ladder import BEGIN, END

TABLES = """
5x784x10        median  the course     step  vs torch  roofline   speed, log scale
matmul_loops   400 ms*      416 ms            ÷50,000  0.00030%
matmul_torch  8.00 µs               ×50,000     ×1.00     14.8%   ████████████████████
matmul_mine   16.0 µs°                          ÷2.00     7.38%   ███████████████████
fastest: matmul_torch, 8.00 µs, 14.8% of the roofline

50000x784x10    median  the course  step  vs torch      roofline   speed, log scale
matmul_torch  30.0 ms      15.5 ms           ×1.00         13.2%
matmul_last   5.00 ms?                       ×6.00         79.4%   ████████
matmul_cuda    100 µs      3.69 ms                  at the limit   ████████████████████████
fastest: matmul_cuda, 100 µs, at the limit

Per multiply-add: matmul_loops 10.2 µs / matmul_cuda 0.26 ps = 40,000,000 (the course: 5 million)
7,840 random numbers: torch_randn 20.0 µs (the course: 91.3 µs)
not timed: matmul_x, matmul_y: no GPU
"""


def rung(step, name, shape, median, group="matmul {}", device="cpu", iqr=0.0, rounds=5, **info):
    m, k, n = map(int, shape.split("x"))
    info |= {"rung": name, "shape": shape, "step": step, "device": device}
    info |= {"flops": 2 * m * k * n, "bytes": 4 * (m * k + k * n + m * n)}
    stats = {"median": median, "iqr": iqr, "rounds": rounds}
    return {"name": name, "group": group.format(shape), "stats": stats, "extra_info": info}


def limit(kind, work, device="cpu"):
    info = {"limit": kind, "device": device, "bytes" if kind == "read" else "flops": work}
    return {"name": "limit", "group": "limit", "stats": {"median": 1.0}, "extra_info": info}


def run_of(*benches, **more):
    ladder.add_limits(benches, ladder.rates(benches))
    info = {"cpu": {"brand_raw": "A CPU"}, "machine": "", "system": "Linux", "python_version": "3"}
    return {"benchmarks": benches, "machine_info": info, "datetime": "2026-01-02T03:04:05"} | more


@pytest.fixture
def run():
    """A run, saved out of order, on a CPU that reads 40 GB/s and does 200 GFLOP/s, and a GPU."""
    skip = {"rung": "matmul_x", "shape": SMALL, "step": 1, "device": "cuda", "reason": "no GPU"}
    number = {"name": "test_torch_randn", "group": "", "stats": {"median": 2e-5}, "extra_info": {}}
    return run_of(
        rung(19, "matmul_last", FULL, 0.005, iqr=0.001),
        rung(2, "matmul_torch", FULL, 0.03, new="BLAS."),
        rung(18, "matmul_mine", SMALL, 1.6e-5, since="2026-01-01 10:20"),
        rung(2, "matmul_torch", SMALL, 8e-6),
        rung(0, "matmul_loops", SMALL, 0.4, rounds=1),
        rung(8, "matmul_cuda", FULL, 1e-4, device="cuda"),
        rung(19, "matmul_last", "500x784x10", 5e-5, "rows"),
        rung(19, "matmul_last", SMALL, 5e-7, "rows"),
        *(limit("read", 40e9), limit("read", 30e9), limit("flops", 200e9)),
        *(limit("read", 1.5883136e12, "cuda"), limit("flops", 60e12, "cuda"), number),
        skipped=[skip, skip | {"rung": "matmul_y"}],
        lesson={"digit": [bytes(range(28)).hex()] * 28, "rand": [0.0, 0.75], "histogram": [3, 1]},
    )


@pytest.fixture
def saved(run, tmp_path):
    (tmp_path / "run.json").write_text(json.dumps(run))
    return tmp_path / "run.json"


def printed(run, columns=100):
    return [line for line, _ in ladder.report(run, columns)]


def test_tables(run):
    assert printed(run)[:-3] == TABLES.splitlines()  # three notes follow
    verbose = [line for line, _ in ladder.report(run, verbose=True)]
    assert "matmul_torch: BLAS." in verbose


@pytest.mark.parametrize("last, load, end", [
    ({"iqr": 0.1}, 1.0, "^fastest: "),  # no note, and no word of the course's loops
    ({"iqr": 0.11}, 1.0, r"^\? noisy"),
    ({"waited": 0.11}, 1.0, r"^\? noisy"),
    ({"iqr": 0.11, "rounds": 1}, 1.0, r"^\* a single round"),
    ({"since": "2026-01-01"}, 1.0, "^° not timed now: taken from the last whole run, of 2026-01-01"),
    ({"limit_share": 1.09}, 1.0, "^fastest: "),
    ({"limit_share": 1.11}, 1.0, r"^last \(5x784x10\) is faster than the measured roofline"),
    ({}, 2.34, r"^The machine was busy .*load 2\.3\b"),
])  # fmt: skip
def test_notes(last, load, end):
    first = rung(1, "first", SMALL, 1.0, limit_share=0.5)
    run = run_of(first, rung(2, "last", SMALL, 1.0, **last), load=load)
    assert re.search(end, [*filter(None, printed(run, 300))][-1])


@pytest.mark.parametrize("times, text", [
    ((1.0, 1.0), "×1.00"), ((3.0, 1.0), "×3.00"), ((1.0, 30_000.0), "÷30,000"),
])  # fmt: skip
def test_factor(times, text):
    assert ladder.factor(times[0] / times[1]) == text


@pytest.mark.parametrize("share, text", [
    (0.96, "96.0%"), (0.975, "at the limit"), (1.025, "at the limit"), (1.04, "104%"),
])  # fmt: skip
def test_share(share, text):
    (step,) = ladder.ladders(run_of(rung(0, "one", SMALL, 1.0, limit_share=share)))[SMALL]
    assert ladder.share(step) == text


@pytest.mark.parametrize("rates, share", [
    ([limit("read", 40e9), limit("flops", 200e9)], pytest.approx(47_240 / 40e9)),  # bytes
    ([limit("read", 40e9), limit("flops", 20e9)], pytest.approx(78_400 / 20e9)),  # operations
    ([limit("read", 40e9), limit("flops", 200e9, "cuda")], None),
], ids=["memory", "arithmetic", "another device"])  # fmt: skip
def test_limit(rates, share):
    run = run_of(rung(0, "first", SMALL, 2.0), rung(1, "last", SMALL, 1.0), *rates)
    assert run["benchmarks"][1]["extra_info"].get("limit_share") == share
    assert ("roofline was not measured" in printed(run)[-1]) == (share is None)


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


@pytest.mark.parametrize("columns, width", [(300, 91), (76, 76), (40, 36)])
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
    assert done.stdout.startswith(TABLES.translate(str.maketrans("×÷µ█°", "x/u#'")))
    assert "A CPU, ? cores; Linux, Python 3, " in done.stdout
    text = readme.read_text(encoding="utf-8")
    assert text.startswith(f"Before\n{BEGIN}\n![Time by the number of rows](run/rows.png)\n")
    assert "\n| matmul_torch | 30.0 ms | 15.5 ms |  | ×1.00 | 13.2% | BLAS. |\n" in text
    assert "\nnot timed: matmul_x, matmul_y: no GPU  \n" in text
    assert re.findall(r"\((.*png)\)", text) == ["run/rows.png"]
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
    ('"group": "matmul', '"group": "other'),
    ('"median": 0.005', '"median": "\\u001b[2J"'),
    ('"median": 0.005', '"median": NaN'),
    ('"iqr": 0.001', '"iqr": Infinity'),
    ('"step": 19', '"step": null'),
    ('"device": "cpu"', '"device": []'),
    ('"reason"', '"raisin"'),
    ('"cpu": {', '"gpu": {'),
    ('"digit": ["', '"digit": ["00'),
    ('"rand": [0.0', '"rand": [NaN'),
], ids=lambda text: str(text)[:20])  # fmt: skip
def test_no_run(saved, old, new):
    saved.unlink() if new is None else saved.write_text(saved.read_text().replace(old, new))
    with pytest.raises(SystemExit, match="run.json: (not a run|no rung was|No such)") as error:
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
    assert max(map(len, printed(run)[:12])) <= 100


def test_figures(run):
    def words(texts):
        return [text.get_text().strip() for text in texts]

    small, full = figures.draw_ladder(run, "").axes
    assert words(small.get_yticklabels()) == ["matmul_loops", "matmul_torch", "matmul_mine"]
    ends = [bar.get_x() + bar.get_width() for bar in small.patches]
    assert ends == pytest.approx([0.4, 8e-6, 1.6e-5])
    assert small.get_xlim()[0] > small.get_xlim()[1]  # a longer bar is faster
    text = "400 ms*   (the course: 416 ms), 8.00 µs, 16.0 µs, roofline of the CPU: 1.18 µs"
    assert words(small.texts) == text.split(", ")
    limits = [line.get_xdata()[0] for line in full.lines if line.get_linestyle() in ("-", "--")]
    assert limits == pytest.approx([158_831_360 / 40e9, 1e-4])
    assert [bool(bar.get_hatch()) for bar in full.patches] == [False, False, True]
    draw = figures.draw_rows, figures.draw_digit, figures.draw_rand, figures.draw_histogram
    rows, digit, rand, histogram = (figure(run, "").axes[0] for figure in draw)
    assert small.get_xscale() == rows.get_xscale() == rows.get_yscale() == "log"
    legends = [*small.get_legend().texts, *rows.get_legend().texts]
    assert words(legends)[:3] == ["CPU", "GPU", "matmul_last"]
    times, limit = (line.get_ydata() for line in rows.lines)
    assert [*times] == [5e-7, 5e-5] and [*limit] == pytest.approx([1.181e-6, 4.0484e-5])
    assert digit.images[0].get_array().tolist() == [[*range(28)]] * 28
    assert [*rand.lines[0].get_ydata()] == [0.0, 0.75]
    assert [bar.get_height() for bar in histogram.patches] == [3, 1]


# ---- Several runs ------------------------------------------------------------------


@pytest.fixture
def others(run, saved, tmp_path):
    """The run again, in which torch is a newer one and twice as fast, and one rung is missing."""
    (tmp_path / "0001_b.json").write_text(saved.read_text().replace(": 8e-06", ": 4e-06"))
    (tmp_path / "c.json").write_text(saved.read_text().replace("matmul_loops", "matmul_new"))
    b = json.loads((tmp_path / "0001_b.json").read_text()) | {"libraries": {"torch": "9.9"}}
    (tmp_path / "0001_b.json").write_text(json.dumps(b))
    return [str(saved), str(tmp_path / "0001_b.json"), str(tmp_path / "c.json")]


def test_side_by_side(others, capsys):
    ladder.main(others)
    first, second, third, _, *table = capsys.readouterr().out.splitlines()
    assert "torch 9.9" in second and "torch" not in first + third
    assert [line.split() for line in table[:5]] == [
        ["5x784x10", "run", "0001_b", "c"],
        ["matmul_loops", "400", "ms*", "400", "ms*", "×1.00"],
        ["matmul_torch", "8.00", "µs", "4.00", "µs", "×2.00", "8.00", "µs", "×1.00"],
        ["matmul_mine", "16.0", "µs", "16.0", "µs", "×1.00", "16.0", "µs", "×1.00"],
        ["matmul_new", "400", "ms*"],
    ]


@pytest.mark.parametrize("count, patches, labels", [(2, 6, 2), (3, 0, 4)])
def test_figures_of_runs(others, count, patches, labels, tmp_path):
    runs = {path: ladder.load_run(path) for path in others[:count]}
    draw = figures.draw_pairs if count == 2 else figures.draw_history
    (axes,) = draw(runs, SMALL, "").axes
    assert sum(bar.get_width() != 0 for bar in axes.patches) == patches
    assert len(axes.get_legend().texts) == labels
    ladder.main([*others[:count], "--figures", str(tmp_path / "drawn")])
    assert len(list((tmp_path / "drawn").glob("*.png"))) == 2
