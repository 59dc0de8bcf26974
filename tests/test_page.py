"""What a reader finds on a page of saved runs, and what can't get onto it."""

import copy
import json
import re
from html.parser import HTMLParser

import pytest

from ladder.page import command
from ladder.page.page import page
from ladder.run import Run

LOOPS = (
    "def loops(a, b):\n    for i in a:\n        for j in b:\n            c = i < j\n    return c\n"
)
DOT = "def dot(a, b):\n    for i in a:\n        c = i @ b\n    return c\n"
SHAPES = "5x784x10", "50000x784x10"


def rung(source, before=None, device="cpu", **more):
    described = {"device": device, "chapter": "the course", "sentence": f"New in {source[4:8]}."}
    described |= {"source": source, "course": {}, "yardstick": False, "before": before}
    return described | more


def timed(rung, shape, shortest, median=None, **info):
    stats = {"min": shortest, "median": median or shortest, "iqr": 0.0, "rounds": 9}
    stats |= {key: info.pop(key) for key in stats.keys() & info}
    info |= {"rung": rung, "shape": shape}
    return {"group": f"matmul {shape}", "stats": stats, "extra_info": info}


def limit(kind, work, device="cpu"):
    info = {"limit": kind, "device": device, "way": "sum", "work": work, "waited": 0.0}
    stats = {"min": 1e-3, "median": 1e-3, "iqr": 0.0, "rounds": 9}
    return {"group": "limit", "stats": stats, "extra_info": info}


SMALL, FULL = SHAPES
SAVED = {
    "benchmarks": [
        timed("loops", SMALL, 0.4, rounds=1, torch_calls=431_201),
        timed("dot", SMALL, 50e-6),
        timed("fast", SMALL, 9e-6, same_as="dot"),
        timed("dot", FULL, 30e-3, median=70e-3),
        timed("fast", FULL, 8e-3, iqr=2e-3),
        timed("gpu", FULL, 1e-4),
        limit("memory", 40e6),
        limit("arithmetic", 200e6),
        limit("call", 1e3),
    ],
    "machine_info": {"cpu": {"brand_raw": "A CPU"}, "system": "Linux", "python_version": "3.13.1"},
    "commit_info": {"id": "abcdef0123", "time": "2026-01-02T00:00:00+00:00", "branch": "main"},
    "datetime": "2026-01-02T03:04:05+00:00",
    "ladder": {
        "rungs": {
            "loops": rung(LOOPS),
            "dot": rung(DOT, before="loops"),
            "fast": rung(
                "def fast(a, b):\n    product = a @ b\n    return product\n", before="dot"
            ),
            "gpu": rung("def gpu(a, b):\n    return launch(a, b)\n", device="cuda"),
        },
        "untimed": [{"rung": "gpu", "shape": SMALL, "reason": "it felt unwell"}],
        "cores": 4,
        "data": "x.gz",
        "settings": {},
        "libraries": {"torch": "2.13.0"},
    },
}


def at_commit(name, day, slower=1.0, cpu="A CPU"):
    """Return a saved run of a commit, in which the rung dot takes longer."""
    saved = copy.deepcopy(SAVED)
    saved["commit_info"] |= {"id": name, "time": f"2026-01-{day:02}T00:00:00+00:00"}
    saved["machine_info"]["cpu"]["brand_raw"] = cpu
    for bench in saved["benchmarks"]:
        if bench["extra_info"].get("rung") == "dot":
            bench["stats"]["min"] *= slower
            bench["stats"]["median"] *= slower
    return saved


class Read(HTMLParser):
    """What a browser makes of a page: its elements, and the text of each one that has an id."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.attributes, self.text, self.open = [], [], "", []
        self.rungs = {}  # {id of a <details class="rung">: its text}
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        self.text += " " if tag in ("td", "th") else ""
        if tag == "details":
            self.open.append(dict(attrs).get("id"))

    def handle_endtag(self, tag):
        if tag == "details":
            self.open.pop()

    def handle_data(self, data):
        self.text += data
        for name in self.open:
            self.rungs[name] = self.rungs.get(name, "") + data

    def values(self, *names):
        return [value for name, value in self.attributes if name in names]

    def words(self):
        return " ".join(self.text.split())


def shown(*saved):
    return Read(page({f"{number}.json": Run(one) for number, one in enumerate(saved)}))


def section(read, title):
    """Return the text from a heading to the next one of its kind, or "" without it."""
    titles = "The ladder|The roofline|Over time|Machines side by side|The runs"
    parts = re.split(f"\n({titles})\n", read.text)
    texts = dict(zip(parts[1::2], parts[2::2], strict=True))  # the last: the first is a link's
    return " ".join(texts.get(title, "").split())


# ---- The ladder --------------------------------------------------------------------


def test_each_rung_has_its_code_and_what_is_known_of_it():
    rungs = shown(SAVED).rungs
    loops, dot = rungs["m0-5x784x10-0"], rungs["m0-5x784x10-1"]
    assert "for j in b:\n            c = i < j\n" in loops
    assert "New in loop." in loops and "torch calls 431,201" in loops and "rounds 9" in dot
    assert "What changed in the code since loops" in dot
    for line in "−         for j in b:", "−             c = i < j", "+         c = i @ b":
        assert line in dot
    fast = rungs["m0-50000x784x10-1"]
    assert "What changed" not in fast and "Too much in it is new" in fast and "dot" in fast
    assert "runs the code of dot" in rungs["m0-5x784x10-2"]


def test_a_mark_says_what_it_means_where_it_stands():
    read = shown(SAVED)
    titles = " ".join(read.values("title"))
    for number, mark, meaning in (
        (SHAPES[0] + "-0", "400 ms*", "a single round"),
        (SHAPES[1] + "-0", "70.0 ms??", "disturbed"),
        (SHAPES[1] + "-1", "8.00 ms?", "noisy"),
    ):
        text = read.rungs[f"m0-{number}"]
        assert mark in text and meaning in text and meaning in titles


def test_no_step_from_or_to_a_disturbed_time():
    rungs = shown(SAVED).rungs
    assert "step ×8,000*" in " ".join(rungs["m0-5x784x10-1"].split())
    assert "step" not in rungs["m0-50000x784x10-1"]


def test_a_bar_is_as_long_as_its_rung_is_fast():
    styles = " ".join(shown(SAVED).values("style"))
    widths = [float(width) for width in re.findall(r"(?<!-)width: ([\d.]+)%", styles)]
    loops, dot, fast, *_ = widths
    assert 0 < loops < dot < fast < 100


def test_what_was_not_timed_interrupted_or_disturbed():
    saved = copy.deepcopy(SAVED)
    saved["ladder"]["interrupted"] = "KeyboardInterrupt"
    words = shown(saved).words()
    assert "not timed at 5x784x10: gpu: it felt unwell" in words
    assert "INTERRUPTED: this run is not whole (KeyboardInterrupt)" in words
    assert "Something else was running" in words


# ---- Several runs ------------------------------------------------------------------


def test_which_commit_made_which_rung_slower():
    runs = [at_commit(f"{day}" * 7, day, slower=1.3 if day > 6 else 1) for day in range(1, 10)]
    words = section(shown(*reversed(runs)), "Over time")  # in whatever order they are named
    changes = "neighbouring runs: dot ÷1.30 from 2026-01-06 6666666 to 2026-01-07 7777777 As a"
    assert words.count(changes) == 2, "at both shapes, and nothing else"


def test_what_else_differs_between_neighbours():
    old, new = at_commit("1" * 7, 1), at_commit("2" * 7, 2)
    new["ladder"]["libraries"] = {"torch": "2.14.0"}
    new["ladder"]["settings"] = {"OMP_NUM_THREADS": "1"}
    words = section(shown(old, new), "Over time")
    assert "torch 2.13.0 → 2.14.0; OMP_NUM_THREADS none → 1" in words
    assert "→" not in section(shown(old, at_commit("2" * 7, 2)), "Over time")


def test_runs_of_two_machines_are_never_joined():
    mine, yours = at_commit("1" * 7, 1), at_commit("2" * 7, 2, cpu="Your CPU")
    assert section(shown(mine, yours), "Over time") == ""
    words = section(shown(mine, yours, at_commit("3" * 7, 3, slower=2)), "Over time")
    assert "1111111" in words and "3333333" in words
    assert "2222222" not in words and "Your CPU" not in words


def test_machines_side_by_side():
    mine, yours = at_commit("1" * 7, 1), at_commit("2" * 7, 2, cpu="Your CPU")
    yours["benchmarks"] = [b for b in yours["benchmarks"] if b["extra_info"].get("rung") != "gpu"]
    read = shown(mine, yours)
    words = section(read, "Machines side by side")
    assert "A CPU, 4 cores, Linux" in words and "Your CPU, 4 cores, Linux" in words
    assert "dot 2.00% 50.0 µs 2.00% 50.0 µs" in words and "gpu not timed" in words
    assert "the same as on the machine above" in read.text, "code stands on a page once"
    assert "def dot" in read.rungs["m0-5x784x10-1"] and "def dot" not in read.rungs["m1-5x784x10-1"]


def test_a_shape_that_the_newest_run_lacks():
    """Its ladder is from the newest run that has it, and says so."""
    runs = [at_commit(f"{day}" * 7, day) for day in (1, 2, 3)]
    runs[2]["benchmarks"] = [b for b in runs[2]["benchmarks"] if b["group"] != f"matmul {FULL}"]
    read = shown(*runs)
    words = section(read, "The ladder")
    assert "5 × 784 × 10 rung" in words
    assert "50000 × 784 × 10 commit 2222222 of 2026-01-02" in words
    assert "disturbed (??)" in words and "1111111" not in words
    assert "30.0 ms" in read.rungs[f"m0-{FULL}-0"]


def test_a_run_that_lacks_a_shape_or_a_rung():
    runs = [at_commit(f"{day}" * 7, day) for day in (1, 2, 3)]
    lacking = runs[1]["benchmarks"]
    lacking[:] = [bench for bench in lacking if bench["group"] != f"matmul {FULL}"][1:]
    words = section(shown(*runs), "Over time")
    assert "loops 400 ms* — 400 ms*" in words and "dot 50.0 µs 50.0 µs 50.0 µs" in words
    assert "gpu 100 µs — 100 µs" in words


# ---- Texts of others ---------------------------------------------------------------

EVIL = (
    '$\\frac$"><img src=x onerror=alert(1)></style></svg><script>alert(1)</script>{{ 7 }}\x00\ud800'
)
NAMES = "device", "group", "shape", "limit"  # of texts that aren't shown as they are


def spoiled(value, name=None):
    """Return what was in a JSON with something evil behind each text, and each free name."""
    if isinstance(value, dict):
        free = name in ("rungs", "libraries", "settings")
        return {key + EVIL * free: spoiled(inner, key) for key, inner in value.items()}
    if isinstance(value, list):
        return [spoiled(inner, name) for inner in value]
    return value + EVIL if isinstance(value, str) and name not in NAMES else value


def test_a_text_is_shown_as_text():
    """In tables, code, attributes and pictures."""
    evil = [spoiled(at_commit("1" * 7, 1)), spoiled(at_commit("2" * 7, 2, slower=2))]
    for one in evil:
        one["commit_info"]["time"] = one["datetime"] = "2026-01-01"
    read, harmless = shown(*evil), shown(at_commit("1" * 7, 1), at_commit("2" * 7, 2, slower=2))
    assert {*read.tags} == {*harmless.tags}
    assert {name for name, _ in read.attributes} == {name for name, _ in harmless.attributes}
    text = EVIL.replace("\x00", "\ufffd").replace("\ud800", "\ufffd")
    for place in "def dot(a, b):", "torch", "A CPU", "it felt unwell", "the course", "loops":
        assert place in read.text
    assert read.text.count(text) > 50
    page({f"{EVIL}": Run(SAVED)}).encode()


def test_nothing_is_loaded_and_every_link_leads_somewhere():
    runs = [at_commit("1" * 7, 1), at_commit("2" * 7, 2), at_commit("3" * 7, 3, cpu="Your CPU")]
    read = shown(*runs)
    assert {"script", "img", "iframe", "object"}.isdisjoint(read.tags)
    ids = read.values("id")
    links = {link for link in read.values("href", "src", "xlink:href") if link != "data:,"}
    links |= {link[4:-1] for link in read.values("clip-path")}
    assert len(ids) == len({*ids}) and links and links <= {f"#{one}" for one in ids}
    assert (
        re.findall(r"url\((?!#)|@import|https?://(?!www\.w3\.org/)", page({"": Run(SAVED)})) == []
    )


# ---- The command -------------------------------------------------------------------


def written(path, saved):
    path.write_text(json.dumps(saved))
    return path


def test_command_without_torch(python, tmp_path):
    """A folder's runs make a page; what is no run there is left out, and said."""
    (tmp_path / "torch.py").write_text("1 / 0")
    (tmp_path / "machine").mkdir()
    for day in 1, 2:
        written(tmp_path / "machine" / f"{day}.json", at_commit(f"{day}" * 7, day))
    written(tmp_path / "other.json", {"not": "a run"})
    report = tmp_path / "report.html"
    args = "-m", "ladder", "page", str(tmp_path), "-o", str(report)
    status, output, errors = python(*args, PYTHONPATH=str(tmp_path), MPLBACKEND="nonsense")
    assert status == 0 and "report.html (runs: 2, " in output
    assert errors.count("\n") == 1 and "other.json: not a run of this suite" in errors
    assert "1111111" in section(Read(report.read_text(encoding="utf-8")), "Over time")


def no_rung(saved):
    saved["benchmarks"] = saved["benchmarks"][-3:]


def no_number(saved):
    saved["benchmarks"][0]["stats"]["min"] = float("nan")


def no_time(saved):
    saved["benchmarks"][0]["stats"]["median"] = 0


def no_text(saved):
    saved["ladder"]["rungs"]["dot"]["source"] = ["def dot"]


def no_device(saved):
    saved["ladder"]["rungs"]["dot"]["device"] = "abacus"


def no_date(saved):
    saved["datetime"] = 2026


def no_names(saved):
    saved["ladder"]["libraries"] = ["torch"]


SPOILT = no_rung, no_number, no_time, no_text, no_device, no_date, no_names


@pytest.mark.parametrize("spoil", SPOILT)
def test_a_run_that_no_page_can_show(tmp_path, spoil):
    saved = copy.deepcopy(SAVED)
    spoil(saved)
    with pytest.raises(ValueError, match=r"^[^\n]*bad\.json: not a run of this suite[^\n]*$"):
        command.load([written(tmp_path / "bad.json", saved)])


def test_bad_input_leaves_the_old_page(tmp_path, monkeypatch):
    good, stranger = written(tmp_path / "good.json", SAVED), copy.deepcopy(SAVED)
    stranger["benchmarks"] = [timed("dot", "2x2x2", 1e-6)]
    written(tmp_path / "stranger.json", stranger)
    (tmp_path / "broken.json").write_text('{"benchmarks": [')
    (tmp_path / "empty").mkdir()
    output = tmp_path / "report.html"
    output.write_text("old")
    for names, error in (
        (["good.json", "nothing.json"], "nothing.json"),
        (["good.json", "broken.json"], "broken.json: not a run of this suite"),
        (["good.json", "stranger.json"], "stranger.json|good.json: no shape in common"),
        (["empty"], "empty: no run of this suite"),
    ):
        with pytest.raises((OSError, ValueError), match=error):
            command.main([*(str(tmp_path / name) for name in names), "-o", str(output)])
    with pytest.raises(OSError, match="empty"):
        command.main([str(good), "-o", str(tmp_path / "empty")])
    with pytest.raises(ValueError, match="is one of the runs"):
        command.main([str(good), "-o", str(good)])
    monkeypatch.setattr(command, "LARGEST", 10)
    with pytest.raises(ValueError, match="good.json: .* MB"):
        command.main([str(good), "-o", str(output)])
    assert output.read_text() == "old" and json.loads(good.read_text()) == SAVED
    assert not list(tmp_path.glob("*.part"))


def test_a_run_of_pytest_writes_its_page(python, tmp_path):
    """Of the real rungs: their kernels stand beside their numbers."""
    report = tmp_path / "new" / "report.html"
    args = "-k", "test_rung and numba_dot", "--mnist=sample", f"--page={report}"
    args += "-p", "no:cacheprovider", "--benchmark-only", "test_matmul.py"
    status, output, _ = python("-m", "pytest", *args)
    assert status == 0 and f"written: {report}" in output
    read = Read(report.read_text(encoding="utf-8"))
    assert "res += a[i] * b[i]" in read.rungs["m0-5x784x10-0"]
