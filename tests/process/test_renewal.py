"""A new configuration is made beside the one in use, and then used whole or dropped whole."""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from weakref import ref

import pytest
from attrs import evolve
from support.certificates import Authority
from support.waiting import PATIENCE
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.epollreactor import EPollReactor
from twisted.python.failure import Failure

from apigw.config.errors import ConfigError
from apigw.config.load import load
from apigw.config.model import Config, Gateway, Redis
from apigw.process import handover
from apigw.process.place import Alone
from apigw.process.program import Program
from apigw.process.renewal import needs_restart
from apigw.process.rules import RULES
from apigw.process.signals import Signals

LOOPBACK = "tcp:0:interface=127.0.0.1"


class Scene:
    """A program with the route ``/a`` to the service ``first``. Nothing listens."""

    def __init__(self, directory: Path, **gateway: object) -> None:
        self.directory = directory
        self._gateway = gateway
        self.write("first", "/a")
        self.reactor: Any = EPollReactor()
        config = load(str(directory), {}, RULES)
        self.program = Program(self.reactor, time.time, Signals(), config, str(directory), Alone(self.reactor))
        self.program.current.start()
        self.renewal = self.program.renewal

    def write(self, service: str, *paths: str, **gateway: object) -> None:
        document = {
            "gateway": {"listen": [LOOPBACK], "admin": LOOPBACK, "access_log": None, **self._gateway, **gateway},
            "services": {service: {"targets": ["http://127.0.0.1:9"]}},
            "routes": [{"path": path, "service": service} for path in paths],
            "rate_limits": [{"endpoint": path, "limit": 1, "window": "1s", "scope": "ip"} for path in paths],
        }
        (self.directory / "gateway.yaml").write_text(json.dumps(document))

    def packed(self, service: str, *paths: str, **gateway: object) -> bytes:
        self.write(service, *paths, **gateway)
        return handover.pack(load(str(self.directory), {}, RULES)).data

    def wait(self, event: Deferred[Any]) -> Any:
        results: list[Any] = []
        event.addBoth(results.append)
        until = time.monotonic() + PATIENCE
        while not results and time.monotonic() < until:
            self.reactor.iterate(0.01)
        if isinstance(results[0], Failure):
            results[0].raiseException()
        return results[0]

    def series(self) -> set[str]:
        """Every label of ``/metrics`` that could be of a configuration here."""
        text = self.program.metrics.render(pause=lambda: None)[1].decode()
        found = {name for name in ("first", "second") if f'service="{name}"' in text}
        found |= {path for path in ("/a", "/b") if f'endpoint="{path}"' in text}
        return found | ({path for path, _ in self.program.metrics.routes()} & {"/a", "/b"})

    def found(self, path: bytes) -> str | None:
        match = self.program.current.snapshot.table.router.match(b"GET", path)
        return None if match is None else match.value.service


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    threshold = gc.get_threshold()
    yield Scene(tmp_path)
    gc.set_threshold(*threshold)
    gc.unfreeze()


def test_what_is_prepared_changes_nothing(scene: Scene) -> None:
    before = scene.program.current.snapshot
    scene.wait(scene.renewal.prepare(scene.packed("second", "/b")))
    assert scene.program.current.snapshot is before
    assert (scene.found(b"/a"), scene.found(b"/b")) == ("first", None)


def test_a_commit_leaves_the_new_configuration_and_nothing_else(scene: Scene) -> None:
    """Its routes are there at once; then the series of the old one go, and its snapshot is freed."""
    before = ref(scene.program.current.snapshot)
    scene.wait(scene.renewal.prepare(scene.packed("second", "/b")))
    tidied = scene.renewal.commit()
    assert (scene.found(b"/a"), scene.found(b"/b")) == (None, "second")
    scene.wait(tidied)
    assert scene.series() == {"second", "/b"}
    assert before() is None


def test_what_is_abandoned_leaves_nothing(scene: Scene) -> None:
    scene.wait(scene.renewal.prepare(scene.packed("second", "/b")))
    assert "second" in scene.series()
    scene.wait(scene.renewal.abandon())
    assert (scene.found(b"/a"), scene.found(b"/b")) == ("first", None)
    assert scene.series() == {"first", "/a"}
    with pytest.raises(AssertionError):
        scene.renewal.commit()


def test_what_is_abandoned_half_way_leaves_nothing_either(scene: Scene) -> None:
    more_than_a_piece = [f"/{number}" for number in range(500)]
    preparing = scene.renewal.prepare(scene.packed("second", "/b", *more_than_a_piece))
    scene.reactor.iterate(0)
    tidied = scene.renewal.abandon()
    with pytest.raises(CancelledError):
        scene.wait(preparing)
    scene.wait(tidied)
    assert scene.series() == {"first", "/a"}


@pytest.mark.parametrize(
    ("before", "after", "upgrade"), [(1, 1, False), (2, 2, True), ("auto", 2, True), (2, 1, False)]
)
def test_an_upgrade_is_named_where_it_would_do(before: int | str, after: int | str, upgrade: bool) -> None:
    """Who reads that a restart is needed stops the gateway, and need not."""
    old = Config(Gateway(workers=before))
    (problem, *_) = needs_restart(old, Config(Gateway(workers=after, admin=None)))
    assert str(problem).endswith("needs a restart, or `apigw upgrade`" if upgrade else "needs a restart")


REDIS = Redis("redis://127.0.0.1:6379/0")


@pytest.mark.parametrize(
    ("old", "new", "places"),
    [
        (REDIS, evolve(REDIS, timeout=1.0), []),
        (REDIS, evolve(REDIS, prefix="shop", ca_file="ca.pem"), ["redis.ca_file", "redis.prefix"]),
        (REDIS, None, ["redis"]),
        (None, REDIS, ["redis"]),
    ],
)
def test_keys_of_redis_that_need_a_restart_are_named(old: Redis | None, new: Redis | None, places: list[str]) -> None:
    """Only `timeout` may change."""
    problems = needs_restart(Config(Gateway(), redis=old), Config(Gateway(), redis=new))
    assert [str(problem).split(": ")[0] for problem in problems] == places


def test_a_change_that_needs_a_restart_is_refused_in_the_process_that_has_the_old_configuration(scene: Scene) -> None:
    """With its place; and it leaves nothing."""
    with pytest.raises(ConfigError, match=r"gateway.yaml:1:.*gateway.admin: a change here needs a restart"):
        scene.wait(scene.renewal.prepare(scene.packed("second", "/b", admin=None)))
    assert scene.series() == {"first", "/a"}
    scene.wait(scene.renewal.prepare(scene.packed("second", "/b")))
    scene.wait(scene.renewal.commit())
    assert scene.found(b"/b") == "second"


def test_the_last_one_prepared_is_the_one_that_is_used(scene: Scene) -> None:
    scene.wait(scene.renewal.prepare(scene.packed("second", "/a")))
    scene.wait(scene.renewal.prepare(scene.packed("second", "/b")))
    scene.wait(scene.renewal.commit())
    assert (scene.found(b"/a"), scene.found(b"/b")) == (None, "second")
    assert scene.series() == {"second", "/b"}


def test_what_an_exchange_still_uses_stays_whole(scene: Scene) -> None:
    """One that waits while its snapshot is replaced may still ask the router which methods a path has."""
    table = scene.program.current.snapshot.table
    scene.wait(scene.renewal.prepare(scene.packed("second", "/b")))
    scene.wait(scene.renewal.commit())
    match = table.router.match(b"GET", b"/a")
    assert match is not None and match.value.service == "first"


def test_a_certificate_that_changes_after_the_check_is_named(tmp_path: Path) -> None:
    """A key that is replaced between the check and its use is a problem of its listener, as in the check."""
    authority = Authority(tmp_path)
    pair, other = authority.issue("a.example"), authority.issue("b.example")
    tls = {"certificates": [{"cert_file": pair.certificate, "key_file": pair.key}]}
    directory = tmp_path / "configuration"
    directory.mkdir()
    scene = Scene(directory, listen=[LOOPBACK, {"endpoint": LOOPBACK, "tls": tls}])
    packed = scene.packed("second", "/b")
    Path(pair.key).write_bytes(Path(other.key).read_bytes())
    threads = scene.reactor.getThreadPool()
    threads.start()
    try:
        with pytest.raises(ConfigError) as refused:
            scene.wait(scene.renewal.prepare(packed))
    finally:
        threads.stop()
    (problem,) = refused.value.problems
    assert str(problem).endswith(
        "gateway.listen[1].tls: cannot be used any more: the key is not that of the certificate"
    )
    assert scene.found(b"/a") == "first"


def test_many_reloads_take_no_memory(scene: Scene) -> None:
    """What a reload leaves behind that only a full collection finds is a few objects, however many routes there are."""
    paths = [f"/{number}" for number in range(200)]
    data = scene.packed("first", *paths)

    def reload() -> None:
        scene.wait(scene.renewal.prepare(data))
        scene.wait(scene.renewal.commit())

    reload()
    gc.unfreeze()
    gc.collect()
    for _ in range(3):
        reload()
    gc.unfreeze()
    assert gc.collect() < 3 * len(paths)
