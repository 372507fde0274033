"""What a plugin gets in ``prepare``: its log, metrics, calls, Redis, threads, clocks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.registry import Collector, CollectorRegistry
from twisted.internet.defer import Deferred

from apigw.config.model import Redis
from apigw.policy.plugins.log import PluginLog
from apigw.policy.plugins.series import Family
from apigw.policy.plugins.threads import Threads
from apigw.redis.link import RedisLink, Script
from apigw.wire.calls import Fetched

MOST_IN_THREADS = 100
"""Calls of one plugin that run in threads, or wait for one."""
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

Word = str | bytes | int | float


class PluginRedis:
    """Redis, on a connection of the plugin's own, so that it harms nobody else's."""

    def __init__(self, link: RedisLink, plugin: str) -> None:
        self._link = link
        self._prefix = f"{link.prefix}:plugin:{plugin}:"

    def key(self, name: str) -> str:
        """A key that no other plugin and no other part of the gateway has."""
        return self._prefix + name

    def call(self, *words: Word) -> Deferred[Any]:
        """The reply to one command, within ``redis.timeout``. Fails if there is none, or an error."""
        return self._link.call(*map(_bytes, words))

    def evaluate(self, script: str, keys: Sequence[Word], *arguments: Word) -> Deferred[Any]:
        """The reply of a Lua script."""
        return self._link.evaluate(Script(script.encode()), [_bytes(key) for key in keys], *map(_bytes, arguments))


def _bytes(word: Word) -> bytes:
    return word if isinstance(word, bytes) else str(word).encode()


class PluginMetrics:
    """The families of one plugin, by their names. They outlive a change of its settings."""

    def __init__(self, plugin: str, registry: CollectorRegistry, log: PluginLog) -> None:
        self._log = log
        self._prefix = f"gateway_plugin_{plugin.replace('-', '_').replace('.', '_')}_"
        self._registry = registry
        self._made: dict[str, tuple[tuple[Any, ...], Any]] = {}
        self._registered: dict[str, Collector] = {}

    def family(self, kind: type[Any], name: str, doc: str, labels: Sequence[str], **more: Any) -> Any:
        """Raises ``ValueError`` for a name that is none, or of another kind already; ``TypeError`` for ``doc``."""
        if not isinstance(doc, str):
            raise TypeError(f"what the metric {name} is, is text, not {type(doc).__name__}")
        doc.encode()  # raises ``ValueError``
        key = (kind, tuple(labels), tuple(sorted(more.items())))
        held = self._made.get(name)
        if held is None:
            held = self._made[name] = (key, kind(self._prefix + name, doc, labels, registry=None, **more))
        if held[0] != key:
            raise ValueError(f"the metric {name} exists with another kind, or other labels")
        return held[1]

    def families(self) -> Iterator[tuple[str, Any]]:
        """All that were made, by the names that ``/metrics`` shows."""
        return ((self._prefix + name, family) for name, (_, family) in self._made.items())

    def show(self) -> None:
        """Show them from now on."""
        for name, (_, family) in self._made.items():
            if name not in self._registered:
                shown = self._registered[name] = Family(name, family, self._log)
                self._registry.register(shown)

    def hide(self) -> None:
        for shown in self._registered.values():
            self._registry.unregister(shown)
        self._registered.clear()


class Context:
    """``opens``: called with a link to Redis, to start it while the plugin is in use."""

    def __init__(
        self,
        name: str,
        directory: str,
        timeout: float,
        reactor: Any,
        now: Callable[[], float],
        log: PluginLog,
        metrics: PluginMetrics,
        fetch: Callable[..., Deferred[Fetched]],
        redis: Redis | None,
    ) -> None:
        self.name = name
        self.directory = directory
        self.timeout = timeout
        self.log = log
        self.seconds: Callable[[], float] = reactor.seconds
        self.now = now
        self._reactor = reactor
        self._metrics = metrics
        self._fetch = fetch
        self.link = None if redis is None else RedisLink(redis, reactor)
        """Not for plugins: started and stopped with the plugin, if it has asked for it."""
        self.wants_redis = False
        self._threads = Threads(reactor, MOST_IN_THREADS)
        self.end = self._threads.stop
        """Not for plugins: called when it is no longer in use."""

    def counter(self, name: str, doc: str, labels: Sequence[str] = ()) -> Counter:
        counter: Counter = self._metrics.family(Counter, name, doc, labels)
        return counter

    def gauge(self, name: str, doc: str, labels: Sequence[str] = ()) -> Gauge:
        gauge: Gauge = self._metrics.family(Gauge, name, doc, labels)
        return gauge

    def histogram(
        self, name: str, doc: str, labels: Sequence[str] = (), buckets: Sequence[float] = BUCKETS
    ) -> Histogram:
        histogram: Histogram = self._metrics.family(Histogram, name, doc, labels, buckets=tuple(buckets))
        return histogram

    @property
    def redis(self) -> PluginRedis | None:
        """None if ``redis`` is not configured. To be asked for in ``prepare``."""
        if self.link is None:
            return None
        self.wants_redis = True
        return PluginRedis(self.link, self.name)

    def fetch(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        json: Any = None,
        timeout: float = 5.0,
        limit: int = 1 << 20,
    ) -> Deferred[Fetched]:
        """The answer to a request. Fails with ``FetchFailed`` if there is none, or it is larger than ``limit``."""
        return self._fetch(method, url, headers, body, json, timeout, limit)

    def in_thread(self, run: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        """What ``run`` returns, in another thread. Fails with ``Busy`` while too many calls are there already."""
        return self._threads.run(1, run, *arguments)

    def threads(self, most: int, seconds: float) -> Threads:
        """For work whose sizes are known: ``most`` of them, added up, are in threads or wait for one at a time. After
        ``seconds`` ``run`` fails with ``Busy``, and the thread runs on."""
        return Threads(self._reactor, most, seconds, self._threads)

    def later(self, seconds: float, run: Callable[..., object], *arguments: Any) -> Later:
        """Calls ``run`` once, unless it is cancelled before. What it raises is logged."""
        return Later(self._reactor, self.log, seconds, run, arguments)


class Later:
    """A call to come."""

    def __init__(
        self, reactor: Any, log: PluginLog, seconds: float, run: Callable[..., object], arguments: tuple[Any, ...]
    ) -> None:
        self._log = log
        self._run = run
        self._arguments = arguments
        self._call = reactor.callLater(seconds, self._due)

    def cancel(self) -> None:
        """No effect once it has begun."""
        if self._call.active():
            self._call.cancel()

    def _due(self) -> None:
        try:
            self._run(*self._arguments)
        except BaseException as error:
            self._log.failed("a call of context.later", error)
