"""What the lesson tells the harness, in its conftest.py."""

import pytest


@pytest.hookspec(firstresult=True)
def pytest_ladder_import_rungs():
    """Import the modules that define rungs; return ``{name: text}`` of what else is worth saying
    of this machine, such as the width of its SIMD registers as ``simd``."""


@pytest.hookspec
def pytest_ladder_draw(config, folder):
    """Draw pictures into a folder that exists; return the names of the files."""
