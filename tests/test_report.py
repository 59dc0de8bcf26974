"""What reports and pictures say of a run, and what they don't claim."""

import csv
from pathlib import Path

import pytest

from ladder import export, figures
from ladder.report import report
from ladder.run import Run
from ladder.shape import FULL, SMALL, Shape
from ladder.side_by_side import side_by_side
from ladder.text import encodable
from tests.saved import BENCHMARKS, LIMITS, bench, limit, saved, write


def words(run, width=200):
    """Return a report's words, one space between any two, and no bars."""
    lines = [line for line, _ in report(Run(run), width)]
    return " ".join(" ".join(lines).replace("█", "").split())


UNTIMED = [
    {"rung": rung, "shape": str(shape), "reason": "no {GPU}"}
    for rung in ("x", "y")
    for shape in (SMALL, FULL)
]
SAID = [
    "5x784x10 median course step in all vs torch of limit GFLOP/s GB/s torch calls speed",
    "loops 400 ms* 416 ms ÷50,000* <0.001%* 0.000196* 0.000118* 431,201 loops is",
    "dot 50.0 µs ×8,000* ×8,000* ÷6.25 2.00% 1.57 0.945 dot is new.",
    "torch 8.00 µs ×10.0 ×50,000* 12.5% 9.80 5.91 1 torch is new.",
    "fastest at 5x784x10, by its shortest round: last, 4.00 µs (median 4.00 µs) last runs the code",
    "last runs the code of tile at 5x784x10",
    "limits of the CPU: a call takes 1.00 µs (torch of 1x1x1); 78.4 kFLOP take 392 ns at 200 GFLOP/s",
    "200 GFLOP/s (registers); 47.2 kB may",
    "may stay in a cache: call binds",
    "torch 30.0 ms 15.5 ms ×26.7 ×26.7 13.2% 26.1 5.29 torch is new. -- beyond the course -",
    "tile 5.20 ms? ×154? ×5.77? 76.4%? 151? 30.5? tile is new.",
    "last 5.00 ms? ≈1? ×160? ×6.00? 79.4%? 157? 31.8? last is new.",
    "159 MB take 3.97 ms at 40.0 GB/s (max); 784 MFLOP take 3.92 ms at 200 GFLOP/s (registers); a",
    "1.00 µs (torch of 1x1x1): memory binds",
    "memory limit of the CPU, shortest rounds: sum 30.0 GB/s??, max 40.0 GB/s?? arithmetic",
    # 400 ms / 80 µs times 800 ms / 5 ms; the course: 416 ms / 72.4 µs times 673 ms / 429 µs
    "by steps: loops / broadcast at 5x784x10 times broadcast / last at 50000x784x10: ×800,000* "
    "(the notebook's times, down to its GPU's: ×9,010,000)",
    # 400 ms / 39,200 over 5 ms / 392 million; the course: 416 ms and 429 µs
    "loops at 5x784x10 and in last at 50000x784x10: ×800,000* (the notebook's times, down to its GPU's: ×9,700,000)",
    f"not timed at {SMALL}, {FULL}: x, y: no {{GPU}} ? noisy",
    "* a single round: its spread is unknown measured on: A CPU, family 25, model 1, 256-bit SIMD",
]


def test_report():
    """Each number says what it is: marks stand wherever a doubtful time goes."""
    text = words(saved(untimed=UNTIMED))
    assert [line for line in SAID if line not in text] == []


@pytest.mark.parametrize("last, mark", [
    ({"iqr": 4e-4}, ""), ({"iqr": 6e-4}, "?"), ({"waited": 0.2}, "?"), ({"rounds": 1}, "*"),
    ({"shortest": 2e-3}, "??"), ({"shortest": 3e-3}, ""), ({"waited": 0.6}, "??"),
])  # fmt: skip
def test_marks(last, mark):
    text = words(saved([bench("last", FULL, 5e-3, **last)]))
    assert f" last 5.00 ms{mark} " in text
    assert text.startswith("Something else was running: ") == (mark == "??")


def test_a_limit_is_the_shortest_round_of_what_was_reached():
    """And no rung is above it, whatever disturbed the limit's own benchmark."""
    slow = [limit("memory", "sum", 1e8, 1.0), limit("arithmetic", "registers", 1e9, 1.0), LIMITS[3]]
    run = Run(saved(BENCHMARKS, slow))
    assert {run.share(result) <= 1 for result in run.results} == {True}
    assert run.furthest("cpu")["arithmetic"] == (FULL.flops / 5e-3, "last")
    assert run.furthest("cpu")["memory"] == (FULL.bytes / 5e-3, "last")
    text = words(saved(BENCHMARKS, slow))
    assert "159 MB take 5.00 ms at 31.8 GB/s (last)" in text and " 100%? " in text


def test_no_factor_of_a_disturbed_time():
    """Nor is a mark lost where two times don't differ."""
    disturbed = [bench("dot", SMALL, 5e-5, shortest=1e-5), bench("loops", SMALL, 0.4, iqr=0.3)]
    text = words(saved([*disturbed, bench("broadcast", SMALL, 0.39)], []))
    assert "loops 400 ms? 416 ms 0.000196? " in text
    assert "dot 50.0 µs?? ?? ?? " in text
    assert "broadcast 390 ms 72.4 µs ?? ≈1? " in text


def test_without_limits_nothing_is_claimed_of_them():
    text = words(saved(limits=[]))
    assert "of limit" not in text
    assert "limits of the CPU: not measured (-m ladder times them)" in text
    assert "the run was interrupted before" in words(saved(limits=[], interrupted="SIGTERM"))


def test_an_interrupted_run_says_so():
    assert words(saved(interrupted="KeyboardInterrupt")).startswith("INTERRUPTED: this run is not")


def test_the_whole_way_is_of_the_lesson_s_shapes():
    """Not of any other, nor between times that something has disturbed."""
    other = [bench("loops", Shape(1, 1, 1), 1e-5), bench("torch", Shape(1024, 1024, 1024), 20e-3)]
    assert "the whole way" not in words(saved(other))
    assert "×800,000" in words(saved(BENCHMARKS + other))
    disturbed = [bench("loops", SMALL, 0.4, shortest=0.01), *BENCHMARKS[:5], *BENCHMARKS[6:]]
    assert "The whole way is not given" in words(saved(disturbed))


def test_no_step_over_itself():
    """Where a rung runs another's code; and one that wasn't timed is stepped over."""
    run = Run(saved([bench("tile", SMALL, 8e-6), bench("last", SMALL, 4e-6, same_as="tile")]))
    assert run.previous(run.find(SMALL, "last")) is None
    run = Run(saved([bench("loops", SMALL, 0.4), bench("broadcast", SMALL, 8e-5)]))
    assert run.previous(run.find(SMALL, "broadcast")).rung == "loops"
    run.about["rungs"]["dot"]["before"] = "broadcast"  # which no run of this suite says
    assert run.previous(run.find(SMALL, "broadcast")).rung == "broadcast"


@pytest.mark.parametrize("width", [40, 60, 80, 100, 140, 200])
def test_reports_fit_the_terminal(width):
    """A rung's name, time and sentence are always there."""
    lines = [line for line, _ in report(Run(saved(untimed=UNTIMED)), width)]
    assert max(map(len, lines)) <= width
    assert any(line.startswith("last") and "5.00 ms?" in line for line in lines)
    text = " ".join(" ".join(lines).split())
    assert "last is new." in text and "431,201" in text


def test_side_by_side_fits_the_terminal():
    """Whatever the names; what differs between the runs is said once."""
    new = saved(settings={}, environment={"SECRET": "a1", "SAME": "c", "PWD": "d"}, why_cores="all")
    new["benchmarks"][7]["stats"].update(min=4e-6, median=4e-6)
    new["ladder"]["clock"] = "time.process_time"
    new["commit_info"] = {"id": "fedcba9876543210", "dirty": True}
    old = saved(environment={"SECRET": "b2", "SAME": "c", "PWD": "e"})
    lines = list(side_by_side({"a" * 63: Run(old), "b" * 63: Run(new)}, 80))
    assert max(map(len, lines)) <= 80
    text = " ".join(" ".join(lines).split())
    assert f"A: {'a' * 63}: NUMBA_OPT=0, commit 01234567" in text
    assert "timed by time.process_time" in text and "commit fedcba98 with changes" in text
    assert "environment variables that differ: SECRET" in text and "PWD" not in text
    assert "5x784x10 A of limit vs torch B over A of limit vs torch loops" in text
    assert "torch 8.00 µs 12.5% 4.00 µs ×2.00 25.0%" in text
    assert "dot 50.0 µs 2.00% ÷6.25 50.0 µs ≈1 2.00% ÷12.5" in text
    assert text.count("memory binds") == 2


def test_csv_and_markdown():
    run = Run(saved())
    rows = list(csv.DictReader(export.csv_lines({"a": run})))
    last = next(row for row in rows if (row["rung"], row["shape"]) == ("last", str(FULL)))
    assert float(last["median"]) == 5e-3 and last["doubt"] == "?"
    assert float(last["shortest"]) == 5e-3 and float(last["iqr"]) == 1e-3
    assert float(last["of_limit"]) == pytest.approx(FULL.bytes / 40e9 / 5e-3)
    assert float(last["flop_per_s"]) == pytest.approx(FULL.flops / 5e-3)
    assert float(last["bytes_per_s"]) == pytest.approx(FULL.bytes / 5e-3)
    lines = list(export.markdown_lines(run))
    assert lines[0].startswith("| 5x784x10 | median | course |")
    assert {line.count("|") for line in lines if line} == {lines[0].count("|")}
    assert any(line.startswith("| 50000x784x10 |") for line in lines)


def test_a_terminal_gets_no_control_codes():
    assert encodable("a\x1b[31mb ×2", "utf-8") == "a?[31mb ×2"
    assert encodable("a\x1b[31mb ×2", "ascii") == "a?[31mb x2"


def texts_of(draw):
    """Return all that is written in a picture of a run."""
    from matplotlib.figure import Figure

    figure = Figure()
    draw(figure, Run(saved(interrupted="KeyboardInterrupt")))
    return " ".join(text.get_text() for text in figure.findobj(lambda x: hasattr(x, "get_text")))


def test_pictures():
    """What is doubtful in a run is written in them, and what the axes are."""
    ladder, roofline = texts_of(figures.draw_ladders), texts_of(figures.draw_roofline)
    for text in ladder, roofline:
        assert "INTERRUPTED" in text and "log axis" in text
    for text in "loops  400 ms*", "limit of the CPU (memory): 3.97 ms", "* a single round", "◇":
        assert text in ladder
    assert "40.0 GB/s, then 200 GFLOP/s" in roofline


def test_command_without_torch(python, tmp_path):
    """Of one run: its report, CSV, README; of more, side by side; and a clear error."""

    def ladder(*args):
        env = {"PYTHONIOENCODING": "ascii", "COLUMNS": "100", "PYTHONPATH": str(tmp_path)}
        return python("-m", "ladder", *map(str, args), **env)

    (tmp_path / "torch.py").write_text("1 / 0")
    one, two = write(tmp_path / "1.json", saved()), write(tmp_path / "2.json", saved())
    readme = tmp_path / "README.md"
    readme.write_text("Before\n<!-- ladder: begin -->\nold\n<!-- ladder: end -->\nAfter\n")
    status, output, errors = ladder(one)
    assert (status, errors) == (0, "") and "A CPU, family 25" in output and " ~1? " in output
    assert ladder(one, "--readme", readme) == (0, "", "")
    text = readme.read_text(encoding="utf-8")
    assert text.startswith("Before\n<!-- ladder: begin -->\n```text\n5x784x10 ")
    assert text.endswith("\n```\n<!-- ladder: end -->\nAfter\n") and "old" not in text
    status, output, errors = ladder(one, two)
    assert (status, errors) == (0, "") and "A: 1: " in output
    assert ladder(one, two, "--csv")[1].count("\n") == 1 + 2 * 9
    status, output, errors = ladder(write(tmp_path / "3.json", saved() | {"datetime": None}))
    assert (status, output, errors.count("\n")) == (2, "", 1) and "3.json: not a run" in errors


def test_pictures_in_any_notebook_s_environment(python, tmp_path):
    run = write(tmp_path / "run.json", saved())
    command = "-m", "ladder", str(run), f"--figures={tmp_path / 'drawn'}"
    status, output, errors = python(*command, MPLBACKEND="nonsense")
    assert status == 0 and "ladder.png, roofline.png" in output, errors
    assert {x.name for x in (tmp_path / "drawn").iterdir()} == {"ladder.png", "roofline.png"}


@pytest.mark.parametrize("content, message", [
    ("{}", "not a run of this suite"), ("[", "not a run of this suite"),
    ('{"suite": {}}', "saved by an older version"),
])  # fmt: skip
def test_what_is_no_run(tmp_path, content, message):
    path = tmp_path / "wrong.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=rf"wrong\.json: .*{message}"):
        Run.load(path)


def test_saved_runs():
    """What README shows can be read."""
    paths = list((Path(__file__).parent.parent / "results").glob("*.json"))
    assert paths
    for path in paths:
        assert {SMALL, FULL} <= set(Run.load(path).shapes)
