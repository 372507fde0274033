"""The program on disk is tried out before an upgrade, and for no longer than it may take."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest
from support.turning import Turning

from apigw.process.upgrade import PATIENCE, Trial

HANGS = "import time; time.sleep(1000)"


def tried(code: str, so_far: Callable[[Turning, Trial], object] = lambda *_: None) -> str:
    """What is said of a program."""
    said: list[str] = []
    reactor = Turning()
    trial = Trial(reactor, [sys.executable, "-c", code], "{}", said.append)
    trial.start()
    so_far(reactor, trial)
    reactor.turn_until(lambda: said)
    assert not reactor.getDelayedCalls()
    return said[0]


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("", ""),
        ("raise SystemExit('this will not do')", "this will not do"),
        ("import os; os._exit(3)", "the new program ended with 3"),
        ("import os; os.close(2); os._exit(3)", "the new program ended with 3"),
    ],
)
def test_how_it_ends(code: str, why: str) -> None:
    """It says why, or nothing where it can be used."""
    assert tried(code) == why


@pytest.mark.parametrize("code", [HANGS, f"import os; os.close(2); {HANGS}"])
def test_one_that_never_ends_is_ended(code: str) -> None:
    """After a minute, and not before."""

    def wait(reactor: Any, _: Trial) -> None:
        reactor.advance(PATIENCE - 1)
        reactor.turn()
        reactor.advance(2)

    assert tried(code, wait) == "the new program was not ready within 60 s"


def test_one_that_nobody_waits_for_any_more_is_ended() -> None:
    """As when the gateway stops."""
    assert tried(HANGS, lambda _, trial: trial.end())
