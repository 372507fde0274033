"""What a worker does with its process before it serves."""

from __future__ import annotations

import subprocess
import sys

import pytest

CODE = """
import os, sys
from apigw.process.worker import share_cores

os.sched_setscheduler(0, int(sys.argv[1]), os.sched_param(0))
share_cores()
print(os.sched_getscheduler(0))
"""
OTHER, BATCH, IDLE = 0, 3, 5  # sched(7)


@pytest.mark.parametrize(("policy", "then"), [(OTHER, BATCH), (IDLE, IDLE)])
def test_a_scheduling_policy_that_an_operator_has_chosen_stays(policy: int, then: int) -> None:
    """Only the usual one becomes one that interrupts nobody."""
    ran = subprocess.run([sys.executable, "-c", CODE, str(policy)], capture_output=True, text=True, check=True)
    assert int(ran.stdout) == then
