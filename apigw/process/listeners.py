"""The listening ports: the public ones, and that of the admin listener."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

from OpenSSL import SSL
from twisted.application.service import Service
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.interfaces import IListeningPort
from twisted.logger import Logger

from apigw.config.errors import ConfigError, problem_in
from apigw.config.model import Config, Listen, Path
from apigw.ops.readiness import Readiness
from apigw.process.sockets import Socket, bind
from apigw.process.systemd import notify
from apigw.process.tree import Ordered
from apigw.shared.slots import AWAY, CONNECTIONS, NOBODY, READY, Slots
from apigw.wire.channel import ChannelFactory
from apigw.wire.proxy_protocol import ProxiedFactory
from apigw.wire.reactor.gate import Gate
from apigw.wire.reactor.ports import MOST_ACCEPTED, serve
from apigw.wire.tls import KeyPair, ServerContexts, TLSFactory, ends_of, reason

log = Logger()


class Counts:
    """The connections of clients of each worker, in the shared page."""

    def __init__(self, slots: Slots, worker: int, seconds: Callable[[], float]) -> None:
        """``seconds`` is the monotonic clock."""
        self._slots = slots
        self._worker = worker
        self._seconds = seconds

    def put(self, connections: int) -> None:
        self._slots.put(self._worker, CONNECTIONS, connections)

    def least(self) -> int:
        slots, now = self._slots, int(self._seconds() * 1000)
        least = slots.least_connections(now)
        if least < slots.get(self._worker, CONNECTIONS):
            return least
        others = (worker for worker in slots.ready(now) if worker != self._worker and not slots.get(worker, AWAY))
        return min((slots.get(worker, CONNECTIONS) for worker in others), default=NOBODY)

    def another(self) -> bool:
        return self.least() < NOBODY

    def total(self) -> int:
        return self._slots.total(CONNECTIONS)

    def away(self, away: bool) -> None:
        self._slots.put(self._worker, AWAY, int(away))

    def leave(self) -> bool:
        self._slots.put(self._worker, READY, 0)
        return self.another()


class Listener(Service):
    """One listening port. It binds before privileges are dropped; certificates can be replaced while it is open."""

    def __init__(
        self,
        reactor: Any,
        config: Listen,
        factory: ChannelFactory,
        shared: Socket | None = None,
        gate: Gate | None = None,
        authorities: Sequence[str] = (),
    ) -> None:
        """``shared``: the socket to serve, bound by another process, which keeps it open.

        ``gate``: where other workers serve it at the same time. ``authorities``: as for ``load``.
        """
        self._reactor = reactor
        self.config = config
        self._shared = shared
        self._gate = gate
        self._own: Socket | None = None
        self._factory: Any = factory
        self._port: IListeningPort | None = None
        self.contexts: ServerContexts | None = None
        self.ends: dict[str, float] = {}
        """When the certificate in use for each name ends, in Unix time."""
        if config.tls is not None:
            base = None if shared is None else shared.base
            pairs, trusted = self._files(authorities)
            self.ends = ends_of(pair.certificate for pair in pairs)
            self.contexts = ServerContexts(pairs, config.tls.min_version, config.tls.verifies, trusted, base)
            self._factory = TLSFactory(self.contexts, factory)
        if config.proxy_protocol:
            self._factory = ProxiedFactory(factory, self._factory)

    def load(self, authorities: Sequence[str]) -> Callable[[], None]:
        """Read the certificates, and return a function that puts them in use. Only the reading can fail.

        ``authorities`` are files with those whose certificates of clients are taken, if the listener names none itself.
        """
        contexts = self.contexts
        if contexts is None:
            return lambda: None
        pairs, trusted = self._files(authorities)
        loaded, ends = contexts.load(pairs, trusted), ends_of(pair.certificate for pair in pairs)

        def use() -> None:
            contexts.use(loaded)
            self.ends = ends

        return use

    def privilegedStartService(self) -> None:
        super().privilegedStartService()
        bound = self._shared
        if bound is None:
            bound = self._own = bind(self.config)
        factory = self._factory if bound.contexts is None else TLSFactory(bound.contexts, self._factory)
        self._port = serve(self._reactor, bound.listening, factory, self._gate)

    def startService(self) -> None:
        if self._port is None:
            self.privilegedStartService()
        super().startService()

    def stopService(self) -> Deferred[None] | None:
        """Accept the connections that are queued, unless another worker does, and then no more.

        A shared socket stays open for the other workers, and the next program. That of the public is closed in this
        process: were it open here to the end of the drain, clients would wait for nobody.
        """
        super().stopService()
        port: Any = self._port
        own = self._own
        self._port = self._own = None
        if port is None:
            return None
        another_accepts = self._gate is not None and self._gate.leave()
        if not another_accepts:
            while port.accept(MOST_ACCEPTED):
                pass
        closed: Deferred[None] = port.stopListening()
        if self._gate is not None and self._shared is not None:
            self._shared.listening.close()
        return closed if own is None else closed.addBoth(lambda _: own.close())

    def let_go(self) -> None:
        """Of a shared socket this process will accept no more. With the last copy it is closed."""
        if self._shared is not None:
            self._shared.listening.close()

    def _files(self, authorities: Sequence[str]) -> tuple[list[KeyPair], Sequence[str]]:
        """Certificates with their keys, and the files of the authorities that clients are verified by.

        Raises ``OSError`` with the name of a file that this process may not read. OpenSSL would not say which.
        """
        tls = self.config.tls
        assert tls is not None
        pairs = [KeyPair(pair.cert_file, pair.key_file) for pair in tls.certificates]
        trusted = authorities if tls.client_ca_file is None else (tls.client_ca_file,)
        if tls.verifies == "none":
            trusted = ()
        for file in (*trusted, *chain.from_iterable((pair.certificate, pair.key) for pair in pairs)):
            open(file, "rb").close()
        return pairs, trusted


def listener(
    reactor: Any,
    config: Config,
    listen: Listen,
    path: Path,
    channels: Any,
    shared: Socket | None = None,
    gate: Gate | None = None,
    authorities: Sequence[str] = (),
) -> Listener:
    """The listener for ``config``, found at ``path``. Raises ``ConfigError`` if its certificates are unusable."""
    try:
        return Listener(reactor, listen, channels, shared, gate, authorities)
    except (OSError, SSL.Error, ValueError) as error:
        sentence = f"has certificates that cannot be used: {reason(error)}"
        raise ConfigError([problem_in(config, path, sentence)]) from None


class PublicListeners(Ordered):
    """The public ports. Stopping them begins the shutdown: not ready, ``drain_delay``, then no new connections."""

    def __init__(self, reactor: Any, readiness: Readiness, drain_delay: Callable[[], float]) -> None:
        super().__init__()
        self._reactor = reactor
        self._readiness = readiness
        self._drain_delay = drain_delay
        self._waiting: Deferred[None] | None = None

    def close_now(self) -> None:
        """End the wait of ``drain_delay``."""
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
        for each in self:
            each.let_go()
