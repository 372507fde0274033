# Compiled: see docs/decisions/compiled.md
"""The stage that has a checker decide."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, final

from twisted.internet.defer import Deferred

from apigw.contract.awaited import wait_for
from apigw.contract.exchange import Exchange, Outcome, Stage
from apigw.policy.check.verdict import Verdict, question, refusal
from apigw.wire.headers import Headers


class Judging(Protocol):
    """A ``checker.Checker``."""

    def verdict(self, asked: Headers, before: Callable[[], object], caller: bytes) -> Verdict | Deferred[Verdict]: ...


@final
class CheckWith(Stage):
    """``send`` and ``take`` are names in lower case."""

    def __init__(self, checker: Judging, send: Sequence[bytes], take: frozenset[bytes]) -> None:
        self._checker = checker
        self._send = tuple(send)
        self._take = take

    def run(self, exchange: Exchange) -> Outcome:
        caller = exchange.peers.client_address(exchange.request)
        found = self._checker.verdict(question(exchange, self._send), _Screens(exchange).check, caller)
        if isinstance(found, Verdict):
            self._go_on(found, exchange)
            return None
        return wait_for(exchange, found.addCallback(self._go_on, exchange))

    def _go_on(self, verdict: Verdict, exchange: Exchange) -> None:
        """Raises the refusal."""
        if verdict.status:
            raise refusal(verdict, exchange)
        if self._take:
            exchange.withheld = exchange.withheld | self._take
            exchange.sent = [*exchange.sent, *verdict.taken]


@final
class _Screens:
    """What other policies ask before costly work."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    def check(self) -> None:
        for each in self._exchange.route.screens:
            each.run(self._exchange)
