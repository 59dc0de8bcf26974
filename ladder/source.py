"""The code of a function as text: what a reader needs of its file, and not the rest of it."""

import ast
import inspect

EXPLAINED = "beyond", "kernels"  # what is imported from there is this project's own idea
LINE = 100  # characters


def code_of(fn, without=()):
    """Return the source of a function, below what it uses of the same file, in the file's order.

    That is each definition or assignment that it names, and what those name, but for the functions
    whose names are in ``without``. On top stand the imports of what it uses of other files in
    `EXPLAINED`, whose code is not part of the text. Returns the function alone where its file can't be
    read, as in a notebook. Raises OSError or TypeError if Python finds no source at all.
    """
    own = inspect.getsource(fn)
    try:
        text = inspect.getsource(inspect.getmodule(fn))
    except (OSError, TypeError):
        return own
    statements = ast.parse(text).body
    function = statement_at(statements, inspect.getsourcelines(fn)[1])
    if function is None or fn.__name__ not in names_defined(function):
        return own
    places = {name: one for one in statements for name in names_defined(one)}
    needed, used = {function}, set()
    wanted = names_used(function.body)
    while wanted:
        name = wanted.pop()
        used.add(name)
        if name in places and name not in without and places[name] not in needed:
            needed.add(places[name])
            wanted |= names_used([places[name]])
    imports = imports_of(used, statements)
    code = joined([one for one in statements if one in needed], text.splitlines())
    return f"{imports}\n{code}" if imports else code


def imports_of(names, statements):
    """Return the imports from `EXPLAINED` at the top of a file as text, with these names alone."""
    lines = []
    for one in statements:
        if not isinstance(one, ast.ImportFrom) or one.level:
            continue
        if one.module.partition(".")[0] not in EXPLAINED:
            continue
        found = [ast.unparse(x) for x in one.names if (x.asname or x.name) in names]
        line = f"from {one.module} import {', '.join(found)}"
        if len(line) > LINE:
            line = f"from {one.module} import (\n    " + ",\n    ".join(found) + ",\n)"
        if found:
            lines.append(line + "\n")
    return "".join(lines)


def statement_at(statements, line):
    """Return the function definition that covers a line of the file, or None."""
    for one in statements:
        if isinstance(one, ast.FunctionDef) and first_line(one) <= line <= one.end_lineno:
            return one
    return None


def names_defined(statement):
    """Return the names that a statement of a module defines; those of an import are not counted."""
    if isinstance(statement, (ast.FunctionDef, ast.ClassDef)):
        return {statement.name}
    if isinstance(statement, (ast.Try, ast.If)):
        inner = statement.body + statement.orelse
        return {name for one in inner for name in names_defined(one)}
    if isinstance(statement, (ast.Assign, ast.AnnAssign)):
        stored = [x for x in ast.walk(statement) if isinstance(x, ast.Name)]
        return {name.id for name in stored if isinstance(name.ctx, ast.Store)}
    return set()


def names_used(statements):
    nodes = [node for statement in statements for node in ast.walk(statement)]
    return {node.id for node in nodes if isinstance(node, ast.Name)}


def first_line(statement):
    decorators = getattr(statement, "decorator_list", [])
    return min([statement.lineno, *(one.lineno for one in decorators)])


def joined(statements, lines):
    """Return statements as text, with the comments right above them, and a blank line between
    those that don't follow each other."""
    found, end = [], 0
    for one in statements:
        start = first_line(one) - 1
        while start > end and lines[start - 1].startswith("#"):
            start -= 1
        if found and start > end:
            found.append("")
        found += lines[start : one.end_lineno]
        end = one.end_lineno
    return "\n".join(found) + "\n"
