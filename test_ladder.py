"""The ladder: what the tables and the figures show of a run, and what they refuse."""

import json
import math
import os
import re
import shutil
import subprocess
import sys

import pytest
from fastcore.test import test_close as close
from fastcore.test import test_eq as eq
from fastcore.test import test_fig_exists as fig_exists

import ladder
from conftest import HERE, SAMPLE

SMALL, FULL = "5x784x10", "50000x784x10"


def bench(group, median, iqr=0.0, rounds=5, **info):
    stats = {"median": median, "iqr": iqr, "rounds": rounds}
    return {"group": group, "stats": stats, "extra_info": info}


def rung(step, name, shape, median, group=None, device="cpu", **kwargs):
    m, k, n = map(int, shape.split("x"))
    work = {"flops": 2 * m * k * n, "bytes": 4 * (m * k + k * n + m * n)}
    info = {"rung": name, "shape": shape, "step": step, "device": device} | work
    return bench(group or f"matmul {shape}", median, **kwargs, **info)


@pytest.fixture
def run():
    """A run of four rungs, saved out of order, on a machine that reads 40 GB/s at 200 GFLOP/s."""
    run = {
        "benchmarks": [
            rung(9, "matmul_last", FULL, 0.005, iqr=0.001),
            rung(2, "matmul_torch", FULL, 0.03),
            rung(2, "matmul_torch", SMALL, 8e-6),
            rung(0, "matmul_loops", SMALL, 0.4, rounds=1),
            rung(8, "matmul_cuda", FULL, 1e-4, device="cuda"),
            bench("limit", 0.5, limit="read", device="cpu", bytes=20e9),
            bench("limit", 0.9, limit="read", device="cpu", bytes=20e9),
            bench("limit", 0.5, limit="flops", device="cpu", flops=100e9),
            bench("dot", 1e-7),
        ]
        + [rung(9, "matmul_last", f"{n}x784x10", n * 1e-7, "rows") for n in (5, 500)],
        "skipped": [
            {"rung": "matmul_x", "shape": SMALL, "step": 1, "device": "cuda",
             "reason": "there is no GPU to time"}
        ],
        "machine_info": {
            "cpu": {"brand_raw": "A processor", "count": 2},
            "machine": "x86_64",
            "system": "Linux",
            "python_version": "3.11.7",
        },
        "libraries": {"torch": "2.13.0"},
        "datetime": "2026-01-02T03:04:05",
        "lesson": {
            "digit": [bytes([i] * 27 + [255]).hex() for i in range(28)],
            "rand": [i / 50 for i in range(50)],
            "histogram": list(range(990, 1010, 2)),
        },
    }  # fmt: skip
    ladder.add_limits(run["benchmarks"])
    return run


@pytest.fixture
def saved(run, tmp_path):
    path = tmp_path / "run.json"
    path.write_text(json.dumps(run))
    return path


# ---- Tables ------------------------------------------------------------------------


def test_report(run):
    text = [line for line, style in ladder.report(run)]
    header, small, skip, torch = (line.split() for line in text[1:5])
    eq(header[:2], [SMALL, "median"])
    eq(small[:7], ["matmul_loops", "400", "ms*", "1.00", "1.00", "0.00020", "0.00030%"])
    eq(" ".join(skip), "matmul_x not timed: there is no GPU to time")
    eq(torch[:7], ["matmul_torch", "8.00", "µs", "50,000", "50,000", "9.80", "14.8%"])
    assert len(torch[7]) > 15 and set(torch[7]) == {"█"}
    first, cuda, last = (line.split() for line in text[8:11])
    eq(first[:7], ["matmul_torch", "30.0", "ms", "1.00", "1.00", "26.1", "13.2%"])
    eq(cuda[:6], ["matmul_cuda", "100", "µs", "300", "300", "7,840"])
    eq(last[:7], ["matmul_last", "5.00", "ms?", "6.00", "0.020", "157", "79.4%"])
    assert max(map(len, text)) <= 100
    eq(text[5], "fastest: matmul_torch, 8.00 µs, 14.8% of the machine's limit")
    eq(text[11], "fastest: matmul_cuda, 100 µs")
    eq(
        text[13],
        "Per multiply-add: matmul_loops 10.2 µs / matmul_cuda 0.26 ps = 40,000,000 "
        "(the course: 5 million)",
    )
    assert [note[0] for note in text[14:]] == ["?", "*"]


@pytest.mark.parametrize("change, note", [
    (lambda b: b[0]["stats"].update(iqr=0.0005), None),
    (lambda b: b[0]["stats"].update(iqr=0.00051), "? doubtful: half of the rounds"),
    (lambda b: b[0]["stats"].update(rounds=1), "* one round only"),
    (lambda b: b[0]["extra_info"].update(limit_share=1.11), "is faster than the measured"),
    (lambda b: b[0]["extra_info"].update(limit_share=1.09), None),
    (lambda b: [x["extra_info"].pop("limit_share", 0) for x in b], "was not measured"),
], ids=["10%", "more", "once", "too fast", "noise", "no limit"])  # fmt: skip
def test_notes(run, change, note):
    run["benchmarks"][3]["stats"]["rounds"] = 5
    run["benchmarks"][0]["stats"]["iqr"] = 0
    change(run["benchmarks"])
    notes = list(ladder.notes(run, ladder.ladders(run)))
    eq([note in line for line in notes], [True] if note else [])


def bars(run):
    table = [line for line, _ in ladder.report(run) if line.startswith("matmul_")]
    return {tuple(line.split()[:1]) + (line.count("█"),) for line in table}


def test_bars(run):
    """From the slowest rung, wherever it stands, to the limit; never longer than that."""
    benches = run["benchmarks"] = run["benchmarks"][:2]
    eq(bars(run), {("matmul_torch", 0), ("matmul_last", 21)})
    for bench in benches:
        bench["extra_info"]["limit_share"] = 0.00525 / bench["stats"]["median"]
    eq(bars(run), {("matmul_torch", 0), ("matmul_last", 24)})
    benches[0]["stats"]["median"] = 0.3
    del benches[0]["extra_info"]["limit_share"], benches[1]["extra_info"]["limit_share"]
    eq(bars(run), {("matmul_torch", 24), ("matmul_last", 0)})


def test_busy_machine(run):
    run["load"] = 2.34
    (note,) = [n for n in ladder.notes(run, ladder.ladders(run)) if "busy" in n]
    assert "busy when the run began (load 2.3)" in note


def test_narrow_terminal(run):
    tables = [line for line, _ in ladder.report(run, 72) if line.startswith("matmul_")]
    assert 60 < max(map(len, tables)) <= 72
    assert "█" not in "".join(line for line, _ in ladder.report(run, 40))


def test_the_course_starts_with_the_loops(run):
    del run["benchmarks"][3]
    assert "course" not in ladder.arithmetic(ladder.ladders(run))


def test_a_long_reason_is_cut(run):
    run["skipped"][0]["reason"] = "because " * 30
    assert max(len(line) for line, _ in ladder.report(run)) == 100


@pytest.mark.parametrize("rounds, mark", [(1, "*"), (2, " ")])
def test_mark_of_one_round(run, rounds, mark):
    run["benchmarks"][2]["stats"]["rounds"] = rounds
    step = ladder.ladders(run)[SMALL][-1]
    eq(ladder.cells(step)[0], f"8.00 µs{mark}")


def test_markdown(run):
    text = ladder.markdown(run, [("A picture", "x.png")])
    assert (
        "| matmul_loops | 400 ms\\* | 1.00 |" in text and "![A picture](x.png)" in text
    )
    run["benchmarks"][0]["extra_info"]["rung"] = "<b>|`"
    assert "| \\<b\\>\\|\\` | 5.00 ms? |" in ladder.markdown(run)


def test_one_rung_is_no_ladder(run):
    run["benchmarks"] = run["benchmarks"][2:3]
    eq(list(ladder.report(run)), [])
    eq(ladder.draw_ladder(run, ""), None)


def test_limits_are_the_best_of_their_device(run):
    benches = run["benchmarks"]
    benches.append(bench("limit", 1e-3, limit="read", device="cuda", bytes=3e9))
    ladder.add_limits(benches)
    assert "limit_share" not in benches[4]["extra_info"]
    limit = 4 * (50_000 * 784 + 784 * 10 + 50_000 * 10) / 40e9
    close(benches[0]["extra_info"]["limit_share"], limit / 0.005, eps=1e-9)
    close(benches[0]["extra_info"]["gflops"], 0.784 / 0.005, eps=1e-9)


@pytest.mark.parametrize("value, text", [
    (1.5, "1.50 s"), (0.9999, "1.00 s"), (0.9994, "999 ms"), (0.0123, "12.3 ms"),
    (9.996e-6, "10.0 µs"), (1e-9, "1.00 ns"), (2.5e-13, "0.25 ps"),
])  # fmt: skip
def test_seconds(value, text):
    eq(ladder.seconds(value), text)


def test_plain_letters():
    eq(ladder.encodable("3.2 µs 4× ██", "utf-8"), "3.2 µs 4× ██")
    eq(ladder.encodable("3.2 µs 4× ██", "ascii"), "3.2 us 4x ##")
    eq(ladder.encodable("é", None), "?")


# ---- A saved run -------------------------------------------------------------------


def test_command(saved, tmp_path):
    """The tables, the figures and the README come from the file alone, without torch."""
    readme = tmp_path / "README.md"
    readme.write_text(f"Before\n{ladder.BEGIN}\nold\n{ladder.END}\nAfter\n")
    code = (
        "import sys, runpy; sys.modules['torch'] = None; sys.argv = sys.argv[1:];"
        "runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    command = [sys.executable, "-c", code, HERE / "ladder.py", saved]
    env = {"PYTHONIOENCODING": "ascii", "MPLCONFIGDIR": str(tmp_path)}
    done = subprocess.run(
        [*command, "--readme", readme], capture_output=True, text=True, env=env
    )
    eq((done.stderr, done.returncode), ("", 0))
    assert "matmul_last   5.00 ms?     6.00" in done.stdout
    assert "A processor, 2 cores; Linux" in done.stdout
    text = readme.read_text(encoding="utf-8")
    assert text.startswith(
        f"Before\n{ladder.BEGIN}\n- {SMALL}: fastest: matmul_torch, 8.00 µs"
    )
    assert text.endswith("2026-01-02\n<!-- ladder: end -->\nAfter\n")
    assert "| matmul_torch | 8.00 µs | 50,000 | 50,000 | 9.80 | 14.8% |" in text
    assert "old" not in text and "(run/ladder.png)" in text and "(run/rows.png)" in text
    assert "digit.png" not in text
    names = {"ladder", "rows", "digit", "rand", "histogram"}
    eq(
        {path.name for path in (tmp_path / "run").iterdir()},
        {f"{name}.{kind}" for name in names for kind in ("png", "svg")},
    )


def test_readme_keeps_its_mode_its_newlines_and_its_link(saved, tmp_path):
    readme, link = tmp_path / "README.md", tmp_path / "link.md"
    readme.write_bytes(f"a\r\n{ladder.BEGIN}\r\n{ladder.END}\r\nb\r\n".encode())
    readme.chmod(0o600)
    link.symlink_to(readme)
    ladder.put_between_markers(link, "new\nlines")
    content = f"a\r\n{ladder.BEGIN}\r\nnew\r\nlines\r\n{ladder.END}\r\nb\r\n"
    eq(readme.read_bytes(), content.encode())
    eq((readme.stat().st_mode & 0o777, link.is_symlink()), (0o600, True))


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "README.md"
    path.write_text("before")

    def fails(*args):
        raise OSError("no space")

    monkeypatch.setattr(ladder.os, "replace", fails)
    with pytest.raises(OSError, match="no space"):
        ladder.write(path, b"after")
    eq(
        ([p.name for p in tmp_path.iterdir()], path.read_text()),
        (["README.md"], "before"),
    )


def test_nobody_reads_the_output(saved):
    command = [sys.executable, HERE / "ladder.py", saved]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as child:
        child.stdout.close()
        errors = child.stderr.read()
    eq((child.returncode, errors), (0, b""))


def test_same_run_same_file(run, tmp_path):
    del run["benchmarks"][:]
    for folder in "a", "b":
        ladder.figures(run, tmp_path / folder)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


@pytest.mark.parametrize("key, value", [
    ("benchmarks", None),
    ("benchmarks", [1]),
    ("benchmarks.0.stats.median", "fast"),
    ("benchmarks.0.stats.median", 0),
    ("benchmarks.0.stats.median", math.nan),
    ("benchmarks.0.stats.iqr", math.inf),
    ("benchmarks.0.extra_info.step", None),
    ("skipped", [{"rung": "x"}]),
    ("machine_info", {}),
    ("benchmarks.0.extra_info.step", math.inf),
    ("benchmarks.0.extra_info.flops", 10**400),
    ("benchmarks.0.extra_info.flops", -1),
    ("benchmarks.0.extra_info.device", "tpu"),
    ("benchmarks.0.extra_info.device", []),
    ("benchmarks.0.extra_info.limit_share", 1e-320),
    ("benchmarks.9.extra_info.shape", "1x2"),
    ("benchmarks.9.extra_info.shape", "9" * 400 + "x2x3"),
    ("skipped.0.device", None),
    ("lesson", None),
    ("lesson.histogram", []),
    ("lesson.histogram", ["1"]),
    ("lesson.rand", [math.nan]),
    ("lesson.digit", ["00"]),
    ("lesson.rand", [None]),
    ("benchmarks", []),
])  # fmt: skip
def test_no_run(run, saved, key, value):
    *path, last = key.split(".")
    part = run
    for name in path:
        part = part[int(name) if name.isdigit() else name]
    part[last] = value
    saved.write_text(json.dumps(run))
    message = "run.json: (not a run saved by pytest --benchmark-json|there is no shape)"
    with pytest.raises(ValueError, match=message) as error:
        ladder.load_run(saved)
    assert str(error.value).isprintable()


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff\xfe", b"[" * 100_000])
def test_no_json(saved, content, capsys):
    saved.write_bytes(content)
    with pytest.raises(SystemExit, match="run.json: not a run saved by pytest"):
        ladder.main([str(saved)])


def test_no_file(tmp_path):
    for path in tmp_path, tmp_path / "missing.json":
        with pytest.raises(SystemExit, match=rf"ladder.py: {re.escape(str(path))}: "):
            ladder.main([str(path)])


def test_a_file_cannot_steer_the_terminal(run, saved):
    run["benchmarks"][0]["extra_info"]["rung"] = "evil\x1b[2J"
    run["skipped"][0] |= {"rung": "\x07bell", "reason": "\x1b]0;x"}
    run["machine_info"]["cpu"]["brand_raw"] = "\x1b[31mred"
    saved.write_text(json.dumps(run))
    text = "".join(line for line, _ in ladder.report(ladder.load_run(saved)))
    assert "evil?[2J" in text and "?bell" in text and "?]0;x" in text
    assert (text + ladder.machine(run)).isprintable()


@pytest.mark.parametrize("content", [
    "nothing",
    f"{ladder.END}\n{ladder.BEGIN}\n",
    f"{ladder.BEGIN}\n{ladder.END}\n" * 2,
    f"The line {ladder.END} ends it.\n{ladder.BEGIN}\n{ladder.END}\n",
], ids=["none", "wrong order", "twice", "in prose"])  # fmt: skip
def test_readme_without_markers(saved, tmp_path, content, monkeypatch):
    monkeypatch.setattr(ladder, "figures", lambda run, folder: [])
    readme = tmp_path / "README.md"
    readme.write_text(content)
    with pytest.raises(SystemExit, match="README.md: needs .* line <!-- ladder: begin"):
        ladder.main([str(saved), "--readme", str(readme)])
    eq(readme.read_text(), content)


# ---- Figures -----------------------------------------------------------------------


def labels(axes):
    return " ".join(text.get_text() for text in axes.texts)


def test_ladder_figure(run):
    small, full = ladder.draw_ladder(run, "").axes
    fig_exists(small)
    eq([bar.get_y() + 0.35 for bar in small.patches], [0, 2])
    ends = [bar.get_x() + bar.get_width() for bar in small.patches]
    close(ends, [0.4, 8e-6], eps=1e-12)
    eq(small.get_xscale(), "log")
    assert "not timed: there is no GPU" in labels(small)
    assert "400 ms*   1.00×" in labels(small) and "50,000×" in labels(small)
    assert "limit of the CPU: 1.18 µs" in labels(small)
    eq(
        [t.get_text() for t in full.get_yticklabels()],
        "matmul_torch matmul_cuda matmul_last".split(),
    )
    eq([bool(bar.get_hatch()) for bar in full.patches], [False, True, False])
    eq(
        [text.get_text() for text in full.figure.axes[0].get_legend().get_texts()],
        ["CPU", "GPU"],
    )
    close(full.lines[0].get_xdata(), [158_831_360 / 40e9] * 2, eps=1e-12)


def test_rows_figure(run):
    (axes,) = ladder.draw_rows(run, "").axes
    fig_exists(axes)
    last, limit = axes.lines
    eq((last.get_label(), list(last.get_xdata())), ("matmul_last", [5, 500]))
    close(last.get_ydata(), [5e-7, 5e-5], eps=1e-12)
    eq(list(limit.get_xdata()), [5, 500])
    eq((axes.get_xscale(), axes.get_yscale()), ("log", "log"))


def test_lesson_figures(run):
    lesson = run["lesson"]
    (digit,), (rand,), (histogram,) = (
        draw(run, "").axes
        for draw in (ladder.draw_digit, ladder.draw_rand, ladder.draw_histogram)
    )
    for axes in digit, rand, histogram:
        fig_exists(axes)
    eq(digit.images[0].get_array().tolist(), [[i] * 27 + [255] for i in range(28)])
    eq(digit.images[0].get_cmap().name, "gray")
    eq(list(rand.lines[0].get_ydata()), lesson["rand"])
    eq([bar.get_height() for bar in histogram.patches], lesson["histogram"])


# ---- In a run of pytest ------------------------------------------------------------


@pytest.fixture
def suite(pytester, monkeypatch):
    """Two rungs, one of them on a GPU too many, in a project of their own."""
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)  # this one may be of -n 2
    for name in "conftest.py", "pytest.ini":
        shutil.copy(HERE / name, pytester.path)
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.parametrize("shape", ["5x784x10"])
        @pytest.mark.parametrize("rung", ["matmul_torch", "matmul_numpy", "matmul_cuda"])
        def test_rung(time_rung, rung, shape, product):
            if rung == "matmul_cuda":
                pytest.skip("there is no GPU at all")
            time_rung(f"matmul {shape}", rung, product)
        """
    )

    def run(*args):
        return pytester.runpytest_inprocess(
            f"--mnist={SAMPLE}", "-p", "no:randomly", "--benchmark-max-time=0.01", *args
        )

    return run


def test_run(suite, pytester, mnist):
    result = suite("--benchmark-json=run.json", "--figures=drawn")
    result.assert_outcomes(passed=2, skipped=1)
    result.stdout.fnmatch_lines(
        ["5x784x10*", "matmul_torch *", "matmul_cuda *not timed: there is no GPU at all",
         "matmul_numpy *", "Per multiply-add: matmul_torch*"]
    )  # fmt: skip
    run = ladder.load_run(pytester.path / "run.json")
    eq(
        [s.rung for s in ladder.ladders(run)["5x784x10"]],
        ["matmul_torch", "matmul_cuda", "matmul_numpy"],
    )
    (x_train, _), *_ = mnist
    close(ladder.pixels(run["lesson"]), x_train[0].reshape(28, 28) * 256, eps=1e-9)
    close(
        run["lesson"]["rand"][:2], [0.7645251082582081, 0.7920889799553945], eps=1e-15
    )
    eq(sum(run["lesson"]["histogram"]), 10_000)
    drawn = {path.stem for path in (pytester.path / "drawn").iterdir()}
    eq(drawn, {"ladder", "digit", "rand", "histogram"})
    assert "hz_actual" not in (pytester.path / "run.json").read_text()


def test_run_with_a_regression_still_shows_the_ladder(suite, pytester):
    suite("--benchmark-save=first")
    (first,) = pytester.path.rglob("0001_first.json")
    run = json.loads(first.read_text())
    for bench in run["benchmarks"]:
        bench["stats"]["min"] = 1e-9
    first.write_text(json.dumps(run))
    result = suite("--benchmark-compare", "--benchmark-compare-fail=min:5%")
    assert result.ret != 0
    result.stdout.fnmatch_lines(["Per multiply-add: matmul_*"])
    result.stderr.fnmatch_lines(["*Performance has regressed*"])


def test_run_without_benchmarks_shows_none(suite):
    result = suite("--benchmark-disable")
    result.assert_outcomes(passed=2, skipped=1)
    result.stdout.no_fnmatch_line("*Per multiply-add*")
    result.stdout.fnmatch_lines(["1 skipped: there is no GPU at all"])


def test_run_of_benchmarks_only(suite, pytester):
    pytester.makepyfile(test_other="def test_other(): pass")
    result = suite(
        "--benchmark-only", "-k", "cuda or other", "--benchmark-json=run.json"
    )
    result.assert_outcomes(skipped=1, deselected=3)
    result.stdout.fnmatch_lines(["1 skipped: there is no GPU at all"])
    eq(result.ret, pytest.ExitCode.OK)


def test_no_such_data(suite):
    result = suite("--mnist=nope.gz")
    eq(result.ret, pytest.ExitCode.USAGE_ERROR)
    result.stderr.fnmatch_lines(["ERROR: --mnist=nope.gz: there is no such file"])


def test_failed_rung_is_not_timed(suite, pytester, monkeypatch):
    import kernels

    wrong = kernels.Rung(
        "matmul_numpy", lambda a, b: 1.001 * (a @ b), ("5x784x10",), "cpu"
    )
    monkeypatch.setitem(kernels.RUNGS, "matmul_numpy", wrong)
    monkeypatch.setitem(kernels.RUNGS, "matmul_cuda", kernels.RUNGS["matmul_torch"])
    source = (pytester.path / "test_failed_rung_is_not_timed.py").read_text()
    pytester.makepyfile(
        source.replace('pytest.skip("there is no GPU at all")', "shape = shape")
    )
    result = suite()
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(["matmul_numpy *not timed: it failed"])


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
def test_run_that_cannot_be_saved(suite):
    result = suite("--benchmark-json=/dev/full")
    eq(result.ret, pytest.ExitCode.INTERNAL_ERROR)
    result.stdout.fnmatch_lines(
        ["Per multiply-add: matmul_*", "ERROR: this run could not be saved: *No space*"]
    )
    result.stdout.no_fnmatch_line("*Traceback*")


def test_figures_that_cannot_be_drawn(suite, pytester):
    (pytester.path / "a file").touch()
    result = suite("--figures=a file")
    eq(result.ret, pytest.ExitCode.USAGE_ERROR)
    result.stderr.fnmatch_lines(["ERROR: --figures: *a file*"])


@pytest.mark.parametrize("flags, env, message", [
    (["-O"], {}, "python -O drops assert, and with it every proof"),
    ([], {"NUMBA_DISABLE_JIT": "1"}, "NUMBA_DISABLE_JIT is set: no rung could be compiled"),
], ids=["-O", "NUMBA_DISABLE_JIT"])  # fmt: skip
def test_says_why_it_cannot_run(flags, env, message):
    done = subprocess.run(
        [sys.executable, *flags, "-m", "pytest", "test_rng.py", "-p", "no:cacheprovider"],
        cwd=HERE, env=os.environ | env, capture_output=True, text=True,
    )  # fmt: skip
    eq((done.returncode, done.stderr.strip()), (4, f"ERROR: {message}"))
