"""The wall clock steps while the gateway runs: tokens and logs follow it, and nothing else does."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from support.asking import asked, circuit
from support.client import encode
from support.daemon import Daemon, Document, gateway
from support.guarded import HS_ISSUER, HS_SECRET
from support.services import Received, Service, echo
from support.tokens import bearer, hs256
from support.waiting import eventually
from support.wall_clock import WallClock

from .conftest import check_log

STEPS = [60, -60, 3600, -3600]
BREAKER = {"error_rate": 0.5, "window": "10s", "min_requests": 2, "half_open_requests": 1}


class Scene:
    """A gateway whose wall clock is the test's, before a service that answers, hangs, fails, or waits for the test."""

    def __init__(self, directory: Path) -> None:
        self.clock = WallClock(directory / "clock")
        self.service = Service(self.behave)
        self.go_on = threading.Event()
        self.sick = False
        self.daemon = Daemon(directory / "gateway", self.document(directory), executed=True)
        self.daemon.start(self.clock.environ)

    def document(self, directory: Path) -> Document:
        def one(**settings: Any) -> Document:
            return {"targets": [self.service.url], **settings}

        self.access_log = directory / "access.log"
        document = gateway(
            services={
                "main": one(),
                "hasty": one(timeout="300ms"),
                "long": one(circuit_breaker={**BREAKER, "open_for": "10m"}),
                "short": one(circuit_breaker={**BREAKER, "open_for": "500ms"}),
            },
            routes=[
                {"path": "/hang/*", "service": "hasty"},
                {"path": "/long/*", "service": "long"},
                {"path": "/short/*", "service": "short"},
                {"path": "/api/*", "service": "main", "auth": "required"},
                {"path": "/*", "service": "main"},
            ],
            access_log={"file": str(self.access_log), "format": "json"},
            auth_default="none",
        )
        verifier = {"name": "main", "algorithm": "HS256", "secret": HS_SECRET.decode(), "issuer": HS_ISSUER}
        document["auth"] = {"jwt": [{**verifier, "leeway": "0s"}]}
        document["rate_limits"] = [
            {"endpoint": f"/{algorithm}/*", "limit": 3, "window": "50s", "scope": "ip", "algorithm": algorithm}
            for algorithm in ("log", "counter")
        ]
        return document

    def behave(self, received: Received) -> None:
        if received.target.startswith("/hang"):
            received.conversation.wait_for_end()
        elif received.target.startswith("/wait"):
            self.go_on.wait(30)
            echo(received)
        elif self.sick:
            received.body()
            received.conversation.answer(500)
        else:
            echo(received)

    def times_out(self) -> bool:
        """Whether a timeout of 0.3 s takes that long, and a little more."""
        began = time.monotonic()
        return self.daemon.get("/hang/a").status == 504 and 0.3 <= time.monotonic() - began < 5


@pytest.fixture(scope="module", params=STEPS)
def step(request: pytest.FixtureRequest) -> int:
    """Seconds by which the clock is set, once and again while one gateway runs."""
    return int(request.param)


@pytest.fixture(scope="module")
def scene(step: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    scene = Scene(tmp_path_factory.mktemp("scene"))
    yield scene
    check_log(scene.daemon)
    scene.daemon.kill()
    scene.service.close()
    assert scene.service.failures == []


def test_timeouts_last_as_long_as_configured(scene: Scene, step: int) -> None:
    """A request under way, one that comes after the step, and connections that are idle meanwhile."""
    with scene.daemon.connect() as waiting, scene.daemon.connect() as idle:
        assert idle.get("/a").status == 200
        waiting.send(encode("GET", "/wait/a"))
        eventually(lambda: scene.service.last.target == "/wait/a")
        scene.clock.step(step)
        assert scene.times_out()
        scene.go_on.set()
        assert waiting.answer().status == 200
        assert idle.get("/a").status == 200
    assert asked(scene.daemon, "/status")["uptime"] < 60


@pytest.mark.parametrize("algorithm", ["log", "counter"])
def test_limits_neither_free_nor_block_a_caller(scene: Scene, step: int, algorithm: str) -> None:
    """What has been counted stays so for its window; when it ends is said in the wall clock's words, which is read
    once a second.
    """

    def ends_in() -> float:
        answer = scene.daemon.get(f"/{algorithm}/a")
        return int(answer.get("x-ratelimit-reset") or 0) - scene.clock.now()

    answers = [scene.daemon.get(f"/{algorithm}/a") for _ in range(2)]
    scene.clock.step(step)
    answers += [scene.daemon.get(f"/{algorithm}/a") for _ in range(2)]
    assert [answer.get("x-ratelimit-remaining") for answer in answers] == ["2", "1", "0", "0"]
    assert [answer.status for answer in answers] == [200, 200, 200, 429]
    assert 1 <= int(answers[-1].get("retry-after") or 0) <= 100
    eventually(lambda: -5 <= ends_in() <= 55)


def test_circuits_are_open_for_as_long_as_configured(scene: Scene, step: int) -> None:
    """One that is open for ten minutes stays so, and one for half a second closes again."""
    scene.sick = True
    for path in ("/long/a", "/short/a"):
        assert [scene.daemon.get(path).status for _ in range(2)] == [500] * 2
    scene.clock.step(step)
    scene.sick = False
    eventually(lambda: scene.daemon.get("/short/a").status == 200)
    shown = circuit(scene.daemon, "long")
    assert shown["state"] == "open"
    assert 0 <= shown["since"] < 60
    assert 540 < shown["retry_in"] <= 600


def test_tokens_and_the_access_log_follow_the_wall_clock(scene: Scene, step: int) -> None:
    """A token holds from its ``nbf`` to its ``exp``, also one that has been seen before."""
    now = int(scene.clock.now())
    good = hs256(HS_SECRET, HS_ISSUER, iat=now - 20, nbf=now - 20, exp=now + 40)
    assert scene.daemon.get("/api/a", bearer(good)).status == 200
    scene.clock.step(step)
    assert scene.daemon.get("/api/b", bearer(good)).status == 401
    later = hs256(HS_SECRET, HS_ISSUER, iat=now + step, exp=now + step + 60)
    assert scene.daemon.get("/api/c", bearer(later)).status == 200
    scene.clock.step(-step)
    assert scene.daemon.get("/api/d", bearer(good)).status == 200
    lines = sorted(eventually(lambda: _four(scene.access_log)), key=lambda line: str(line["path"]))
    assert [round((_time(line) - now) / 60) for line in lines] == [0, step // 60, step // 60, 0]
    assert all(0 <= line["duration_ms"] < 5000 for line in lines)


def _time(line: Any) -> float:
    return datetime.fromisoformat(line["time"]).timestamp()


def _four(log: Path) -> list[Any]:
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    found = [line for line in lines if line["path"].startswith("/api")]
    return found if len(found) == 4 else []
