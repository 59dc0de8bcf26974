"""What hypothesis draws, where it is installed, and a process of its own for a test."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

try:
    from hypothesis import settings
except ImportError:  # requirements-dev.txt brings it
    settings = None
else:
    # The same examples in each run; --hypothesis-profile=soak looks for new ones.
    settings.register_profile(
        "fixed", deadline=None, derandomize=True, database=None, max_examples=30
    )
    settings.register_profile("soak", deadline=None, max_examples=3000, print_blob=True)
    settings.load_profile("fixed")


@pytest.fixture
def python():
    """``python(*args, **env)`` runs it on this project; it returns the status, output and errors."""

    def run(*args, **env):
        command, root, env = [sys.executable, *args], Path(__file__).parent.parent, os.environ | env
        done = subprocess.run(command, cwd=root, env=env, capture_output=True, text=True)
        return done.returncode, done.stdout, done.stderr

    return run
