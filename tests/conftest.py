"""For every test: the bench's load and origin can be imported, as the daemon's tests drive it with them.

Hypothesis finds the same examples in every run; ``--hypothesis-profile=hunt`` looks for new ones, for far longer.
"""

from __future__ import annotations

import sys
from pathlib import Path

from hypothesis import HealthCheck, settings

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "contrib"))
sys.path.append(str(Path(__file__).resolve().parent / "policy"))  # the private Redis

settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
settings.register_profile(
    "hunt", max_examples=20_000, deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("repeatable")
