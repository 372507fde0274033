"""The program on disk is tried out before an upgrade, and for no longer than it may take."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from support.turning import Turning
from twisted.internet.defer import Deferred

from apigw.process.child import Child
from apigw.process.handover import Handover
from apigw.process.reload import Reload
from apigw.process.signals import TAKEN
from apigw.process.upgrade import ABLE, PATIENCE, READY_WITHIN, Upgrade, verdict

from .test_master import Scene
from .test_master import scene as scene

HANGS = "import time; time.sleep(1000)"


def tried(code: str, so_far: Callable[[Turning, Child], object] = lambda *_: None) -> str:
    """What is said of a program."""
    said: list[str] = []
    reactor = Turning()
    trial = Child(reactor, [sys.executable, "-c", code], PATIENCE, output=False)
    trial.ended.addCallback(verdict).addErrback(lambda _: "cancelled").addCallback(said.append)
    so_far(reactor, trial)
    reactor.turn_until(lambda: said and not reactor.getDelayedCalls())
    return said[0]


@pytest.mark.parametrize(
    ("code", "why"),
    [
        (f"import sys; print({ABLE!r}, file=sys.stderr)", ""),
        (f"import sys; print('a warning', {ABLE!r}, 'another', sep='\\n', file=sys.stderr)", ""),
        ("import os; os._exit(0)", "the new program ended with exit code 0, and has not said that it can be used"),
        (f"import os, sys; print({ABLE!r}, file=sys.stderr, flush=True); os._exit(3)", ABLE),
        ("raise SystemExit('this will not do')", "this will not do"),
        ("import os; os._exit(3)", "the new program ended with exit code 3"),
        ("import os; os.close(2); os._exit(3)", "the new program ended with exit code 3"),
    ],
)
def test_how_it_ends(code: str, why: str) -> None:
    """It says why, or nothing where it can be used."""
    assert tried(code) == why


@pytest.mark.parametrize("code", [HANGS, f"import os; os.close(2); {HANGS}"])
def test_one_that_never_ends_is_ended(code: str) -> None:
    """After a minute, and not before."""

    def wait(reactor: Any, _: Child) -> None:
        reactor.advance(PATIENCE - 1)
        reactor.turn()
        reactor.advance(2)

    assert tried(code, wait) == "the new program was not ready within 60 s"


def test_one_that_nobody_waits_for_any_more_is_ended() -> None:
    """As when the gateway stops."""
    assert tried(HANGS, lambda _, trial: trial.ended.cancel()) == "cancelled"


class Following:
    """A program that was executed for an upgrade: its workers do not become ready by themselves."""

    def __init__(self, scene: Scene, command: Sequence[str] = ()) -> None:
        self.master, self.reactor = scene.master, scene.reactor
        self.reads: list[Deferred[Handover]] = []
        takes: Any = None
        self.reload = Reload(self.reactor, self, takes, lambda _: None)
        self.reload.startService()
        self.ended: list[bool] = []
        self.upgrade = Upgrade(
            self.reactor, command, "", self.master, self.reload, None, lambda: None, self.ended.append
        )
        self.upgrade.startService()
        self.upgrade.follow()

    def read(self) -> Deferred[Handover]:
        self.reads.append(Deferred())
        return self.reads[-1]


def test_an_upgrade_has_ended_when_all_workers_are_ready(scene: Scene) -> None:
    """A reload that was asked for meanwhile follows."""
    following = Following(scene)
    following.reload.reload()
    scene.reactor.advance(READY_WITHIN - 1)
    assert (following.reload.upgrading, following.ended, following.reads) == (True, [], [])
    scene.master.complete.callback(None)
    assert (following.reload.upgrading, following.reload.upgrades, following.ended) == (False, 1, [True])
    assert len(following.reads) == 1
    assert following.reload.upgrade_problem == ""


def test_an_upgrade_whose_workers_do_not_become_ready_has_failed(scene: Scene) -> None:
    """After a minute; that they do after all is no second end."""
    following = Following(scene)
    scene.reactor.advance(READY_WITHIN)
    scene.reactor.turn()
    assert (following.reload.upgrading, following.reload.upgrades, following.ended) == (False, 1, [False])
    assert "workers of the new program are ready after 60 s" in following.reload.upgrade_problem
    scene.master.complete.callback(None)
    assert following.ended == [False]


def executing(scene: Scene, directory: Path) -> Following:
    """An upgrade to a program that is good once, and gone when it is to be executed."""
    program = directory / "program"
    program.write_text(f'#!/bin/sh\nrm -- "$0"\necho {ABLE!r} >&2\n')
    program.chmod(0o755)
    following = Following(scene, [str(program)])
    scene.master.complete.callback(None)
    following.upgrade.upgrade()
    return following


def blocked() -> set[int]:
    return signal.pthread_sigmask(signal.SIG_BLOCK, ()) & set(TAKEN)


def test_a_program_that_is_gone_after_its_trial_is_not_executed(scene: Scene, tmp_path: Path) -> None:
    """Everything goes on: the workers answer, and a reload is done; signals arrive."""
    following = executing(scene, tmp_path)
    scene.reactor.turn_until(lambda: len(following.ended) == 2)
    assert following.ended == [True, False]
    assert "the new program cannot be executed" in following.reload.upgrade_problem
    scene.tick()
    following.reload.reload()
    assert len(following.reads) == 1
    assert blocked() == set()


def test_a_program_that_was_told_to_end_does_not_execute_another(scene: Scene, tmp_path: Path) -> None:
    """As the signal is about to be acted on here, and the other program would not know of it."""
    asked: list[bool] = []
    scene.master.ending = lambda: not asked.append(True)
    following = executing(scene, tmp_path)
    scene.reactor.turn_until(lambda: asked)
    assert following.ended == [True]
    assert blocked() == set()


def test_a_signal_that_has_come_is_acted_on_before_another_program_is_executed(scene: Scene, tmp_path: Path) -> None:
    """It would not know of it: of a rotated access log, workers would go on in the old file."""
    asked: list[bool] = []

    def due() -> bool:
        asked.append(not asked)
        return asked[-1]

    following = executing(scene, tmp_path)
    following.upgrade.due = due
    scene.reactor.turn_until(lambda: len(following.ended) == 2)
    assert asked == [True, False]
    assert "the new program cannot be executed" in following.reload.upgrade_problem
    assert blocked() == set()
