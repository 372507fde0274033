"""For every test: ``support`` can be imported, and the bench's load and origin, with which daemons are driven.

Hypothesis finds the same examples in every run; ``--hypothesis-profile=hunt`` looks for new ones, for far longer.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from hypothesis import HealthCheck, settings
from skips import pytest_configure as pytest_configure
from spread import pytest_collection_modifyitems as pytest_collection_modifyitems
from spread import pytest_sessionstart as pytest_sessionstart

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "contrib"))
sys.path.insert(0, str(Path(__file__).resolve().parent))  # support/

# What is compiled is kept: otherwise each daemon spends a third of its start on that, and pytest ten seconds.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False


def pytest_xdist_auto_num_workers() -> int:
    """Two for each core: tests with daemons wait for half of their time."""
    return 2 * len(os.sched_getaffinity(0))


settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
settings.register_profile(
    "hunt", max_examples=20_000, deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("repeatable")
