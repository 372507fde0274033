"""``twistd apigw``: the composition root, the only file that touches the global reactor."""

from __future__ import annotations

import os
import resource
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, ClassVar, NoReturn

from attrs import evolve
from OpenSSL import SSL
from prometheus_client import CollectorRegistry
from twisted.application.service import IService
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python import usage
from twisted.web.resource import IResource

from apigw import __version__
from apigw.admin.operations import Circuits, Limits
from apigw.admin.status.history import History
from apigw.admin.status.page import document, page
from apigw.config.errors import ConfigError, Problem, problem_in
from apigw.config.load import load
from apigw.config.model import Config, Listen
from apigw.ops.access_log import AccessLog
from apigw.ops.exposition import Exposition, Page
from apigw.ops.metrics import PROTOCOLS, LagProbe, Metrics
from apigw.ops.readiness import Check, Readiness
from apigw.policy.auth.jwks import KeySet, swap
from apigw.policy.auth.keys import MAX_SET_BYTES
from apigw.policy.limits.limits import ExactWindows, MemoryStore, scope_key
from apigw.policy.limits.redis_store import RedisStore
from apigw.policy.oauth.client_secrets import SecretThreads
from apigw.policy.oauth.refresh import FamilyStore, MemoryFamilies
from apigw.process.garbage import Garbage, settle
from apigw.process.reload import Reload
from apigw.process.snapshot import Parts, Snapshot, compile
from apigw.process.tree import Drain, Listener, LogFile, Ordered, PublicListeners, Running, Signals, Ticking, Upstreams
from apigw.proxy.accounting import Accounting
from apigw.proxy.held_body import Buffers
from apigw.proxy.pipeline import Gateway
from apigw.proxy.resources import Document, Health, MetricsPage, Ready, Token
from apigw.proxy.site import Site, refusal_answer
from apigw.upstream.upstream import build
from apigw.wire.agent import Agent
from apigw.wire.channel import ChannelFactory, Settings
from apigw.wire.client_tls import ClientTLS
from apigw.wire.deadlines import Deadlines
from apigw.wire.fetch import Fetch
from apigw.wire.reactor.epoll import install as install_reactor
from apigw.wire.web_request import WebRequest

SPARE_DESCRIPTORS = 256
"""Files that are open for other reasons than a client: listeners, logs, the reactor, idle upstream connections."""

log = Logger()


class Options(usage.Options):
    """Validated before twistd becomes a daemon, so that mistakes reach the terminal."""

    optParameters: ClassVar = [["config", "c", "etc", "The directory with the configuration (YAML)."]]
    optFlags: ClassVar = [
        ["log-decisions", None, "Log each routing decision, and why an answer was not valid, at debug level."]
    ]
    longdesc: ClassVar = "An API gateway. Documentation: docs/."
    config: Config

    def __init__(self) -> None:
        install_reactor()
        super().__init__()

    def opt_version(self) -> None:
        print(f"apigw {__version__}")
        raise SystemExit(0)

    def postOptions(self) -> None:
        self["config"] = os.path.abspath(self["config"])
        try:
            self.config = load(self["config"], os.environ)
            self._check_access_log()
        except ConfigError as error:
            _refuse(error)

    def _check_access_log(self) -> None:
        """A daemon's standard output leads nowhere."""
        access_log = self.config.gateway.access_log
        if access_log is not None and access_log.file == "-" and self.parent and not self.parent["nodaemon"]:
            sentence = "standard output is lost when twistd becomes a daemon: name a file, or null for none"
            raise ConfigError([problem_in(self.config, ("gateway", "access_log", "file"), sentence)])


def makeService(options: Options) -> IService:
    """The whole program, constructed and not started. Exits with 1 and every problem on stderr if it cannot be."""
    from twisted.internet import reactor

    try:
        return Program(reactor, options.config, options["config"], bool(options["log-decisions"])).root
    except ConfigError as error:
        _refuse(error)


def _refuse(error: ConfigError) -> NoReturn:
    print(error, file=sys.stderr)
    raise SystemExit(1)


class Program:
    """Every part, and which knows which. ``root`` starts and stops them all."""

    def __init__(
        self,
        reactor: Any,
        config: Config,
        directory: str,
        log_decisions: bool = False,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._reactor = reactor
        self._started_at = reactor.seconds()
        self._deadlines = Deadlines(reactor)
        self._metrics = Metrics(CollectorRegistry(), __version__)
        self._upstreams = Upstreams(reactor)
        self._readiness = Readiness(reactor)
        self._history = History(reactor, self._metrics.routes)
        self._reloaded_at = 0.0
        settings = config.gateway
        store = self._store(config)
        windows = MemoryStore(reactor)
        threads = SecretThreads(reactor)
        fetch = Fetch(Agent(reactor, self._deadlines, lambda host: ClientTLS().to(host)), MAX_SET_BYTES)
        self._parts = Parts(
            build=lambda service: build(service, reactor, self._deadlines, self._metrics.service(service.name)),
            key_set=lambda url: KeySet(url, fetch, reactor),
            series=self._metrics.route,
            allow=ExactWindows(windows),
            run=threads.run,
            families=_families(config, store),
            log_decisions=log_decisions,
        )
        snapshot = compile(config, None, self._parts)
        access_log = self._access_log(config)
        accounting = Accounting(self._metrics, access_log, reactor.seconds)
        buffers = Buffers(settings.max_buffered)
        self._gateway = Gateway(snapshot, self._deadlines, store, accounting.exchange_ended, buffers)
        self._public = Site(self._gateway, accounting.resource_ended, reactor.seconds)
        refuse = partial(refusal_answer, accounting.refused)
        self._channels = ChannelFactory(snapshot.settings, self._deadlines, self._public.on_request, refuse, now)
        in_thread = partial(deferToThreadPool, reactor, reactor.getThreadPool())
        self._exposition = Exposition(self._render_metrics, reactor, in_thread)
        self._apply(snapshot)

        listeners = [_make(reactor, listen, self._channels, index) for index, listen in enumerate(settings.listen)]
        drain = Drain(reactor, self._channels, self._gateway, lambda: self._current().config.gateway.drain_timeout)
        ports = PublicListeners(reactor, self._readiness, lambda: self._current().config.gateway.drain_delay)
        for listener in listeners:
            listener.setServiceParent(ports)
        self._reload = Reload(
            reactor,
            lambda: load(directory, os.environ),
            lambda config, previous: compile(config, previous, self._parts),
            listeners,
            self._current,
            self._apply,
            self._reloaded,
        )
        lag = LagProbe(reactor, self._metrics.reactor_lag)
        parts: list[Any] = [
            Ticking(self._deadlines),
            Running(lag),
            Running(self._history),
            Running(threads),
            Running(windows),
        ]
        if access_log is not None:
            parts.append(LogFile(reactor, access_log))
        parts += (Running(store), self._upstreams)
        if settings.admin is not None:
            admin = Site(None, lambda *_: None, reactor.seconds)
            admin.reserve(self._admin_resources(store))
            refuse_uncounted = partial(refusal_answer, lambda *_: None)
            channels = ChannelFactory(snapshot.settings, self._deadlines, admin.on_request, refuse_uncounted, now)
            parts.append(Listener(reactor, Listen(settings.admin), channels))
        self.root = Ordered()
        for part in (*parts, drain, ports, self._reload, Signals(reactor, ports, drain), Garbage(reactor)):
            part.setServiceParent(self.root)

    def _store(self, config: Config) -> MemoryStore | RedisStore:
        if config.redis is None:
            return MemoryStore(self._reactor)
        return RedisStore(config.redis, self._reactor, self._metrics.store_up, self._metrics.store_fallback)

    def _access_log(self, config: Config) -> AccessLog | None:
        wanted = config.gateway.access_log
        if wanted is None:
            return None
        report = partial(log.warn, "{sentence}")
        return AccessLog(
            wanted.file,
            wanted.format,
            self._reactor,
            self._reactor.callFromThread,
            lambda sentence: report(sentence=sentence),
        )

    def _public_resources(self, snapshot: Snapshot) -> dict[bytes, IResource]:
        allowed = snapshot.metrics_allowed
        resources: dict[bytes, IResource] = {
            b"/health": Health(),
            b"/ready": Ready(self._readiness, False),
            b"/metrics": MetricsPage(self._exposition, lambda request: allowed.trusts(request.peer)),
        }
        oauth = snapshot.oauth
        if oauth is not None:
            address = partial(_token_address, snapshot)
            resources[b"/oauth/token"] = Token(oauth.endpoint, address, self._reactor.seconds)
            resources[b"/.well-known/oauth-authorization-server"] = Document(lambda: oauth.metadata)
            if oauth.jwks is not None:
                resources[b"/.well-known/jwks.json"] = Document(lambda: oauth.jwks)
        return resources

    def _admin_resources(self, store: MemoryStore | RedisStore) -> dict[bytes, IResource]:
        return {
            b"/health": Health(),
            b"/ready": Ready(self._readiness, True),
            b"/metrics": MetricsPage(self._exposition, lambda _: True),
            b"/status": Document(self._status),
            **page(self._page, self._reactor),
            b"/limits": Limits(lambda: self._current().limits, store, self._metrics),
            b"/circuits": Circuits(lambda: self._current().upstreams.values(), lambda: self._current().admin_token),
        }

    def _render_metrics(self, openmetrics: bool) -> Page:
        """In a thread."""
        self._metrics.in_flight = self._gateway.in_flight
        count = Counter(channel.version for channel in list(self._channels.channels))
        for protocol in PROTOCOLS:
            self._metrics.connections(protocol).set(count[protocol])
        return self._metrics.render(openmetrics)

    def _status(self) -> dict[str, object]:
        """How this process is doing, in numbers that a parent can add up. Times are seconds."""
        succeeded = self._reload.succeeded
        return {
            "version": __version__,
            "uptime": round(self._reactor.seconds() - self._started_at, 3),
            "connections": len(self._channels.channels),
            "in_flight": self._gateway.in_flight,
            "last_reload": None if succeeded is None else "succeeded" if succeeded else "failed",
        }

    def _store_checks(self, snapshot: Snapshot) -> dict[str, Check]:
        """What ``/ready`` asks of Redis: nothing, unless requests are refused without it."""
        store = self._gateway.store

        def usable() -> Deferred[object]:
            return succeed(None) if store.up else fail(RuntimeError("Redis cannot be used"))

        if all(limit.on_store_failure != "closed" for limit in snapshot.limits):
            return {}
        return {"rate limit store": usable}

    def _page(self) -> Iterator[dict[str, Any] | None]:
        """What the status page shows."""
        status = self._status()
        result = status["last_reload"]
        ago = round(self._reactor.seconds() - self._reloaded_at, 3)
        facts = {**status, "last_reload": None if result is None else {"result": result, "ago": ago}}
        return document(facts, self._current(), self._history)

    def _reloaded(self, succeeded: bool) -> None:
        self._reloaded_at = self._reactor.seconds()
        self._metrics.reloaded(succeeded)
        self._keep_series()  # a configuration that was not taken may have left some
        settle()

    def _current(self) -> Snapshot:
        return self._gateway.snapshot

    def _apply(self, snapshot: Snapshot) -> None:
        """Make a snapshot the current one. Cannot fail: all that could has been done when it was compiled."""
        previous = self._gateway.snapshot
        self._gateway.snapshot = snapshot
        self._gateway.buffers.most = snapshot.config.gateway.max_buffered
        self._channels.settings = _within_file_limit(snapshot.settings)
        self._public.reserve(self._public_resources(snapshot))
        swap(previous.key_sets if previous is not snapshot else {}, snapshot.key_sets)
        self._upstreams.adopt(snapshot.upstreams)
        self._readiness.checks = {**self._upstreams.checks(), **self._store_checks(snapshot)}
        self._readiness.forget()
        config = snapshot.config
        store = self._gateway.store
        if config.redis is not None and not isinstance(store, MemoryStore):
            store.timeout = config.redis.timeout
        self._keep_series()
        for warning in config.warnings:
            log.warn("{warning}", warning=str(warning))

    def _keep_series(self) -> None:
        """The metrics have the series of the current configuration, and no others."""
        config = self._current().config
        limits = {(limit.endpoint, limit.scope) for limit in config.rate_limits}
        self._metrics.retain(
            {route.path for route in config.routes}, {service.name for service in config.services}, limits
        )
        for endpoint, scope in limits:
            self._metrics.limit(endpoint, scope)


def _families(config: Config, store: MemoryStore | RedisStore) -> FamilyStore:
    if config.redis is None or isinstance(store, MemoryStore):
        return MemoryFamilies()
    from apigw.policy.oauth.redis_families import RedisFamilies

    return RedisFamilies(config.redis.prefix, store.link)


def _token_address(snapshot: Snapshot, request: WebRequest) -> str:
    """What the token endpoint counts a caller by: as limits do, so that nobody has 2**64 addresses."""
    return scope_key("ip", None, None, snapshot.peers.client_address(request.request).decode("ascii")).hex()


def _make(reactor: Any, listen: Listen, channels: ChannelFactory, index: int) -> Listener:
    try:
        return Listener(reactor, listen, channels)
    except (OSError, SSL.Error, ValueError) as error:
        problem = Problem(f"its certificates cannot be used: {error}", ("gateway", "listen", index))
        raise ConfigError([problem]) from None


def _within_file_limit(settings: Settings) -> Settings:
    """Raise the limit on open files for ``max_connections`` clients, each with an upstream's, or lower those."""
    wanted = 2 * settings.max_connections + SPARE_DESCRIPTORS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= wanted or soft == resource.RLIM_INFINITY:
        return settings
    try:
        highest = hard if hard == resource.RLIM_INFINITY else max(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, highest))
        return settings
    except (OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    connections = max(16, (hard - SPARE_DESCRIPTORS) // 2)
    if connections < settings.max_connections:
        log.warn(
            "max_connections lowered from {wanted} to {have}: the process may open {files} files",
            wanted=settings.max_connections,
            have=connections,
            files=hard,
        )
    return evolve(settings, max_connections=min(settings.max_connections, connections))
