"""Whether the gateway would start with a configuration: everything is made that a start makes, and nothing begun.

No port is bound, no connection opened, no thread started, and no log written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from prometheus_client import CollectorRegistry
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.protocol import Factory

from apigw.config import endpoints
from apigw.config.errors import ConfigError, Problem, problem_in
from apigw.config.model import Config, Listen, Path
from apigw.ops.metrics import Metrics
from apigw.policy.auth.jwks import KeySet
from apigw.policy.limits.limits import ExactWindows, MemoryStore
from apigw.policy.limits.redis_store import RedisStore
from apigw.policy.oauth.refresh import MemoryFamilies
from apigw.process.snapshot import Parts, compile
from apigw.process.tree import listener
from apigw.upstream.upstream import build
from apigw.wire.deadlines import Deadlines
from apigw.wire.tls import reason


def try_out(config: Config, reactor: Any) -> None:
    """``reactor`` is one that never runs. Raises ``ConfigError`` with what only shows when the parts are made."""
    problems: list[Problem] = []
    for attempt in _attempts(config, reactor):
        try:
            attempt()
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(problems)


def _attempts(config: Config, reactor: Any) -> Iterator[Callable[[], object]]:
    yield partial(compile, config, None, _parts(reactor))
    for index, listen in enumerate(config.gateway.listen):
        yield partial(_listen, reactor, config, listen, ("gateway", "listen", index))
    if config.gateway.admin is not None:
        yield partial(_listen, reactor, config, Listen(config.gateway.admin), ("gateway", "admin"))
    if config.redis is not None:
        yield partial(_share, reactor, config)


def _parts(reactor: Any) -> Parts:
    deadlines = Deadlines(reactor)
    metrics = Metrics(CollectorRegistry(), "")
    return Parts(
        build=lambda service: build(service, reactor, deadlines, metrics.service(service.name)),
        key_set=lambda url: KeySet(url, _never, reactor),
        series=metrics.route,
        allow=ExactWindows(MemoryStore(reactor)),
        run=lambda work: Deferred(),
        families=MemoryFamilies(),
    )


def _never(url: str) -> Any:
    return Deferred()


def _listen(reactor: Any, config: Config, listen: Listen, path: Path) -> None:
    listener(reactor, config, listen, path, Factory())
    if endpoints.parse(listen.endpoint).kind != "systemd":  # whose sockets only the daemon is given
        with _at(config, path, "cannot be used"):
            serverFromString(reactor, listen.endpoint)


def _share(reactor: Any, config: Config) -> None:
    assert config.redis is not None
    with _at(config, ("redis",), "cannot be used"):
        RedisStore(config.redis, reactor)


@contextmanager
def _at(config: Config, path: Path, what: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise ConfigError([problem_in(config, path, f"{what}: {reason(error)}")]) from None
