"""What lasts, which is cut when its caller is denied: tunnels, event streams, and streams of gRPC."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from twisted.logger import Logger

from apigw.contract.exchange import AtEnd, Exchange, OnLasting
from apigw.errors import GatewayError
from apigw.policy.denials.watch import Watch

log = Logger()


class Lasting(OnLasting):
    """All of this process, across reloads. ``key_fields`` has the headers of API keys. ``later`` calls a function in
    the next turn of the reactor."""

    def __init__(
        self,
        watch: Watch,
        key_fields: Callable[[], Sequence[bytes]],
        later: Callable[[Callable[[], object]], object],
    ) -> None:
        self._later = later
        self._watch = watch
        self._key_fields = key_fields
        self._running: dict[Exchange, None] = {}
        self._forget = _Forget(self._running)

    def __len__(self) -> int:
        return len(self._running)

    def run(self, exchange: Exchange) -> None:
        self._running[exchange] = None
        exchange.at_end = (*exchange.at_end, self._forget)
        if self._watch.addresses is not None or self._watch.callers:
            # The denial may have come while the service was asked. Of thousands that run no other is looked at.
            self._later(partial(self._review, exchange))

    def review(self) -> int:
        """End those whose caller is denied now. Returns their number."""
        return sum(map(self._review, list(self._running)))

    def _review(self, exchange: Exchange) -> bool:
        """End this one if its caller is denied now. Returns whether it did."""
        error = self._refusal(exchange) if exchange in self._running else None
        if error is not None:
            log.info("{id}: cut, its caller is denied", id=exchange.id.decode("ascii"))
            exchange.driver.refuse(exchange, error)
        return error is not None

    def _refusal(self, exchange: Exchange) -> GatewayError | None:
        try:
            self._watch.check_address(exchange.peers.client_address(exchange.request))
            if exchange.principal is not None:
                self._watch.check_caller(exchange, self._key_fields())
        except GatewayError as error:
            return error
        return None


class _Forget(AtEnd):
    def __init__(self, running: dict[Exchange, None]) -> None:
        self._running = running

    def run(self, exchange: Exchange) -> None:
        self._running.pop(exchange, None)
