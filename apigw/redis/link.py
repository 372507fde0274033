"""The supervised connection to Redis: no call waits longer than its deadline.

The protocol is in ``protocol`` (docs/decisions/redis-client.md).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from hashlib import sha1
from typing import Any

from attrs import define, field, frozen
from twisted.internet.defer import CancelledError, Deferred, ensureDeferred, fail, succeed
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.interfaces import IDelayedCall, IReactorTime, IStreamClientEndpoint
from twisted.logger import Logger
from twisted.python.failure import Failure

from apigw.config.files import read
from apigw.config.model import Redis
from apigw.redis.address import Address
from apigw.redis.errors import RedisUnavailable, in_words
from apigw.redis.protocol import ConnectionFactory
from apigw.wire.client_tls import ClientTLS, SecureEndpoint
from apigw.wire.reactor.connecting import ConnectingReactor

_REFUSED = ("NOAUTH", "WRONGPASS", "ERR AUTH")
"""How the replies of a Redis begin that wants a password, or another one."""

FAILURES = 3
"""After so many failures in a row, only a probe is sent, every ``PROBE_INTERVAL`` seconds."""

PROBE_INTERVAL = 1.0
CONNECT_TIMEOUT = 2.0
"""Seconds from the first packet to the probe's answer. Calls wait only for their own timeout."""

SENTINEL_TIMEOUT = 1.0

Execute = Callable[..., "Deferred[Any]"]
"""Sends one command, given as its words; fires with the reply."""

Probe = Callable[[Execute], Awaitable[None]]
"""Runs the user's operations on a new connection as a test. Raises if the connection is unusable."""


async def ping(execute: Execute) -> None:
    """The default probe: PING."""
    await execute(b"PING")


@frozen
class Script:
    """A Lua script, called by its digest (EVALSHA), or sent whole (EVAL) if the server does not have it."""

    text: bytes
    digest: bytes = field(init=False)

    @digest.default
    def _(self) -> bytes:
        return sha1(self.text, usedforsecurity=False).hexdigest().encode()


def within(deferred: Deferred[Any], seconds: float, clock: IReactorTime, otherwise: str) -> Deferred[Any]:
    """Cancel ``deferred`` after ``seconds``; then it fails with ``RedisUnavailable``, whose text is ``otherwise``."""

    def too_late(result: Any, seconds: float) -> None:
        raise RedisUnavailable(f"{otherwise} within {seconds:g} s")

    return deferred.addTimeout(seconds, clock, too_late)


@define(eq=False)
class _Call:
    """``answer`` is ``None`` once it has been given."""

    words: tuple[bytes, ...]
    answer: Deferred[Any] | None
    deadline: float
    instead: tuple[bytes, ...] = ()


class RedisLink:
    """Keeps one connection, with a circuit breaker.

    ``up`` says whether Redis is available. It becomes true when a connection stands and ``probe`` has done with it what
    real calls do, within the deadline; false when the connection is lost or ``FAILURES`` calls failed in a row. Then
    every waiting call fails at once, and so does every further one, and an attempt is made every ``PROBE_INTERVAL``
    seconds. Only until the first attempt has ended, calls wait for it, up to their deadline.

    Several parts may use it. A part may set ``probe``, to test more than PING, and ``on_up``, which is called with each
    change of ``up``, before it is started.
    """

    _log = Logger()

    def __init__(self, config: Redis, reactor: Any, clock: IReactorTime | None = None) -> None:
        """Opens nothing. Deadlines go by ``clock``, the reactor where it is left out."""
        self.prefix = config.prefix
        """The prefix of the names of all keys."""
        self.probe: Probe = ping
        self.on_up: Callable[[bool], object] = lambda up: None
        self.up = False
        self.takes_calls = False
        """Whether a call is sent, or waits for the first attempt to connect; else it fails at once."""
        self.timeout = config.timeout
        """Seconds that a call may take. May be changed at any time; what waits already keeps its own."""
        self._config = config
        self._address = Address.parse(config.url)
        self._reactor = reactor
        self._clock: IReactorTime = reactor if clock is None else clock
        self._running = False
        self._said: bool | None = None
        self._protocol: Any = None
        self._failures = 0
        self._reason = ""
        self._calls: deque[_Call] = deque()
        self._expiry: IDelayedCall | None = None
        self._expires_at = 0.0
        self._retry: IDelayedCall | None = None
        self._attempt: Deferred[Any] | None = None
        self._attempted_at = float("-inf")
        self._sentinels = deque(config.sentinels)

    def start(self) -> Deferred[None]:
        """Fires when the first attempt to connect has ended, successfully or not."""
        self._running = self.takes_calls = True
        first: Deferred[None] = Deferred()
        self._try().addCallback(first.callback)
        return first

    def stop(self) -> Deferred[None]:
        """Fires when the connection is closed. Waiting calls fail."""
        self._running = False
        for pending in (self._retry, self._expiry):
            if pending is not None and pending.active():
                pending.cancel()
        if self._attempt is not None:
            self._attempt.cancel()
        protocol = self._protocol
        closed: Deferred[None] = succeed(None)
        if protocol is not None:
            closed = protocol.whenDisconnected().addCallback(lambda _: None)
        self._down("stopped")
        return closed

    def give_up(self, reason: str) -> None:
        """Close the connection and connect again, because its replies are unusable, which only the caller can see."""
        if self.up:
            self._down(reason)

    def call(self, *words: bytes) -> Deferred[Any]:
        """The reply to one command within the configured timeout. Fails with ``RedisUnavailable``."""
        return self._call(words, ())

    def evaluate(self, script: Script, keys: list[bytes], *arguments: bytes) -> Deferred[Any]:
        """Like ``call``. If the server does not have the script, it is sent within the same timeout."""
        words = (b"%d" % len(keys), *keys, *arguments)
        return self._call((b"EVALSHA", script.digest, *words), (b"EVAL", script.text, *words))

    def _call(self, words: tuple[bytes, ...], instead: tuple[bytes, ...]) -> Deferred[Any]:
        if not self.takes_calls:
            return fail(RedisUnavailable(self._reason))
        answer: Deferred[Any] = Deferred()
        now = self._clock.seconds()
        call = _Call(words, answer, now + self.timeout, instead)
        self._calls.append(call)
        if self._expiry is None or call.deadline < self._expires_at:
            self._expire_at(call.deadline, now)
        if self.up:
            self._send(call)
        return answer

    def _send(self, call: _Call) -> None:
        self._protocol.execute_command(*call.words).addCallbacks(self._replied, self._failed, (call,), None, (call,))

    def _replied(self, reply: Any, call: _Call) -> None:
        answer = self._close(call)
        if answer is not None:
            self._failures = 0
            answer.callback(reply)

    def _failed(self, failure: Failure, call: _Call) -> None:
        if call.answer is None:
            return
        reason = failure.getErrorMessage()
        if call.instead and self.up and reason.startswith("NOSCRIPT"):
            call.words, call.instead = call.instead, ()
            self._send(call)
            return
        # A replica will not become the master by being asked again: look for the master anew.
        self._count_failure(reason, FAILURES if reason.startswith("READONLY") else 1)
        self._refuse(call, reason)

    def _close(self, call: _Call) -> Deferred[Any] | None:
        answer, call.answer = call.answer, None
        while self._calls and self._calls[0].answer is None:
            self._calls.popleft()
        return answer

    def _refuse(self, call: _Call, reason: str) -> None:
        answer = self._close(call)
        if answer is not None:
            answer.errback(RedisUnavailable(reason))

    def _count_failure(self, reason: str, weight: int = 1) -> None:
        self._failures += weight
        if self._failures >= FAILURES and self.up:
            self._down(reason)

    def _expire_at(self, deadline: float, now: float) -> None:
        if self._expiry is not None:
            self._expiry.cancel()
        self._expires_at = deadline
        self._expiry = self._clock.callLater(max(0, deadline - now), self._expire)

    def _expire(self, late: bool = False) -> None:
        """One timer for all calls: it looks at the one that is due first."""
        self._expiry = None
        now = self._clock.seconds()
        due = [call for call in self._calls if call.deadline <= now and call.answer is not None]
        if due and not late:
            # The replies may have come while something kept the reactor busy: one turn, in which they are read.
            self._expiry = self._reactor.callLater(0, self._expire, True)
            return
        for call in due:
            if call.answer is not None:
                self._count_failure("no answer in time")
                self._refuse(call, "no answer in time")
        waiting = [call.deadline for call in self._calls if call.answer is not None]
        if waiting:
            self._expire_at(min(waiting), now)

    def _down(self, reason: str) -> None:
        protocol, self._protocol = self._protocol, None
        self.up = self.takes_calls = False
        if protocol is not None:
            protocol.transport.abortConnection()
        waiting, self._calls = self._calls, deque()
        self._say_down(reason)
        self._try_later()
        for call in waiting:
            self._refuse(call, reason)

    def _say_down(self, reason: str) -> None:
        if reason != self._reason and self._running:
            if reason.startswith(_REFUSED):
                reason = f"{reason.removesuffix('.')}; its password is read from redis.password_file"
            self._log.warn("Redis is unavailable: {reason}", reason=reason)
        self._reason = reason
        self._say_up(False)

    def _say_up(self, up: bool) -> None:
        self.up = self.takes_calls = up
        if up is not self._said:
            self._said = up
            self.on_up(up)

    def _try_later(self) -> None:
        if self._running and self._retry is None:
            delay = self._attempted_at + PROBE_INTERVAL - self._clock.seconds()
            self._retry = self._clock.callLater(min(max(delay, 0), PROBE_INTERVAL), self._try)

    def _try(self) -> Deferred[None]:
        self._retry = None
        self._attempted_at = self._clock.seconds()
        self._attempt = attempt = ensureDeferred(self._connect())
        return attempt.addCallbacks(self._connected, self._not_connected)

    def _connected(self, protocol: Any) -> None:
        self._attempt = None
        self._protocol = protocol
        protocol.whenDisconnected().addCallback(self._lost)
        if not protocol.connected:
            self._lost(protocol)
            return
        self._failures = 0
        self._reason = ""
        self._log.info("Redis is available")
        self._say_up(True)
        for call in list(self._calls):
            if call.answer is not None:
                self._send(call)

    def _not_connected(self, failure: Failure) -> None:
        self._attempt = None
        if self._running:
            assert failure.value is not None
            self._down(in_words(failure.value))

    def _lost(self, protocol: Any) -> None:
        if protocol is self._protocol:
            self._down(protocol.factory.reason or "the connection was lost")

    async def _connect(self) -> Any:
        """A proved connection. The master, the password and the authorities are looked up anew each time."""
        address = self._address
        host, port = (await self._master()) if self._config.sentinels else (address.host, address.port)
        proved = ensureDeferred(self._prove(host, port))
        return await within(proved, CONNECT_TIMEOUT, self._clock, "no connection that answers")

    async def _prove(self, host: str, port: int) -> Any:
        password: bytes | None = None
        if self._config.password_file is not None:
            password = _read(self._config.password_file).strip()
        protocol = await self._open(host, port, ConnectionFactory(password, self._address.database))
        try:
            await self.probe(protocol.execute_command)
        except BaseException as error:
            protocol.transport.abortConnection()
            if protocol.factory.reason:
                raise RedisUnavailable(protocol.factory.reason) from error
            raise
        return protocol

    async def _open(self, host: str, port: int, factory: ConnectionFactory) -> Any:
        protocol: Any = await self._endpoint(host, port).connect(factory)
        protocol.transport.setTcpNoDelay(True)
        protocol.transport.setTcpKeepAlive(True)
        try:
            await factory.ready
        except BaseException:
            protocol.transport.abortConnection()
            raise
        return protocol

    def _endpoint(self, host: str, port: int) -> IStreamClientEndpoint:
        endpoint = HostnameEndpoint(ConnectingReactor(self._reactor), host, port)
        if not self._address.secure:
            return endpoint
        if self._config.ca_file is not None:
            _read(self._config.ca_file)
        return SecureEndpoint(ClientTLS(self._config.ca_file).to(host), endpoint)

    async def _master(self) -> tuple[str, int]:
        """What the first sentinel that knows the master says. The next attempt begins with the next sentinel."""
        name = self._config.sentinel_name or ""
        self._sentinels.rotate(-1)
        for host, port in self._sentinels:
            try:
                asked = ensureDeferred(self._ask(host, port, name))
                found = await within(asked, SENTINEL_TIMEOUT, self._clock, "no answer")
            except CancelledError:
                raise
            except Exception as error:
                self._log.debug("the sentinel {host}:{port} failed: {why}", host=host, port=port, why=in_words(error))
                continue
            if found is not None:
                return found[0].decode(), int(found[1])
        raise RedisUnavailable(f"no sentinel gave the address of the master {name!r}")

    async def _ask(self, host: str, port: int, name: str) -> Any:
        protocol = await self._open(host, port, ConnectionFactory())
        try:
            return await protocol.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", name)
        finally:
            protocol.transport.abortConnection()


def _read(file: str) -> bytes:
    """Raises ``RedisUnavailable``, also for what is no regular file: to open a pipe is to wait for who writes to it."""
    try:
        return read(file)
    except ValueError as error:
        raise RedisUnavailable(f"{file} {error}") from None
