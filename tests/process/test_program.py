"""The program, constructed and not started: what a change of its configuration leaves behind."""

from __future__ import annotations

import gc
import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from weakref import ref

import pytest
from twisted.internet.epollreactor import EPollReactor
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from zope.interface import provider

from apigw.config.load import load
from apigw.config.model import Config
from apigw.process.place import Alone
from apigw.process.program import Program
from apigw.process.rules import RULES
from apigw.process.signals import TAKEN, Signals
from apigw.process.snapshot import compile
from apigw.tap import Options, makeService

LOOPBACK = "tcp:0:interface=127.0.0.1"


@pytest.fixture
def warnings() -> Iterator[list[str]]:
    said: list[str] = []

    @provider(ILogObserver)
    def note(event: LogEvent) -> None:
        if "matches no route" in str(event.get("warning")):
            said.append(str(event["warning"]))

    observe: Any = note
    globalLogPublisher.addObserver(observe)
    yield said
    globalLogPublisher.removeObserver(observe)


class Scene:
    def __init__(self, directory: Path, *patterns: str) -> None:
        self.directory = directory
        self.reactor = EPollReactor()
        config, place = self.config(*patterns), Alone(self.reactor)
        self.program = Program(self.reactor, time.time, Signals(), config, str(directory), place)

    def config(self, *patterns: str) -> Config:
        """Each is a route, and a limit that no route meets is worth a warning."""
        document: dict[str, Any] = {
            "gateway": {"listen": [LOOPBACK], "admin": LOOPBACK, "access_log": None},
            "services": {"main": {"targets": ["http://127.0.0.1:9"]}},
            "routes": [{"path": "/a", "service": "main"}],
            "rate_limits": [{"endpoint": pattern, "limit": 1, "window": "1s", "scope": "ip"} for pattern in patterns],
        }
        (self.directory / "gateway.yaml").write_text(json.dumps(document))
        return load(str(self.directory), {}, RULES)

    def use(self, *patterns: str) -> None:
        current = self.program.current
        current.use(compile(self.config(*patterns), current.snapshot, self.program.parts))


def test_the_first_configuration_is_not_kept(tmp_path: Path) -> None:
    """Of ten thousand routes, it is 85,000 objects."""
    scene = Scene(tmp_path, "/a")
    first, snapshot = ref(scene.program.current.snapshot.config), ref(scene.program.current.snapshot)
    scene.use("/a")
    gc.collect()
    assert first() is None
    assert snapshot() is None


def test_a_warning_is_said_when_it_is_new(tmp_path: Path, warnings: list[str]) -> None:
    scene = Scene(tmp_path, "/b")
    scene.program.current.start()
    assert len(warnings) == 1, warnings
    scene.use("/b")
    assert len(warnings) == 1
    scene.use("/b", "/c")
    assert [("/c" in warning) for warning in warnings] == [False, True]
    scene.use()
    scene.use("/b")
    assert len(warnings) == 3


def test_twistd_keeps_none_either(tmp_path: Path) -> None:
    """Its options live as long as the process."""
    before = {number: signal.getsignal(number) for number in TAKEN}
    try:
        Scene(tmp_path)
        options = Options()
        options["config"], options["log-decisions"] = str(tmp_path), 0
        options.postOptions()
        assert options.config is not None
        makeService(options)
        assert options.config is None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
