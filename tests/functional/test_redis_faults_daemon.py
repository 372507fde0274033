"""Limits in Redis, and what callers notice when it is gone. The store is tested with all that can happen to it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from support import redis_server
from support.asking import asked, command, metrics
from support.daemon import Daemon, Document, gateway
from support.redis_server import RedisServer
from support.services import Received, Service
from support.traffic import Traffic
from support.waiting import eventually

from .conftest import Start

ROUTES = [{"path": f"/{name}/*", "service": name} for name in ("local", "open", "closed", "free")]
MANY = 1_000_000


def quick(received: Received) -> None:
    received.body()
    received.conversation.answer(200, body=b"{}")


@pytest.fixture(scope="module")
def quick_service() -> Iterator[Service]:
    service = Service(quick)
    yield service
    service.close()
    assert service.failures == []


def limit(name: str, number: int = MANY, **more: Any) -> Document:
    return {"endpoint": f"/{name}/*", "limit": number, "window": "1h", "scope": "endpoint", **more}


def sharing(service: Service, redis: Document, limits: list[Document] | None = None) -> Document:
    document = gateway(services={route["service"]: service.url for route in ROUTES}, routes=ROUTES)
    if limits is None:
        limits = [limit(name, on_store_failure=name) for name in ("local", "open", "closed")]
    return {**document, "redis": redis, "rate_limits": limits}


def store(daemon: Daemon) -> Document:
    found: Document = asked(daemon, "/limits")["store"]
    return found


def up(daemon: Daemon) -> bool:
    return bool(store(daemon)["up"])


class Stand:
    """A gateway, its Redis, and traffic through every kind of limit; the fault is put right before the end."""

    def __init__(self, redis: RedisServer, daemon: Daemon, password_file: Path) -> None:
        self.redis = redis
        self.daemon = daemon
        self.password_file = password_file


@pytest.fixture(scope="module")
def stand(in_front: Start, quick_service: Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    """After the fault the gateway must be as it was, without a restart."""
    with redis_server.running() as redis:
        file = tmp_path_factory.mktemp("secret") / "password"
        file.write_text("first\n")
        redis("CONFIG", "SET", "requirepass", "first")
        redis.password = "first"
        daemon = in_front(sharing(quick_service, {"url": redis.url, "password_file": str(file), "timeout": "100ms"}))
        eventually(lambda: up(daemon))
        yield Stand(redis, daemon, file)


@contextmanager
def paused(stand: Stand) -> Iterator[None]:
    stand.redis.pause()
    try:
        yield
    finally:
        stand.redis.resume()


def test_redis_cannot_be_used(stand: Stand) -> None:
    """While Redis cannot be used each limit does as it was told, and afterwards Redis counts again."""
    daemon = stand.daemon
    names = ("local", "open", "closed", "free")
    with ExitStack() as stack:
        traffic = {name: stack.enter_context(Traffic(daemon.address, f"/{name}/a")) for name in names}
        for one in traffic.values():
            one.go_on(20)
        assert traffic["closed"].statuses.keys() == {200}
        with paused(stand):
            eventually(lambda: not up(daemon))
            for one in traffic.values():
                one.go_on()
            assert traffic["closed"].statuses[503]
            eventually(lambda: asked_ready(daemon) == 503)  # readiness is asked about once a second
            assert daemon.get("/local/a").get("x-ratelimit-remaining") is not None
            assert daemon.get("/open/a").get("x-ratelimit-remaining") is None
            refused = daemon.get("/closed/a")
            assert (refused.code, refused.get("retry-after")) == ("limits_unavailable", "1")
            eventually(lambda: "gateway_rate_limit_store_up 0.0" in metrics(daemon))
        eventually(lambda: up(daemon))
        before = store(daemon)["fallbacks"]
        seen = traffic["closed"].statuses[503]
        for one in traffic.values():
            one.go_on()
        assert traffic["closed"].statuses[503] <= seen + 2
    for name in names:
        assert not traffic[name].surprises, name
        assert traffic[name].statuses.keys() <= ({200, 503} if name == "closed" else {200}), name
    assert store(daemon)["fallbacks"] <= before + 6  # those that were decided while `up` was read
    assert stand.redis("DBSIZE") >= 3
    assert daemon.get("/closed/a").get("x-ratelimit-limit") == str(MANY)
    eventually(lambda: asked_ready(daemon) == 200)


def asked_ready(daemon: Daemon) -> int:
    return daemon.get("/ready").status


def test_the_log_says_why_and_no_password(stand: Stand) -> None:
    """The log says why limits are not shared, and never the password."""
    log = stand.daemon.log
    assert "Redis is unavailable: no answer in time" in log
    assert "first" not in log
    assert "second" not in log
    shown = command("limits", "--admin", "{}:{}".format(*stand.daemon.admin)).stdout
    assert shown.startswith("counted in Redis; keys in this gateway: ")


def test_a_reload_changes_how_long_redis_may_take(start: Start, quick_service: Service) -> None:
    """After a reload Redis may take as long as the new configuration says."""
    with redis_server.running() as redis:
        daemon = start(sharing(quick_service, {"url": redis.url, "timeout": "50ms"}))
        eventually(lambda: up(daemon))
        assert daemon.reload(sharing(quick_service, {"url": redis.url, "timeout": "10s"}))
        redis.pause()
        waited = threading.Timer(0.3, redis.resume)
        waited.start()
        assert daemon.get("/closed/a").status == 200
        waited.join()
        assert store(daemon)["fallbacks"] == 0


def test_a_redis_that_wants_a_password(start: Start, quick_service: Service) -> None:
    """The log has only the words of Redis, and the operator looks for the key of the configuration."""
    with redis_server.running() as redis:
        redis("CONFIG", "SET", "requirepass", "first")
        daemon = start(sharing(quick_service, {"url": redis.url}))
        said = "Redis is unavailable: NOAUTH Authentication required; its password is read from redis.password_file"
        eventually(lambda: said in daemon.log)
