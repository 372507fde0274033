"""The listening ports: the public ones, and that of the admin listener."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from OpenSSL import SSL
from twisted.application.service import Service
from twisted.internet.address import UNIXAddress
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort
from twisted.logger import Logger
from twisted.python.failure import Failure

from apigw.config.errors import ConfigError, problem_in
from apigw.config.model import Config, Listen, Path
from apigw.ops.readiness import Readiness
from apigw.process.systemd import notify
from apigw.process.tree import CannotStart, Ordered
from apigw.wire.channel import ChannelFactory
from apigw.wire.proxy_protocol import ProxiedFactory
from apigw.wire.reactor.transport import EagerReactor
from apigw.wire.tls import KeyPair, ServerContexts, TLSFactory, reason

log = Logger()


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
        try:
            endpoint = serverFromString(EagerReactor(self._reactor), self.config.endpoint)
        except (IndexError, KeyError):
            raise CannotStart(f"cannot listen: systemd has passed no such socket: {self.config.endpoint}") from None
        except Exception as unusable:  # an ssl: endpoint's files
            raise CannotStart(f"cannot listen: {reason(unusable)}: {self.config.endpoint}") from None
        outcome: list[Any] = []
        endpoint.listen(self._factory).addBoth(outcome.append)
        if outcome and isinstance(outcome[0], Failure):
            error: Any = outcome[0].value
            why = error.socketError.strerror if isinstance(error, CannotListenError) else error
            # The parent process is shown no more than the beginning.
            raise CannotStart(f"cannot listen: {why}: {self.config.endpoint}")
        self._port = outcome[0]
        over = "" if self.contexts is None else "tls:"
        log.info(
            "listening on {address}: {over}{endpoint}",
            address=_shown(self._port),
            over=over,
            endpoint=self.config.endpoint,
        )

    def startService(self) -> None:
        if self._port is None:
            self.privilegedStartService()
        super().startService()

    def stopService(self) -> Deferred[None] | None:
        """Accept the connections that are queued, then close the port."""
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
    """The listener for ``config``, found at ``path``. Raises ``ConfigError`` if its certificates are unusable."""
    try:
        return Listener(reactor, listen, channels)
    except (OSError, SSL.Error, ValueError) as error:
        sentence = f"has certificates that cannot be used: {reason(error)}"
        raise ConfigError([problem_in(config, path, sentence)]) from None


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
