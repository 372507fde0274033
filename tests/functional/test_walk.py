"""A request's way can be followed: how often it changes the file."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from apigw import is_compiled

WALK = Path(__file__).resolve().parents[1] / "support" / "walk.py"
MOST = 50
"""Changes of file from one call to the next. They were 57 before stages were a route's own, and 34 before there were
hosts, ejection of targets, counts of several processes, a transport of our own, traces, and hooks of bodies; what is
added is to be worth it."""


@pytest.mark.skipif(is_compiled(), reason="nobody can look into what is compiled")
def test_one_request_stays_in_few_files() -> None:
    """A GET with a token, a limit and warm connections; the walk is printed where it fails."""
    walk = subprocess.run([sys.executable, str(WALK)], capture_output=True, text=True, check=True, timeout=60).stdout
    files = [line.partition(":")[0] for line in walk.splitlines()]
    changes = sum(one != other for one, other in pairwise(files))
    assert len(files) > 50, walk
    assert changes <= MOST, f"{walk}{len(files)} calls, {changes} changes of file"
