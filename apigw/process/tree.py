"""The tree of Twisted services: upstreams, listeners, drain, signals."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Protocol

from OpenSSL import SSL
from twisted.application.service import MultiService, Service
from twisted.internet.address import UNIXAddress
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from apigw.config.errors import ConfigError, problem_in
from apigw.config.model import Config, Listen, Path
from apigw.ops.access_log import AccessLog
from apigw.ops.readiness import Check, Readiness
from apigw.process.snapshot import UpstreamKey
from apigw.process.systemd import notify
from apigw.proxy.pipeline import Pipeline
from apigw.upstream.checks import HealthChecks, any_answers
from apigw.upstream.upstream import Upstream
from apigw.wire.channel import ChannelFactory
from apigw.wire.deadlines import Deadlines
from apigw.wire.reactor.transport import EagerReactor
from apigw.wire.tls import KeyPair, ServerContexts, TLSFactory, reason

log = Logger()


class CannotStart(SystemExit, Exception):
    """One line for the operator and exit code 1. An ``Exception`` too, so that twistd passes it to its parent."""


class Ordered(MultiService):
    """Starts its services from first to last; stops them from last to first, waiting for each."""

    @inlineCallbacks
    def stopService(self) -> Any:
        Service.stopService(self)
        for service in reversed(list(self)):
            try:
                yield service.stopService()
            except Exception:
                log.failure("a service did not stop")


class Ticking(Service):
    """The deadline list of every connection."""

    def __init__(self, deadlines: Deadlines) -> None:
        self._deadlines = deadlines

    def startService(self) -> None:
        super().startService()
        self._deadlines.start()

    def stopService(self) -> None:
        super().stopService()
        self._deadlines.stop()


class Runs(Protocol):
    """Something with a beginning and an end."""

    def start(self) -> object: ...
    def stop(self) -> Any: ...


class Running(Service):
    """A part that runs as long as the program. Its end may be a Deferred, and is waited for."""

    def __init__(self, part: Runs) -> None:
        self._part = part

    def startService(self) -> None:
        super().startService()
        self._part.start()

    def stopService(self) -> Any:
        super().stopService()
        return self._part.stop()


class LogFile(Running):
    """The access log: opened after the process has forked, and anew on SIGUSR1, as twistd does with its own."""

    def __init__(self, reactor: Any, access_log: AccessLog) -> None:
        super().__init__(access_log)
        self._reactor = reactor
        self._access_log = access_log

    def startService(self) -> None:
        try:
            super().startService()
        except OSError as error:
            raise CannotStart(f"apigw: cannot open the access log: {error}") from None
        self._reactor.callWhenRunning(self._install)

    def _install(self) -> None:
        before = signal.getsignal(signal.SIGUSR1)

        def reopen(number: int, frame: Any) -> None:
            if callable(before):
                before(number, frame)
            self._reactor.callFromThread(self._access_log.reopen)

        try:
            signal.signal(signal.SIGUSR1, reopen)
        except ValueError:  # not the main thread: an embedding program has its own signals
            return


class Upstreams(Service):
    """Owns the upstreams of the current snapshot: their pools, their health checks."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._current: Mapping[UpstreamKey, Upstream] = {}
        self._health: dict[Upstream, HealthChecks] = {}

    def adopt(self, upstreams: Mapping[UpstreamKey, Upstream]) -> None:
        """These and no others, from now on. What both generations have goes on as it was."""
        for key, upstream in self._current.items():
            if upstreams.get(key) is not upstream:
                self._retire(upstream)
        new = [upstream for key, upstream in upstreams.items() if self._current.get(key) is not upstream]
        self._current = upstreams
        if self.running:
            for upstream in new:
                self._begin(upstream)

    def checks(self) -> dict[str, Check]:
        """What ``/ready`` asks: every critical service has a target that answers."""
        return {
            upstream.name: partial(any_answers, upstream, self._reactor)
            for upstream in self._current.values()
            if upstream.service.critical
        }

    def startService(self) -> None:
        super().startService()
        for upstream in self._current.values():
            self._begin(upstream)

    def stopService(self) -> None:
        super().stopService()
        for upstream in self._current.values():
            self._retire(upstream)

    def _begin(self, upstream: Upstream) -> None:
        upstream.start()
        check = upstream.service.health_check
        if check is not None:
            self._health[upstream] = HealthChecks(upstream, check, self._reactor)
            self._health[upstream].start()

    def _retire(self, upstream: Upstream) -> None:
        # First: a check that is given up must not count for its circuit.
        upstream.close()
        health = self._health.pop(upstream, None)
        if health is not None:
            health.stop()


class Listener(Service):
    """One listening port. It binds before privileges are dropped; certificates can be replaced while it is open."""

    def __init__(self, reactor: Any, config: Listen, factory: ChannelFactory) -> None:
        self._reactor = reactor
        self.config = config
        self._factory: Any = factory
        self._port: IListeningPort | None = None
        self.contexts: ServerContexts | None = None
        if config.tls is not None:
            self.contexts = ServerContexts(self._pairs(), config.tls.min_version, config.tls.client_ca_file)
            self._factory = TLSFactory(self.contexts, factory, reactor)

    def load(self) -> Callable[[], None]:
        """Read the certificates, which may fail, and return what puts them to use, which does not."""
        contexts = self.contexts
        if contexts is None:
            return lambda: None
        loaded = contexts.load(self._pairs())
        return lambda: contexts.use(loaded)

    def privilegedStartService(self) -> None:
        super().privilegedStartService()
        try:
            endpoint = serverFromString(EagerReactor(self._reactor), self.config.endpoint)
        except Exception as unusable:  # an ssl: endpoint's files, or sockets that systemd has not passed on
            raise CannotStart(f"cannot listen: {reason(unusable)}: {self.config.endpoint}") from None
        outcome: list[Any] = []
        endpoint.listen(self._factory).addBoth(outcome.append)
        if outcome and isinstance(outcome[0], Failure):
            error: Any = outcome[0].value
            why = error.socketError.strerror if isinstance(error, CannotListenError) else error
            # The parent process is shown no more than the beginning.
            raise CannotStart(f"cannot listen: {why}: {self.config.endpoint}")
        self._port = outcome[0]
        log.info("listening on {address}: {endpoint}", address=_shown(self._port), endpoint=self.config.endpoint)

    def startService(self) -> None:
        if self._port is None:
            self.privilegedStartService()
        super().startService()

    def stopService(self) -> Deferred[None] | None:
        """Accept what is queued already, then close."""
        super().stopService()
        port: Any = self._port
        self._port = None
        if port is None:
            return None
        accepted = -1
        while getattr(port, "sessionno", accepted) != accepted:
            accepted = port.sessionno
            port.doRead()
        return port.stopListening()

    def _pairs(self) -> list[KeyPair]:
        assert self.config.tls is not None
        return [KeyPair(pair.cert_file, pair.key_file) for pair in self.config.tls.certificates]


def listener(reactor: Any, config: Config, listen: Listen, path: Path, channels: Any) -> Listener:
    """The one that ``config`` has at ``path``. Raises ``ConfigError`` for certificates that cannot be used."""
    try:
        return Listener(reactor, listen, channels)
    except (OSError, SSL.Error, ValueError) as error:
        raise ConfigError(
            [problem_in(config, path, f"has certificates that cannot be used: {reason(error)}")]
        ) from None


def _shown(port: IListeningPort) -> str:
    """Where a port really listens, which port 0 leaves to the system."""
    address: Any = port.getHost()
    if isinstance(address, UNIXAddress):
        return address.name.decode(errors="replace") if isinstance(address.name, bytes) else str(address.name)
    return f"[{address.host}]:{address.port}" if ":" in address.host else f"{address.host}:{address.port}"


class PublicListeners(Ordered):
    """The public ports. Stopping them begins the shutdown: not ready, ``drain_delay``, then no new connections."""

    def __init__(self, reactor: Any, readiness: Readiness, drain_delay: Callable[[], float]) -> None:
        super().__init__()
        self._reactor = reactor
        self._readiness = readiness
        self._drain_delay = drain_delay
        self._waiting: Deferred[None] | None = None

    def close_now(self) -> None:
        """Wait no longer."""
        if self._waiting is not None and not self._waiting.called:
            self._waiting.callback(None)

    @inlineCallbacks
    def stopService(self) -> Any:
        notify("STOPPING=1")
        self._readiness.draining = True
        delay = self._drain_delay()
        if delay:
            log.info("draining in {delay:g} s", delay=delay)
            self._waiting = Deferred()
            timer = self._reactor.callLater(delay, self.close_now)
            yield self._waiting
            if timer.active():
                timer.cancel()
        yield super().stopService()


class Drain(Service):
    """Stopping waits for the exchanges in flight, up to ``drain_timeout`` seconds, and cuts what is left then."""

    def __init__(self, reactor: Any, factory: ChannelFactory, pipeline: Pipeline, timeout: Callable[[], float]) -> None:
        self._reactor = reactor
        self._factory = factory
        self._pipeline = pipeline
        self._timeout = timeout
        self._cut_now: Deferred[None] = Deferred()

    def cut(self) -> None:
        """Wait no longer."""
        if not self._cut_now.called:
            self._cut_now.callback(None)

    @inlineCallbacks
    def stopService(self) -> Any:
        super().stopService()
        # Requests that had arrived whole are in sockets that the reactor reads within its next turns.
        self._factory.draining = True
        for _ in range(2):
            yield deferLater(self._reactor, 0)
        self._factory.drain()
        empty: Deferred[None] = Deferred()
        if not self._factory.channels:
            return
        log.info("draining: {count} exchanges in flight", count=self._pipeline.in_flight)
        self._factory.on_empty = lambda: None if empty.called else empty.callback(None)
        timer = self._reactor.callLater(self._timeout(), self.cut)
        self._cut_now.addCallback(lambda _: self._factory.cut())
        yield empty
        if timer.active():
            timer.cancel()


class Signals(Service):
    """SIGTERM and SIGINT stop the process, with exit code 0 once it has drained; a second one cuts the drain short.

    The reactor's own handlers would make twistd end by the signal, and ignore a second one. SIGUSR1, with which
    logrotate asks for new files, ends nothing where there is no file to begin anew.
    """

    def __init__(self, reactor: Any, ports: PublicListeners, drain: Drain) -> None:
        self._reactor = reactor
        self._ports = ports
        self._drain = drain
        self._stopping = False

    def startService(self) -> None:
        super().startService()
        # The reactor installs its handlers when it starts to run.
        self._reactor.callWhenRunning(self._install)

    def _install(self) -> None:
        try:
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, lambda *_: self._reactor.callFromThread(self._received))
            if signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL:
                signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        except ValueError:  # not the main thread: an embedding program has its own signals
            return

    def _received(self) -> None:
        if self._stopping:
            self._drain.cut()
            self._ports.close_now()
        else:
            self._stopping = True
            log.info("stopping")
            self._reactor.stop()
