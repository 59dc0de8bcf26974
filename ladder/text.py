"""Numbers and tables as text."""

import math
from textwrap import wrap

PREFIXES = {12: "T", 9: "G", 6: "M", 3: "k", 0: "", -3: "m", -6: "µ", -9: "n", -12: "p"}
PLAIN = str.maketrans({"×": "x", "÷": "/", "µ": "u", "█": "#", "≈": "~", "…": "."})


def digits(value):
    """Return a positive number with three significant digits: 1,230 or 1.23 or 0.0123."""
    value = float(f"{value:.3g}")
    if value == 0:
        return "0"
    decimals = max(0, 2 - math.floor(math.log10(value)))
    return f"{value:,.{decimals}f}"


def size(value, unit):
    """Return a number with its unit: 1.5e8 bytes are "150 MB", 0.0123 s are "12.3 ms"."""
    fitting = [power for power in PREFIXES if value >= 0.9995 * 10**power]
    power = max(fitting, default=min(PREFIXES))
    return f"{digits(value / 10**power)} {PREFIXES[power]}{unit}"


def seconds(value):
    return size(value, "s")


def round_seconds(value):
    """Return a time as "10 µs", not "10.0 µs"."""
    return seconds(value).replace(".00", "").replace(".0 ", " ")


def times(ratio):
    """Return a speed-up: ×2.00 is twice as fast, ÷2.00 half as fast."""
    return f"×{digits(ratio)}" if ratio >= 0.995 else f"÷{digits(1 / ratio)}"


def percent(share):
    """Return a share as a percentage: 0.123 is "12.3%"; what is too small to matter "<0.001%"."""
    return f"{digits(100 * share)}%" if share >= 1e-5 else "<0.001%"


def shortened(text, width):
    """Return a text of so many characters at most."""
    return text if len(text) <= width else f"{text[: width - 1]}…"


def across(shape):
    """Return a shape as "5 × 784 × 10"."""
    return str(shape).replace("x", " × ")


def aligned(rows):
    """Return the rows as lines: the first column to the left, the others to the right."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines = []
    for first, *others in rows:
        cells = [first.ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        lines.append("  ".join(cells).rstrip())
    return lines


def folded(lines, columns):
    """Return the lines, each broken where it is longer than so many columns."""
    found = []
    for line in lines:
        found += wrap(line, columns, subsequent_indent="  ") or [""]
    return found


def encodable(text, encoding):
    """Return the text as a terminal can show it: without control characters, and with plain letters
    for what its encoding lacks."""
    text = "".join(letter if letter.isprintable() else "?" for letter in text)
    if str(encoding).lower().startswith("utf"):
        return text
    return text.translate(PLAIN).encode("ascii", "replace").decode()
