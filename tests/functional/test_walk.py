"""A request's way can be followed: how often it changes the file."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from apigw import is_compiled

WALK = Path(__file__).resolve().parents[1] / "support" / "walk.py"
MOST = 64
"""Changes of file from one call to the next. What is added is to be worth it.

They were 48 when llhttp read every head, which is C and was not counted: now both parsers ask ``lines`` twice (4 more).
The turn of the reactor and the transports are compiled, and no longer one module (4 more). Relays that show bodies to
plugins are chosen, and outcomes have a module of their own (2 more). A connection leaves the idle ones and comes back
in ``room`` and no longer by a dict, which was not counted (4 more). The heads of requests and of answers are written by
one module, ``write_head`` (3 more).
"""


@pytest.mark.skipif(is_compiled(), reason="nobody can look into what is compiled")
def test_one_request_stays_in_few_files() -> None:
    """A GET with a token, a limit and warm connections; the walk is printed where it fails."""
    walk = subprocess.run([sys.executable, str(WALK)], capture_output=True, text=True, check=True, timeout=60).stdout
    files = [line.partition(":")[0] for line in walk.splitlines()]
    changes = sum(one != other for one, other in pairwise(files))
    assert len(files) > 50, walk
    assert changes <= MOST, f"{walk}{len(files)} calls, {changes} changes of file"
