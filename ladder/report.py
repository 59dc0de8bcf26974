"""The report of one run, as lines of text: what a person reads at its end."""

import math

from ladder.run import DISTURBED, NOISY, gravest
from ladder.text import aligned, digits, folded, percent, seconds, shortened, size, times

BAR = 20  # characters
CLOCK = "time.perf_counter"  # of --benchmark-timer, unless somebody wants another
DEVICES = {"cpu": "CPU", "cuda": "GPU"}


# ---- Cells -------------------------------------------------------------------------


def time_of(result):
    return f"{seconds(result.median)}{result.doubt}"


def speed_up(run, old, new):
    """Return how many times faster one `Result` is than another, with the gravest of their marks;
    of disturbed times no factor, but their mark alone."""
    if old is None or old is new:
        return ""
    ratio, apart = run.speed_up(old, new)
    mark = gravest(old.doubt, new.doubt)
    if mark == "??":
        return mark
    if apart:
        return times(ratio) + mark
    if 1 / (1 + NOISY) < ratio < 1 + NOISY:
        return f"≈1{mark}"
    return times(ratio) + (mark or "?")  # within the spread of their rounds


def rate(result, work):
    return digits(work / result.median / 1e9) + result.doubt


def median(run, result):
    return time_of(result)


def course(run, result):
    return seconds(result.course) if result.course else ""


def step(run, result):
    return speed_up(run, run.previous(result), result)


def in_all(run, result):
    return speed_up(run, run.at(result.shape)[0], result)


def vs_torch(run, result):
    return speed_up(run, run.yardstick(result), result)


def share_of_limit(run, result):
    share = run.share(result)
    return "" if share is None else percent(share) + result.doubt


def gflops(run, result):
    return rate(result, result.shape.flops)


def gigabytes(run, result):
    return rate(result, result.shape.bytes)


def torch_calls(run, result):
    return f"{result.torch_calls:,}" if result.torch_calls else ""


# From left to right.
COLUMNS = {
    "median": median,
    "course": course,
    "step": step,
    "in all": in_all,
    "vs torch": vs_torch,
    "of limit": share_of_limit,
    "GFLOP/s": gflops,
    "GB/s": gigabytes,
    "torch calls": torch_calls,
}
# A narrow terminal has these, as far as there is room; a wide one the others, too.
WANTED = "median", "step", "of limit", "vs torch", "in all", "torch calls", "course"


# ---- One shape ---------------------------------------------------------------------


def table(run, shape, names):
    """Return the cells of one shape: a row of headings, and a row for each rung."""
    rows = [[str(shape), *names]]
    for result in run.at(shape):
        rows.append([result.rung, *(COLUMNS[name](run, result) for name in names)])
    return rows


def columns_that_fit(run, shape, width):
    """Return the names of the columns that have something to show, and fit beside short bars."""
    chosen = ["median"]
    for name in dict.fromkeys([*WANTED, *COLUMNS]):
        more = [column for column in COLUMNS if column in (*chosen, name)]
        rows = table(run, shape, more)
        place = more.index(name) + 1
        empty = not any(row[place] for row in rows[1:])
        if not empty and len(aligned(rows)[0]) + BAR / 2 <= width:
            chosen = more
    return chosen


def ladder(run, shape, width):
    """Yield the lines of one shape as (text, style): a bar is a rung's speed on a log scale, from
    the slowest rung to the fastest."""
    results = run.at(shape)
    header, *body = aligned(table(run, shape, columns_that_fit(run, shape, width)))
    bar = min(BAR, max(0, width - max(map(len, body)) - 2))
    words = width - max(map(len, body)) - bar - 4
    slow = max(result.median for result in results)
    fast = min(result.median for result in results)
    shortest = min(result.shortest for result in results)
    across = max(map(len, [header, *body]))
    yield "", ""
    bars = "speed, log scale" if bar >= 16 else "log speed"[:bar]
    yield f"{header.ljust(across)}  {bars}".rstrip(), "bold"
    chapter = results[0].chapter
    for result, line in zip(results, body, strict=True):
        if result.chapter != chapter:
            chapter = result.chapter
            yield f"-- {chapter} ".ljust(across, "-"), "light"
        filled = round(bar * math.log(slow / result.median) / (math.log(slow / fast) or 1))
        line = f"{line.ljust(across)}  {'█' * filled:{bar}}"
        if words >= 60:
            line += f"  {shortened(result.sentence, words)}"
        yield line.rstrip(), "green" if result.shortest == shortest else ""
    for line in folded(about(run, shape), width):
        yield line, ""


def about(run, shape):
    """Yield what holds for one shape: the fastest rung, which code runs, what the limits are."""
    results = run.at(shape)
    best = min(results, key=lambda result: result.shortest)
    yield (
        f"fastest at {shape}, by its shortest round: {best.rung}, {seconds(best.shortest)} "
        f"(median {time_of(best)})"
    )
    for result in results:
        if result.same_as:
            yield f"{result.rung} runs the code of {result.same_as} at {shape}"
    for device in dict.fromkeys(result.device for result in results):
        yield limits_of(run, device, shape)


def limits_of(run, device, shape):
    """Return a sentence on the limits of a device at one shape."""
    name, bounds = DEVICES[device], run.bounds(device, shape)
    if not bounds:
        unfinished = "the run was interrupted before" if run.interrupted else "-m ladder times them"
        return f"limits of the {name}: not measured ({unfinished})"
    parts = []
    for bound in bounds:
        if bound.kind == "call":
            text = f"a call takes {seconds(bound.seconds)}"
        elif bound.kind == "memory":
            rate = size(bound.rate, "B/s")
            text = f"{size(shape.bytes, 'B')} take {seconds(bound.seconds)} at {rate}"
        else:
            rate = size(bound.rate, "FLOP/s")
            text = f"{size(shape.flops, 'FLOP')} take {seconds(bound.seconds)} at {rate}"
        parts.append(f"{text} ({bound.reached_by})")
    if not run.reads_memory(device, shape):
        parts.append(f"{size(shape.bytes, 'B')} may stay in a cache")
    return f"limits of the {name}: {'; '.join(parts)}: {bounds[0].kind} binds"


# ---- The whole run -----------------------------------------------------------------


def warnings(run):
    """Yield what a reader has to know before any number: that the run is not whole, or disturbed."""
    if run.interrupted:
        yield f"INTERRUPTED: this run is not whole ({run.interrupted})."
    disturbed = [result for result in run.results if result.doubt == "??"]
    waited = max((result.waited for result in run.results), default=0)
    if disturbed:
        yield (
            f"Something else was running: {len(disturbed)} of {len(run.results)} times are "
            f"disturbed (??), and a thread waited for a core up to {percent(waited)} of the time. "
            "Run it again when the machine is quiet, or in one thread: OMP_NUM_THREADS=1 "
            "NUMBA_NUM_THREADS=1."
        )


def remarks(run):
    """Yield what holds for all tables: how the limits were measured, the whole way, what was not
    timed, and the marks."""
    units = {"call": None, "memory": "B/s", "arithmetic": "FLOP/s"}
    for device in dict.fromkeys(limit.device for limit in run.limits):
        for kind, unit in units.items():
            found = [x for x in run.limits if (x.device, x.kind) == (device, kind)]
            values = [
                f"{x.way} {size(x.rate, unit) if unit else seconds(1 / x.rate)}{x.doubt}"
                for x in found
            ]
            if values:
                yield f"{kind} limit of the {DEVICES[device]}, shortest rounds: {', '.join(values)}"
    yield from whole_way(run)
    yield from untimed(run)
    yield from marks(run.results)


def whole_way(run):
    """Yield how far it is from the lesson's first rung to the fastest, by two formulas."""
    ends = run.whole_way()
    if not ends or run.interrupted:
        return
    first, bridge, crossed, fastest = ends
    doubt = gravest(*(result.doubt for result in ends))
    if doubt == "??":
        yield "The whole way is not given: something has disturbed one of its ends."
        return
    ours = [result.median for result in ends]
    course = run.course_whole_way(first, bridge, fastest)
    yield (
        f"the whole way, by steps: {first.rung} / {bridge.rung} at {first.shape} times "
        f"{crossed.rung} / {fastest.rung} at {fastest.shape}: ×{by_steps(*ours)}{doubt} (the "
        f"notebook's times, down to its GPU's: ×{by_steps(*course)})"
    )
    more_work = fastest.shape.flops / first.shape.flops
    yield (
        f"the whole way, by the time of a multiply-add in {first.rung} at {first.shape} and in "
        f"{fastest.rung} at {fastest.shape}: ×{digits(ours[0] / ours[3] * more_work)}{doubt} (the "
        f"notebook's times, down to its GPU's: ×{digits(course[0] / course[3] * more_work)})"
    )


def by_steps(first, bridge, crossed, fastest):
    return digits(first / bridge * crossed / fastest)


def untimed(run):
    """Yield which rungs were not timed, and why; those with one reason together."""
    by_rung = {}
    for one in run.about["untimed"]:
        by_rung.setdefault((one["rung"], one["reason"]), []).append(one["shape"])
    together = {}
    for (rung, reason), shapes in by_rung.items():
        together.setdefault((", ".join(shapes), reason), []).append(rung)
    for (shapes, reason), rungs in together.items():
        yield f"not timed at {shapes}: {', '.join(rungs)}: {reason}"


def marks(results):
    """Yield what the marks mean that stand beside some of the results."""
    meanings = {
        "?": f"? noisy: half of the rounds spread over {NOISY:.0%} or more, or a thread waited for "
        f"a core for {NOISY:.0%} of the time or more",
        "*": "* a single round: its spread is unknown",
        "??": f"?? disturbed: the median is over {DISTURBED} times the shortest round, or a thread "
        "waited for a core most of the time; it says little of the code",
    }
    doubts = {result.doubt for result in results}
    yield from (meaning for mark, meaning in meanings.items() if mark in doubts)


def sentences(run):
    """Yield what is new in each rung, and how many operations of torch it asks for."""
    found = {}
    for result in run.results:
        calls = ""
        if result.torch_calls:
            calls = f" (torch calls: {result.torch_calls:,})"
        found.setdefault(result.rung, f"{result.rung}: {result.sentence}{calls}")
    yield from found.values()


def machine(run):
    """Return the facts about the machine, the libraries and the data of a run."""
    info, about = run.saved.get("machine_info") or {}, run.about
    cpu = info.get("cpu", {})
    facts = [cpu.get("brand_raw") or info.get("machine", "?")]
    facts += [f"{key} {cpu[key]}" for key in ("family", "model") if key in cpu]
    facts += [about[key] for key in ("simd", "threads", "gpu") if about.get(key)]
    facts += [info.get("system", "?"), f"Python {info.get('python_version', '?')}"]
    facts += [f"{name} {version}" for name, version in about.get("libraries", {}).items()]
    facts += [f"{name}={value}" for name, value in about.get("settings", {}).items()]
    if about.get("clock", CLOCK) != CLOCK:
        facts.append(f"timed by {about['clock']}")
    return [*facts, f"data {about.get('data', '?')}", run.saved.get("datetime", "?")[:10]]


def report(run, width=100):
    """Yield the lines of a run's report as (text, style), for a terminal of so many columns."""
    for line in folded(warnings(run), width):
        yield line, "red"
    for shape in run.shapes:
        yield from ladder(run, shape, width)
    if run.shapes and width < 160:  # or else they stand beside the bars
        yield "", ""
        for line in folded(sentences(run), width):
            yield line, ""
    yield "", ""
    for line in folded([*remarks(run), *measured_on(run)], width):
        yield line, ""


def measured_on(run):
    if run.results:
        yield "measured on: " + ", ".join(machine(run))
