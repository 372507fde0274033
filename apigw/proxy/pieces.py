# Compiled: see docs/decisions/compiled.md
"""Takes the pieces of one body through the hooks of a route that see it, in their order."""

from __future__ import annotations

from typing import Final, final

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from apigw.contract.bodies import BodyHook
from apigw.contract.exchange import Exchange
from apigw.errors import GatewayError

PIECE: Final = 64 * 1024
"""Bytes of a piece, at most: what one read of a connection brings."""

log = Logger(namespace=__name__)


class Sink:
    """Where the pieces go, and who is paused while a hook waits."""

    def piece(self, data: bytes) -> None:
        raise NotImplementedError

    def ended(self) -> None:
        """The last piece has gone."""
        raise NotImplementedError

    def waits(self) -> None:
        """Send no more, until ``goes_on``."""
        raise NotImplementedError

    def goes_on(self) -> None:
        raise NotImplementedError


@final
class Pieces:
    """One body. What comes while a hook waits is kept, in its order."""

    def __init__(self, exchange: Exchange, hooks: list[BodyHook], sink: Sink) -> None:
        self._exchange = exchange
        self._hooks = hooks
        self._sink = sink
        self._queue: list[tuple[bytes, bool]] = []
        self._waited: Deferred[bytes] | None = None
        self.seen = 0
        """Bytes that have come."""
        self._over = False

    @property
    def waiting(self) -> bool:
        return self._waited is not None

    def add(self, data: bytes, last: bool) -> None:
        """A piece has come; or the body has ended, with the rest of it. Without any byte it has no body."""
        self.seen += len(data)
        if last and not self.seen:
            self._over = True
            self._sink.ended()
            return
        while len(data) > PIECE:
            self._queue.append((data[:PIECE], False))
            data = data[PIECE:]
        if data or last:
            self._queue.append((data, last))
        self._run()

    def cancel(self) -> None:
        """The exchange is over."""
        self._over = True
        self._queue.clear()
        waited, self._waited = self._waited, None
        if waited is not None:
            waited.cancel()

    def _run(self) -> None:
        while self._queue and self._waited is None and not self._over:
            data, last = self._queue.pop(0)
            self._through(data, last, 0)

    def _through(self, data: bytes, last: bool, at: int) -> None:
        """Take a piece through the hooks from ``at`` on, as far as none waits."""
        hooks = self._hooks
        while at < len(hooks) and (data or last):
            try:
                result = hooks[at].piece(self._exchange, data, last)
            except Exception as error:
                self.fail(error)
                return
            at += 1
            if isinstance(result, Deferred):
                Step(self, last, at).wait(result)
                return
            data = result
            if self._over:
                return
        if data:
            self._sink.piece(data)
        if last and not self._over:
            self._over = True
            self._sink.ended()

    def begin_wait(self, waited: Deferred[bytes]) -> None:
        self._waited = waited
        self._sink.waits()

    def go_on(self, data: bytes, last: bool, at: int, waited: bool) -> None:
        """What a hook has waited for is ``data``."""
        if self._over:
            return
        self._waited = None
        self._through(data, last, at)
        if waited:
            self._run()
            if self._waited is None and not self._over:
                self._sink.goes_on()

    def fail(self, error: BaseException) -> None:
        """A hook has failed: end the exchange."""
        if self._over:
            return
        exchange = self._exchange
        if not isinstance(error, GatewayError):
            log.failure("{id}: a hook of a body failed", Failure(error), id=exchange.id.decode("ascii"))
            error = GatewayError("An error in the gateway; its log has the details.")
        self._waited = None
        self.cancel()
        exchange.driver.refuse(exchange, error)


@final
class Step:
    """The wait of one hook for one piece."""

    def __init__(self, pieces: Pieces, last: bool, at: int) -> None:
        self._pieces = pieces
        self._last = last
        self._at = at
        self._fired = False
        self._waits = False

    def wait(self, waited: Deferred[bytes]) -> None:
        waited.addCallbacks(self._succeeded, self._failed)
        if not self._fired:
            self._waits = True
            self._pieces.begin_wait(waited)

    def _succeeded(self, data: bytes) -> None:
        self._fired = True
        self._pieces.go_on(data, self._last, self._at, self._waits)

    def _failed(self, failure: Failure) -> None:
        self._fired = True
        if not failure.check(CancelledError):
            assert failure.value is not None
            self._pieces.fail(failure.value)
