"""What of a file a reader gets to see beside a rung's number."""

import importlib.util
import sys

import pytest

from ladder.source import code_of

FILE = '''"""A file."""

import math

from beyond.operands import (
    multiply_arrays,
    operand_sizes as sizes,
)
from fastcore.basics import first

SIZE = 3
LEFT, RIGHT = 4, 5


def unused():
    return LEFT


# Says what it is for.
@staticmethod
def helper(x):
    return deeper(x) + SIZE


def deeper(x):
    return math.sqrt(first(sizes(x)))


try:
    import nothing_of_this_name
except ImportError:
    nothing_of_this_name = None
else:

    def kernel(x):
        return x


def other_rung(x):
    return unused()


def rung(x):
    """What is new."""
    return helper(x) or other_rung(x)


def rung_of_kernel(x):
    return kernel(x)
'''


@pytest.fixture
def module(tmp_path):
    path = tmp_path / "a_file.py"
    path.write_text(FILE)
    spec = importlib.util.spec_from_file_location("a_file", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_code_is_the_function_and_what_it_uses_of_its_file(module, monkeypatch):
    """And the imports of what it uses of the project's other files, which say where that is."""
    monkeypatch.setitem(sys.modules, "a_file", module)
    assert code_of(module.rung, without=["other_rung"]) == (
        "from beyond.operands import operand_sizes as sizes\n\n"
        "SIZE = 3\n\n"
        "# Says what it is for.\n@staticmethod\ndef helper(x):\n    return deeper(x) + SIZE\n\n"
        "def deeper(x):\n    return math.sqrt(first(sizes(x)))\n\n"
        'def rung(x):\n    """What is new."""\n    return helper(x) or other_rung(x)\n'
    )
    assert "    def kernel(x):\n" in code_of(module.rung_of_kernel)


def test_code_of_a_function_in_another_is_that_function():
    def inner(x):
        return FILE

    assert code_of(inner).strip() == "def inner(x):\n        return FILE"
