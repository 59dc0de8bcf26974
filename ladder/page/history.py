"""Runs in the order of their commits, by machine, and what differs between neighbours."""

from dataclasses import dataclass
from datetime import UTC, datetime

from ladder.run import NOISY, Run
from ladder.side_by_side import differing_variables


@dataclass(eq=False)
class Entry:
    """A run, and what tells it from others."""

    name: str  # of its file
    run: Run
    machine: str
    commit: str  # its short id, with a + if the run had changes that are not committed
    dirty: bool
    branch: str
    committed: datetime | None
    measured: datetime | None

    @property
    def day(self):
        """The date of the commit or else, without one, of the run."""
        when = self.committed or self.measured
        return f"{when:%Y-%m-%d}" if when else "?"

    @property
    def label(self):
        interrupted = ", interrupted" if self.run.interrupted else ""
        return f"{self.day} {self.commit}{interrupted}"

    @property
    def order(self):
        first = datetime.min.replace(tzinfo=UTC)
        measured = self.measured or first
        return self.committed or measured, measured


def entry(name, run):
    """Return the `Entry` of a run. Raises TypeError or AttributeError for what is no text."""
    commit = run.saved.get("commit_info") or {}
    dirty = bool(commit.get("dirty"))
    return Entry(
        name=name,
        run=run,
        machine=machine_of(run),
        commit=f"{(commit.get('id') or '?')[:7]}{'+' if dirty else ''}",
        dirty=dirty,
        branch=commit.get("branch") or "?",
        committed=moment(commit.get("time")),
        measured=moment(run.saved.get("datetime")),
    )


def moment(text):
    """Return the point in time that a text names, or None; without a zone, it is UTC."""
    try:
        found = datetime.fromisoformat(text or "")
        return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        return None


def machine_of(run):
    """Return which machine a run is of, as text: its CPU, cores, GPU and system.

    Not its name, which is another one in each container: `differences` tells of that.
    """
    info, about = run.saved.get("machine_info") or {}, run.about
    cpu = info.get("cpu") or {}
    parts = [str(cpu.get("brand_raw") or info.get("machine") or "an unknown CPU")]
    parts += [f"{key} {cpu[key]}" for key in ("family", "model") if key in cpu]
    parts += [f"{about.get('cores', '?')} cores", str(info.get("system", "?"))]
    if about.get("gpu"):
        parts.append(str(about["gpu"]))
    return ", ".join(parts)


def by_machine(entries):
    """Return ``{machine: its entries}``, by commit; the machine of the newest commit first."""
    found = {}
    for one in sorted(entries, key=lambda one: one.order):
        found.setdefault(one.machine, []).append(one)
    newest_first = sorted(found, key=lambda machine: found[machine][-1].order, reverse=True)
    return {machine: found[machine] for machine in newest_first}


# ---- Between neighbours ------------------------------------------------------------


def facts(run):
    """Return ``{name: value}`` of what may change the times of one machine."""
    info, about = run.saved.get("machine_info") or {}, run.about
    found = {
        "computer": info.get("node"),
        "Python": info.get("python_version"),
        "system": info.get("release"),
        "SIMD": about.get("simd"),
        "threads": about.get("threads"),
        "cores by": about.get("why_cores"),
        "data": about.get("data"),
        "clock": about.get("clock"),
    }
    return found | about.get("libraries", {}) | about.get("settings", {})


def differences(old, new):
    """Yield what differs between two runs, but for their commits and times."""
    before, after = facts(old), facts(new)
    for name in dict.fromkeys([*before, *after]):
        if before.get(name) != after.get(name):
            yield f"{name} {before.get(name) or 'none'} → {after.get(name) or 'none'}"
    told = {*old.about.get("settings", {}), *new.about.get("settings", {})}
    changed = [name for name in differing_variables([old, new]) if name not in told]
    if changed:
        yield f"environment variables: {', '.join(changed)}"


def largest_changes(entries, shape, most=5):
    """Return how the shortest rounds of neighbouring runs differ, the largest change first.

    That is ``(rung, old entry, new entry, speed-up)``, as far as it is 10% or more. A rung is
    compared with the last run that has it.
    """
    found, last = [], {}
    for one in entries:
        for result in one.run.at(shape):
            if result.rung in last:
                before, old = last[result.rung]
                speed_up = old.shortest / result.shortest
                if not 1 / (1 + NOISY) < speed_up < 1 + NOISY:
                    found.append((result.rung, before, one, speed_up))
            last[result.rung] = one, result
    found.sort(key=lambda change: max(change[3], 1 / change[3]), reverse=True)
    return found[:most]
