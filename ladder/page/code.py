"""The code of rungs as HTML: highlighted, and compared with the rung before."""

import re
from difflib import SequenceMatcher
from functools import cache

from markupsafe import Markup, escape

ALIKE = 0.3  # of two rungs' lines; where less is the same, it is other code, and no change
CONTEXT = 3  # lines around what has changed


@cache
def classes():
    """Return ``{token of Pygments: class in style.css}``; the rest is plain, which keeps it small."""
    from pygments.token import Comment, Keyword, Name, Number, Operator, String

    return {
        Comment: "c",
        Keyword: "k",
        Operator.Word: "k",
        Number: "m",
        String: "s",
        Name.Decorator: "d",
        Name.Function: "f",
    }


@cache
def highlighted(source):
    """Return the lines of a Python source as a tuple of Markup."""
    from pygments.lexers import PythonLexer

    known, lines = classes(), [[]]
    for token, text in PythonLexer(stripnl=False).get_tokens(source):
        name = next((name for parent, name in known.items() if token in parent), None)
        for number, part in enumerate(text.split("\n")):
            if number:
                lines.append([])
            if part and name:
                lines[-1].append(Markup('<span class="{}">{}</span>').format(name, part))
            elif part:
                lines[-1].append(escape(part))
    return tuple(Markup("").join(line) for line in lines[:-1])


def as_html(source):
    return Markup("\n").join(highlighted(source))


def essence(rung, source):
    """Return what of a rung's code is worth comparing: no docstrings, no ``@rung(...)``, and its
    name as the notebook has it, which calls each of them matmul."""
    source = re.sub(r'(?ms)^ *r?""".*?"""\n', "", source)
    source = re.sub(r"(?ms)^@rung\b.*?(?=^def )", "", source)
    return source.replace(f"def {rung}(", "def matmul(")


def changes(old, new):
    """Return the lines of two codes as (mark, Markup): "-" only in the old one, "+" only in the
    new one, " " in both, "…" for some that were left out. Return None unless they are alike."""
    before, after = old.splitlines(), new.splitlines()
    matcher = SequenceMatcher(None, before, after, autojunk=False)
    if matcher.ratio() < ALIKE:
        return None
    if before == after:
        return []
    old_lines, new_lines, found, end = highlighted(old), highlighted(new), [], 0
    for group in matcher.get_grouped_opcodes(CONTEXT):
        if group[0][3] > end:
            found.append(("…", Markup("")))
        for tag, i, i_end, j, j_end in group:
            if tag == "equal":
                found += [(" ", line) for line in new_lines[j:j_end]]
            else:
                found += [("-", line) for line in old_lines[i:i_end]]
                found += [("+", line) for line in new_lines[j:j_end]]
        end = group[-1][4]
    if end < len(after):
        found.append(("…", Markup("")))
    return found
