"""Several runs side by side, as lines of text: a column a run, and speed-ups over the first."""

from ladder.report import about, machine, marks, share_of_limit, speed_up, time_of, warnings
from ladder.run import Run
from ladder.text import aligned, folded

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
# Variables that differ between two shells, whatever is measured there.
OF_A_SHELL = {"_", "COLUMNS", "LINES", "OLDPWD", "PWD", "SHLVL", "PYTEST_CURRENT_TEST", "TERM"}


def side_by_side(runs: dict[str, Run], width):
    """Yield the lines of ``{name: run}``, for a terminal of so many columns."""
    letters = dict(zip(LETTERS, runs.items(), strict=False))
    if len(letters) < len(runs):
        raise ValueError(f"{len(runs)} runs side by side are too many: {len(LETTERS)} at most")
    yield from folded([*who_is_who(letters), *differences(letters)], width)
    for shape in dict.fromkeys(shape for run in runs.values() for shape in run.shapes):
        yield ""
        yield from table_that_fits(letters, shape, width)
        for letter, (_, run) in letters.items():
            if shape in run.shapes:
                yield from folded([f"{letter}: {line}" for line in about(run, shape)], width)
    yield ""
    yield "×2 is twice as fast as A, ÷2 half as fast, ≈1 no different"
    for letter, (_, run) in letters.items():
        yield from folded([f"{letter}: {line}" for line in marks(run.results)], width)


def table_that_fits(letters, shape, width):
    """Return the lines of one shape: as many columns for each run as there is room for."""
    columns = ["time", "over A", "of limit", "vs torch"]
    while len(columns) > 1:
        lines = aligned(table(letters, shape, columns))
        if max(map(len, lines)) <= width:
            return lines
        columns.pop()
    return aligned(table(letters, shape, columns))


def table(letters, shape, columns):
    """Return the cells of one shape: a row of headings, and a row for each rung."""
    headings = [str(shape)]
    for letter in letters:
        headings += [letter, *columns_of(letter, columns)[1:]]
    rows = [headings]
    by_run = {letter: {x.rung: x for x in run.at(shape)} for letter, (_, run) in letters.items()}
    for rung in dict.fromkeys(rung for results in by_run.values() for rung in results):
        row, first = [rung], by_run["A"].get(rung)
        for letter, (_, run) in letters.items():
            row += cells(run, first, by_run[letter].get(rung), columns_of(letter, columns))
        rows.append(row)
    return rows


def columns_of(letter, columns):
    return [column for column in columns if column != "over A" or letter != "A"]


def cells(run, first, result, columns):
    if result is None:
        return [""] * len(columns)
    texts = {
        "time": time_of(result),
        "over A": speed_up(run, first, result),
        "of limit": share_of_limit(run, result),
        "vs torch": speed_up(run, run.yardstick(result), result),
    }
    return [texts[column] for column in columns]


def who_is_who(letters):
    """Yield which run a letter is: its name, what only it has, its commit; what is wrong with it."""
    facts = {letter: machine(run) for letter, (_, run) in letters.items()}
    for letter, (name, run) in letters.items():
        commit = run.saved.get("commit_info") or {}
        own = [x for x in facts[letter] if not all(x in others for others in facts.values())]
        if why := run.about.get("why_cores"):
            own.append(f"{run.about.get('cores')} cores ({why})")
        changes = " with changes" if commit.get("dirty") else ""
        own.append(f"commit {(commit.get('id') or '?')[:8]}{changes}")
        yield f"{letter}: {name}: {', '.join(own)}"
        for line in warnings(run):
            yield f"{letter}: {line}"


def differences(letters):
    """Yield what else differs between the runs: variables of the environment, by name."""
    differing = differing_variables([run for _, run in letters.values()])
    if differing:
        yield f"environment variables that differ: {', '.join(differing)}"


def differing_variables(runs):
    """Return the names of the environment variables that differ between runs, but for a shell's."""
    prints = [run.about.get("environment", {}) for run in runs]
    names = sorted({name for one in prints for name in one} - OF_A_SHELL)
    return [name for name in names if len({one.get(name) for one in prints}) > 1]
