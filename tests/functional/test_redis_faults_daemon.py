"""Limits that gateways share in Redis, and what callers notice of all that can happen to it: nothing, if possible."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
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

from .conftest import Start, check_log

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
    """One for all the faults of this module: after each, the gateway must be as it was, without a restart."""
    with redis_server.running() as redis:
        file = tmp_path_factory.mktemp("secret") / "password"
        file.write_text("first\n")
        redis("CONFIG", "SET", "requirepass", "first")
        redis.password = "first"
        daemon = in_front(sharing(quick_service, {"url": redis.url, "password_file": str(file), "timeout": "100ms"}))
        eventually(lambda: up(daemon))
        yield Stand(redis, daemon, file)


Fault = Callable[[Stand], Any]


@contextmanager
def killed(stand: Stand) -> Iterator[None]:
    stand.redis.kill()
    try:
        yield
    finally:
        password, stand.redis.password = stand.redis.password, ""
        stand.redis.start()
        stand.redis("CONFIG", "SET", "requirepass", password)
        stand.redis.password = password


@contextmanager
def paused(stand: Stand) -> Iterator[None]:
    stand.redis.pause()
    try:
        yield
    finally:
        stand.redis.resume()


@contextmanager
def slow(stand: Stand) -> Iterator[None]:
    """Each answer takes longer than the gateway waits."""
    over = threading.Event()

    def sleep() -> None:
        while not over.is_set():
            stand.redis("EVAL", "for i = 1, 5e7 do end", "0")

    sleeping = threading.Thread(target=sleep)
    sleeping.start()
    try:
        yield
    finally:
        over.set()
        sleeping.join()


@contextmanager
def full(stand: Stand) -> Iterator[None]:
    stand.redis("CONFIG", "SET", "maxmemory", "1")
    try:
        yield
    finally:
        stand.redis("CONFIG", "SET", "maxmemory", "0")


@contextmanager
def read_only(stand: Stand) -> Iterator[None]:
    stand.redis("REPLICAOF", "127.0.0.1", redis_server.free_port())
    try:
        yield
    finally:
        stand.redis("REPLICAOF", "NO", "ONE")


@contextmanager
def password_changed(stand: Stand) -> Iterator[None]:
    """On the server first: what is connected stays so until it is cut off."""
    stand.redis("CONFIG", "SET", "requirepass", "second")
    stand.redis.password = "second"
    stand.redis("CLIENT", "KILL", "TYPE", "normal")
    try:
        yield
    finally:
        stand.password_file.write_text("second\n")


@pytest.mark.parametrize("fault", [killed, paused, slow, full, read_only, password_changed], ids=lambda f: f.__name__)
def test_redis_cannot_be_used(stand: Stand, fault: Fault) -> None:
    """A Redis in trouble takes the gateway with it, or the gateway does not find back to it."""
    daemon = stand.daemon
    names = ("local", "open", "closed", "free")
    with ExitStack() as stack:
        traffic = {name: stack.enter_context(Traffic(daemon.address, f"/{name}/a")) for name in names}
        for one in traffic.values():
            one.go_on(20)
        assert traffic["closed"].statuses.keys() == {200}
        with fault(stand):
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


@pytest.mark.parametrize("words", [("SCRIPT", "FLUSH"), ("FLUSHALL",)], ids=" ".join)
def test_redis_forgets(stand: Stand, words: tuple[str, ...]) -> None:
    """An administrator tidies up in Redis, and requests fail for want of a script."""
    daemon = stand.daemon
    with Traffic(daemon.address, "/closed/a") as traffic:
        traffic.go_on()
        before = store(daemon)["fallbacks"]
        stand.redis(*words)
        traffic.go_on()
        assert store(daemon)["fallbacks"] == before
        assert stand.redis("DBSIZE") >= 1
    assert set(traffic.statuses) == {200}
    assert not traffic.surprises


def test_a_cut_connection_is_made_again(stand: Stand) -> None:
    """A firewall that forgets a connection ends the limits that are shared."""
    before = stand.daemon.log.count("Redis is available")
    with Traffic(stand.daemon.address, "/local/a") as traffic:
        stand.redis("CLIENT", "KILL", "TYPE", "normal")
        eventually(lambda: stand.daemon.log.count("Redis is available") > before)
        traffic.go_on()
    assert set(traffic.statuses) == {200}
    assert not traffic.surprises


def test_the_log_says_why_and_no_password(stand: Stand) -> None:
    """An operator sees that limits are not shared, but not why; or reads the password in the log."""
    log = stand.daemon.log
    assert "Redis is unavailable: no answer in time" in log
    assert "first" not in log
    assert "second" not in log
    shown = command("limits", "--admin", "{}:{}".format(*stand.daemon.admin)).stdout
    assert shown.startswith("counted in Redis; keys in this process: ")


def test_a_failover(start: Start, quick_service: Service) -> None:
    """When the Redis that counts dies, the gateway keeps asking a grave."""
    with redis_server.running() as first, redis_server.running() as second, tempfile.TemporaryDirectory() as directory:
        second("REPLICAOF", "127.0.0.1", first.port)
        eventually(lambda: b"master_link_status:up" in second("INFO", "replication"))
        file = Path(directory, "sentinel.conf")
        file.write_text(
            f"sentinel monitor limits 127.0.0.1 {first.port} 1\n"
            "sentinel down-after-milliseconds limits 300\n"
            "sentinel failover-timeout limits 2000\n"
        )
        sentinel = RedisServer(directory, str(file), "--sentinel")
        sentinel.start_sentinel()
        try:
            eventually(lambda: sentinel("SENTINEL", "REPLICAS", "limits"))
            redis = {
                "url": "redis://ignored",
                "sentinels": [f"127.0.0.1:{redis_server.free_port()}", f"127.0.0.1:{sentinel.port}"],
                "sentinel_name": "limits",
            }
            daemon = start(sharing(quick_service, redis))
            eventually(lambda: up(daemon))
            with Traffic(daemon.address, "/local/a") as traffic, Traffic(daemon.address, "/free/a") as free:
                traffic.go_on()
                first.kill()
                eventually(lambda: not up(daemon))
                eventually(lambda: up(daemon), 40)
                traffic.go_on()
            assert second("ROLE")[0] == b"master"
            assert second("DBSIZE") >= 1
            assert set(traffic.statuses) == set(free.statuses) == {200}
            assert not traffic.surprises
            assert not free.surprises
        finally:
            sentinel.kill()


def test_redis_comes_after_the_gateway(start: Start, quick_service: Service) -> None:
    """A gateway cannot be started while Redis is down, or needs a restart once it is there."""
    with tempfile.TemporaryDirectory() as directory:
        redis = RedisServer(directory)
        daemon = start(sharing(quick_service, {"url": redis.url}))
        assert daemon.get("/local/a").status == 200
        assert daemon.get("/closed/a").status == 503
        redis.start()
        try:
            eventually(lambda: up(daemon))
            assert daemon.get("/closed/a").status == 200
        finally:
            redis.kill()


def test_a_reload_changes_how_long_redis_may_take(start: Start, quick_service: Service) -> None:
    """The time limit is raised, the reload says that it succeeded, and the old one stays."""
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


@contextmanager
def together(directory: Path, document: Document, *environs: dict[str, str]) -> Iterator[Sequence[Daemon]]:
    """One daemon for each environment, started side by side."""
    directory.mkdir(exist_ok=True)
    with ExitStack() as stack:
        daemons = [stack.enter_context(_Launched(directory / str(n), document, env)) for n, env in enumerate(environs)]
        for daemon in daemons:
            daemon.wait_until_it_serves()
        yield daemons
        for daemon in daemons:
            check_log(daemon)


class _Launched(Daemon):
    def __init__(self, directory: Path, document: Document, environ: dict[str, str]) -> None:
        super().__init__(directory, document)
        self._environ = environ

    def __enter__(self) -> _Launched:
        self.launch(self._environ)
        return self

    def wait_until_it_serves(self) -> None:
        eventually(lambda: "] listening on " in self.log and len(self.addresses) == 1 and up(self))


@pytest.mark.parametrize("algorithm", ["log", "counter"])
def test_four_gateways_let_through_exactly_the_limit(tmp_path: Path, quick_service: Service, algorithm: str) -> None:
    """Gateways side by side let through more than the limit, or refuse what was within it."""
    number = 500
    limits = [limit("local", number, algorithm=algorithm, window="6h", scope="ip")]
    with redis_server.running() as redis:
        document = sharing(quick_service, {"url": redis.url, "timeout": "10s"}, limits)
        with together(tmp_path, document, {}, {}, {}, {}) as daemons, ExitStack() as stack:
            loads = [stack.enter_context(Traffic(daemon.address, "/local/a", 16)) for daemon in daemons]
            eventually(lambda: all(load.statuses[429] > 200 for load in loads))
            stack.close()
            assert sum(load.statuses[200] for load in loads) == number
            assert {status for load in loads for status in load.statuses} == {200, 429}
            assert all(load.statuses[200] for load in loads), "each had a share"
            assert not any(load.surprises for load in loads)
            assert all(store(daemon)["fallbacks"] == 0 for daemon in daemons)


HOUR_AHEAD = """
import time
_real = time.time
time.time = lambda: _real() + 3600
"""


def test_a_gateway_whose_clock_is_an_hour_off(tmp_path: Path, quick_service: Service) -> None:
    """A gateway whose clock is wrong has windows of its own, or ends those of the others."""
    ahead = tmp_path / "ahead"
    ahead.mkdir()
    (ahead / "sitecustomize.py").write_text(HOUR_AHEAD)
    for algorithm in ("log", "counter"):
        # Windows of six minutes: an hour is ten of them.
        limits = [limit("local", 6, algorithm=algorithm, window="6m")]
        with redis_server.running() as redis:
            document = sharing(quick_service, {"url": redis.url}, limits)
            with together(tmp_path / algorithm, document, {}, {"PYTHONPATH": str(ahead)}) as (right, wrong):
                assert wrong.get("/free/a").status == 200
                answers = [daemon.get("/local/a") for daemon in (wrong, right) * 3]
                assert [answer.status for answer in answers] == [200] * 6
                assert [answer.get("x-ratelimit-remaining") for answer in answers] == list("543210")
                for daemon in (right, wrong):
                    refused = daemon.get("/local/a")
                    assert refused.status == 429
                    assert int(refused.get("retry-after") or 0) <= 720
                    assert abs(int(refused.get("x-ratelimit-reset") or 0) - time.time()) <= 361
