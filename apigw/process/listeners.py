"""The listening ports: the public ones, and that of the admin listener."""

from __future__ import annotations

from collections.abc import Callable
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
from apigw.wire.channel import ChannelFactory
from apigw.wire.proxy_protocol import ProxiedFactory
from apigw.wire.reactor.ports import serve
from apigw.wire.tls import KeyPair, ServerContexts, TLSFactory, reason

log = Logger()


class Listener(Service):
    """One listening port. It binds before privileges are dropped; certificates can be replaced while it is open."""

    def __init__(self, reactor: Any, config: Listen, factory: ChannelFactory, shared: Socket | None = None) -> None:
        """``shared``: the socket to serve, bound by another process, which keeps it open."""
        self._reactor = reactor
        self.config = config
        self._shared = shared
        self._own: Socket | None = None
        self._factory: Any = factory
        self._port: IListeningPort | None = None
        self.contexts: ServerContexts | None = None
        if config.tls is not None:
            self.contexts = ServerContexts(self._pairs(), config.tls.min_version, config.tls.client_ca_file)
            self._factory = TLSFactory(self.contexts, factory)
        if config.proxy_protocol:
            self._factory = ProxiedFactory(factory, self._factory)

    def load(self) -> Callable[[], None]:
        """Read the certificates, and return a function that puts them in use. Only the reading can fail."""
        contexts = self.contexts
        if contexts is None:
            return lambda: None
        loaded = contexts.load(self._pairs())
        return lambda: contexts.use(loaded)

    def privilegedStartService(self) -> None:
        super().privilegedStartService()
        bound = self._shared
        if bound is None:
            bound = self._own = bind(self.config)
        factory = self._factory if bound.contexts is None else TLSFactory(bound.contexts, self._factory)
        self._port = serve(self._reactor, bound.listening, factory)

    def startService(self) -> None:
        if self._port is None:
            self.privilegedStartService()
        super().startService()

    def stopService(self) -> Deferred[None] | None:
        """Accept the connections that are queued, then no more, and close a socket of its own."""
        super().stopService()
        port: Any = self._port
        own = self._own
        self._port = self._own = None
        if port is None:
            return None
        accepted = -1
        while port.sessionno != accepted:
            accepted = port.sessionno
            port.doRead()
        stopping: Deferred[None] = port.stopListening()
        return stopping if own is None else stopping.addBoth(lambda _: own.close())

    def _pairs(self) -> list[KeyPair]:
        assert self.config.tls is not None
        return [KeyPair(pair.cert_file, pair.key_file) for pair in self.config.tls.certificates]


def listener(
    reactor: Any, config: Config, listen: Listen, path: Path, channels: Any, shared: Socket | None = None
) -> Listener:
    """The listener for ``config``, found at ``path``. Raises ``ConfigError`` if its certificates are unusable."""
    try:
        return Listener(reactor, listen, channels, shared)
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
