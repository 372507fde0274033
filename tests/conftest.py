"""For every test: ``support`` can be imported, and the bench's load and origin, with which daemons are driven.

Hypothesis finds the same examples in every run; ``--hypothesis-profile=hunt`` looks for new ones, for far longer.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from hypothesis import HealthCheck, settings
from skips import pytest_configure as pytest_configure

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "contrib"))
sys.path.insert(0, str(Path(__file__).resolve().parent))  # support/

# Daemons keep what they compile: otherwise each spends a third of its start on that.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
settings.register_profile(
    "hunt", max_examples=20_000, deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("repeatable")
