"""``twistd apigw``: the composition root, the only file that touches the global reactor."""

from __future__ import annotations

import os
import resource
import sys
from typing import Any, ClassVar, NoReturn

from attrs import evolve
from OpenSSL import SSL
from twisted.application.service import IService
from twisted.logger import Logger
from twisted.python import usage
from twisted.web.resource import IResource

from apigw import __version__
from apigw.config.errors import ConfigError, Problem
from apigw.config.load import load
from apigw.config.model import Config, Listen, Service
from apigw.forwarding import new_request_id
from apigw.gateway import Gateway
from apigw.ops.health import Readiness
from apigw.reload import Reload
from apigw.resources import Document, Health, Ready
from apigw.service import Drain, Listener, Ordered, PublicListeners, Signals, Ticking, Upstreams
from apigw.site import Site, refusal_answer
from apigw.snapshot import Snapshot, compile
from apigw.upstream import Upstream, build
from apigw.wire.channel import ChannelFactory, Settings
from apigw.wire.deadlines import Deadlines
from apigw.wire.errors import Refused
from apigw.wire.headers import Headers
from apigw.wire.reactor import install as install_reactor
from apigw.wire.request import Request

SPARE_DESCRIPTORS = 256
"""Files that are open for other reasons than a client: listeners, logs, the reactor, idle upstream connections."""

log = Logger()


class Options(usage.Options):
    """Validated before twistd becomes a daemon, so that mistakes reach the terminal."""

    optParameters: ClassVar = [["config", "c", "etc", "The directory with the configuration (YAML)."]]
    optFlags: ClassVar = [["log-decisions", None, "Log each routing decision at debug level."]]
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
        except ConfigError as error:
            _refuse(error)


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

    def __init__(self, reactor: Any, config: Config, directory: str, log_decisions: bool = False) -> None:
        self._reactor = reactor
        self._log_decisions = log_decisions
        self._started_at = reactor.seconds()
        self._deadlines = Deadlines(reactor)
        settings = config.gateway
        self._upstreams = Upstreams(reactor)
        self._readiness = Readiness(reactor)
        snapshot = self._compile(config, None)
        self._gateway = Gateway(snapshot, reactor.seconds, lambda exchange: None)
        public = Site({b"/health": Health(), b"/ready": Ready(self._readiness, False)}, self._gateway, self._account)
        self._channels = ChannelFactory(snapshot.settings, self._deadlines, public.on_request, self._refused)
        self._apply(snapshot)

        listeners = [_make(reactor, listen, self._channels, index) for index, listen in enumerate(settings.listen)]
        drain = Drain(reactor, self._channels, self._gateway, lambda: self._current().config.gateway.drain_timeout)
        ports = PublicListeners(reactor, self._readiness, lambda: self._current().config.gateway.drain_delay)
        for listener in listeners:
            listener.setServiceParent(ports)
        self._reload = Reload(
            reactor,
            lambda: load(directory, os.environ),
            self._compile,
            listeners,
            self._current,
            self._apply,
            lambda succeeded: None,
        )
        self.root = Ordered()
        parts: list[Any] = [Ticking(self._deadlines), self._upstreams]
        if settings.admin is not None:
            admin = Site(self._admin_resources(), None, self._account)
            channels = ChannelFactory(snapshot.settings, self._deadlines, admin.on_request, self._refused)
            parts.append(Listener(reactor, Listen(settings.admin), channels))
        for part in (*parts, drain, ports, self._reload, Signals(reactor, ports, drain)):
            part.setServiceParent(self.root)

    def _admin_resources(self) -> dict[bytes, IResource]:
        return {
            b"/health": Health(),
            b"/ready": Ready(self._readiness, True),
            b"/status": Document(self._status),
        }

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

    def _current(self) -> Snapshot:
        return self._gateway.snapshot

    def _compile(self, config: Config, previous: Snapshot | None) -> Snapshot:
        def build_upstream(service: Service) -> Upstream:
            return build(service, self._reactor, self._deadlines)

        return compile(config, previous, build_upstream, self._log_decisions)

    def _apply(self, snapshot: Snapshot) -> None:
        """Make a snapshot the current one. Cannot fail: all that could has been done by ``_compile``."""
        self._gateway.snapshot = snapshot
        self._channels.settings = _within_file_limit(snapshot.settings)
        self._upstreams.adopt(snapshot.upstreams)
        self._readiness.checks = self._upstreams.checks()
        self._readiness.forget()
        for warning in snapshot.config.warnings:
            log.warn("{warning}", warning=str(warning))

    def _account(self, request: Request, path: str) -> None: ...

    def _refused(self, refusal: Refused, peer: bytes, secure: bool, protocol: bytes) -> tuple[int, Headers, bytes]:
        return refusal_answer(refusal, new_request_id())


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
