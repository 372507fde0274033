"""The tree of Twisted services: listeners, drain, reload, signals."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from attrs import evolve
from twisted.application.service import MultiService, Service
from twisted.internet.defer import Deferred, inlineCallbacks, succeed
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure

from apigw.config.errors import ConfigError, Problem
from apigw.config.model import Config, Listen
from apigw.gateway import Gateway
from apigw.health import HealthChecks, ask, dial
from apigw.ops.health import Check, Readiness
from apigw.snapshot import Snapshot, UpstreamKey
from apigw.systemd import notify
from apigw.upstream import Upstream
from apigw.wire.agent import Agent
from apigw.wire.channel import ChannelFactory
from apigw.wire.deadlines import Deadlines
from apigw.wire.tls import KeyPair, ServerContexts, TLSFactory
from apigw.wire.transport import EagerReactor

log = Logger()


class CannotStart(SystemExit, Exception):
    """One line for the operator and exit code 1. An ``Exception`` too, so that twistd passes it to the parent process."""


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


class Upstreams(Service):
    """Owns the upstreams of the current snapshot: their pools, their health checks."""

    def __init__(self, reactor: Any, agent: Agent) -> None:
        self._reactor = reactor
        self._agent = agent
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
            upstream.name: lambda upstream=upstream: self._any_answers(upstream)  # type: ignore[misc]
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
        self._agent.close()

    def _begin(self, upstream: Upstream) -> None:
        upstream.start()
        check = upstream.service.health_check
        if check is not None:
            self._health[upstream] = HealthChecks(upstream, check, self._agent, self._reactor)
            self._health[upstream].start()

    def _retire(self, upstream: Upstream) -> None:
        health = self._health.pop(upstream, None)
        if health is not None:
            health.stop()
        upstream.close()

    def _any_answers(self, upstream: Upstream) -> Deferred[object]:
        check = upstream.service.health_check
        if check is None:
            asked = [dial(target) for target in upstream.targets]
        else:
            asked = [ask(self._agent, target, check) for target in upstream.targets]
        return first_success(asked)


def first_success(attempts: Iterable[Deferred[Any]]) -> Deferred[object]:
    """Fires with the first that succeeds; fails as the last that fails. Those still under way are cancelled."""
    attempts = list(attempts)
    result: Deferred[object] = Deferred(lambda _: [attempt.cancel() for attempt in attempts])
    left = [len(attempts)]

    def succeeded(value: object) -> None:
        if not result.called:
            result.callback(value)
            for attempt in attempts:
                attempt.cancel()

    def failed(failure: Failure) -> None:
        left[0] -= 1
        if not left[0] and not result.called:
            result.errback(failure)

    for attempt in attempts:
        attempt.addCallbacks(succeeded, failed)
    return result


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
        endpoint = serverFromString(EagerReactor(self._reactor), self.config.endpoint)
        outcome: list[Any] = []
        endpoint.listen(self._factory).addBoth(outcome.append)
        if outcome and isinstance(outcome[0], Failure):
            error: Any = outcome[0].value
            reason = error.socketError.strerror if isinstance(error, CannotListenError) else outcome[0].getErrorMessage()
            raise CannotStart(f"apigw: cannot listen on {self.config.endpoint}: {reason}")
        self._port = outcome[0]
        log.info("listening on {endpoint}", endpoint=self.config.endpoint)

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


class PublicListeners(Ordered):
    """The public ports. Stopping them begins the shutdown: not ready, ``drain_delay``, then no new connections."""

    def __init__(self, reactor: Any, readiness: Readiness, drain_delay: Callable[[], float]) -> None:
        super().__init__()
        self._reactor = reactor
        self._readiness = readiness
        self._drain_delay = drain_delay

    @inlineCallbacks
    def stopService(self) -> Any:
        notify("STOPPING=1")
        self._readiness.draining = True
        delay = self._drain_delay()
        if delay:
            log.info("draining in {delay:g} s", delay=delay)
            yield deferLater(self._reactor, delay)
        yield super().stopService()


class Drain(Service):
    """Stopping waits for the exchanges in flight, up to ``drain_timeout`` seconds, and cuts what is left then."""

    def __init__(self, reactor: Any, factory: ChannelFactory, gateway: Gateway, timeout: Callable[[], float]) -> None:
        self._reactor = reactor
        self._factory = factory
        self._gateway = gateway
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
        log.info("draining: {count} exchanges in flight", count=self._gateway.in_flight)
        self._factory.on_empty = lambda: None if empty.called else empty.callback(None)
        timer = self._reactor.callLater(self._timeout(), self.cut)
        self._cut_now.addCallback(lambda _: self._factory.cut())
        yield empty
        if timer.active():
            timer.cancel()


class Signals(Service):
    """SIGTERM and SIGINT stop the process, with exit code 0 once it has drained; a second one cuts the drain short.

    The reactor's own handlers would make twistd end by the signal, and ignore a second one.
    """

    def __init__(self, reactor: Any, cut: Callable[[], None]) -> None:
        self._reactor = reactor
        self._cut = cut
        self._stopping = False

    def startService(self) -> None:
        super().startService()
        # The reactor installs its handlers when it starts to run.
        self._reactor.callWhenRunning(self._install)

    def _install(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            try:
                signal.signal(number, lambda *_: self._reactor.callFromThread(self._received))
            except ValueError:  # not the main thread: an embedding program has its own signals
                return

    def _received(self) -> None:
        if self._stopping:
            self._cut()
        else:
            self._stopping = True
            log.info("stopping")
            self._reactor.stop()


Load = Callable[[], Config]
Compile = Callable[[Config, Snapshot | None], Snapshot]
Apply = Callable[[Snapshot], None]


class Reload(Service):
    """SIGHUP: load and compile in a thread, then swap on the reactor's. Whatever fails, the old configuration serves on."""

    def __init__(
        self,
        reactor: Any,
        load: Load,
        compile: Compile,
        listeners: Iterable[Listener],
        current: Callable[[], Snapshot],
        apply: Apply,
        on_result: Callable[[bool], None],
    ) -> None:
        self._reactor = reactor
        self._load = load
        self._compile = compile
        self._listeners = listeners
        self._current = current
        self._apply = apply
        self._on_result = on_result
        self._running: Deferred[bool] | None = None
        self._again = False

    def startService(self) -> None:
        super().startService()
        try:
            signal.signal(signal.SIGHUP, lambda *_: self._reactor.callFromThread(self.reload))
        except ValueError:  # not the main thread: an embedding program calls ``reload`` itself
            return
        notify("READY=1")

    def stopService(self) -> Deferred[Any]:
        super().stopService()
        self._again = False
        return self._running or succeed(None)

    def reload(self) -> Deferred[bool]:
        """Fires with whether the new configuration is in use. What arrives during a reload becomes one more."""
        if self._running is not None:
            self._again = True
            return self._running
        notify("RELOADING=1\nMONOTONIC_USEC=%d" % (self._reactor.seconds() * 1e6))
        self._running = deferToThreadPool(self._reactor, self._reactor.getThreadPool(), self._prepare)
        return self._running.addCallbacks(self._swap, self._failed).addCallback(self._done)

    def _prepare(self) -> tuple[Snapshot, list[Callable[[], None]]]:
        current = self._current()
        config = self._load()
        problems = needs_restart(current.config, config)
        if problems:
            raise ConfigError(problems)
        snapshot = self._compile(config, current)
        return snapshot, [listener.load() for listener in self._listeners]

    def _swap(self, prepared: tuple[Snapshot, list[Callable[[], None]]]) -> bool:
        snapshot, certificates = prepared
        self._apply(snapshot)
        for use in certificates:
            use()
        log.info("configuration reloaded: {routes} routes", routes=len(snapshot.config.routes))
        return True

    def _failed(self, failure: Failure) -> bool:
        if failure.check(ConfigError):
            for problem in failure.value.problems:
                log.error("not reloaded: {problem}", problem=str(problem))
        else:
            log.failure("not reloaded", failure=failure)
        return False

    def _done(self, succeeded: bool) -> bool:
        self._on_result(succeeded)
        notify("READY=1")
        self._running = None
        if self._again:
            self._again = False
            self.reload()
        return succeeded


def needs_restart(old: Config, new: Config) -> list[Problem]:
    """What a running process cannot change. Certificates behind a listener may change; which there are may not."""

    def fixed(config: Config) -> dict[tuple[str, ...], object]:
        gateway = config.gateway
        return {
            ("gateway", "listen"): gateway.listen,
            ("gateway", "admin"): gateway.admin,
            ("redis", "url"): config.redis and evolve(config.redis, timeout=0),
        }

    before, after = fixed(old), fixed(new)
    problems = [
        Problem("a change here needs a restart", path, new.origins.get(path))
        for path, value in after.items()
        if value != before[path]
    ]
    if old.auth is not None and new.auth is None and new.gateway.auth_default != "none":
        problems.append(Problem("dropping all of `auth` by a reload needs `gateway.auth_default: none`", ("auth",)))
    return problems


