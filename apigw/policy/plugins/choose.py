# Compiled: see docs/decisions/compiled.md
"""Asks a plugin which service, and which target, is to get a request."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from apigw.contract.choice import Chooser
from apigw.contract.exchange import Exchange
from apigw.contract.view import view_of
from apigw.contract.view_shared import Shared
from apigw.errors import GatewayError
from apigw.policy.plugins.guard import EXCEPTION, TIMER, VALUE, Guard, forget
from apigw.policy.plugins.stage import Method


@final
class ChooseCall(Chooser):
    """``choose_service`` and ``choose_target``; None for one that the plugin does not have."""

    def __init__(self, guard: Guard, shared: Shared, of_service: Method | None, of_target: Method | None) -> None:
        self._guard = guard
        self._shared = shared
        self._of_service = of_service
        self._of_target = of_target

    def service(self, exchange: Exchange, services: tuple[str, ...]) -> int:
        method = self._of_service
        return -1 if method is None else self._ask(exchange, method, "choose_service", services)

    def target(self, exchange: Exchange, targets: list[str]) -> int:
        method = self._of_target
        return -1 if method is None else self._ask(exchange, method, "choose_target", tuple(targets))

    def _ask(self, exchange: Exchange, method: Method, name: str, among: Sequence[str]) -> int:
        guard = self._guard
        if guard.cut_off and guard.skips():
            if guard.is_open:
                return -1
            raise guard.refusal()
        view = view_of(exchange, self._shared)
        kind, number = EXCEPTION, -1
        began = TIMER()
        try:
            chosen = method(view, among)
            if chosen is not None:
                kind = VALUE
                if chosen not in among:
                    raise ValueError(f"{name} returned {chosen!r}, which is not among {', '.join(among)}")
                number = among.index(chosen)
        except BaseException as error:
            guard.took(TIMER() - began, name)
            if isinstance(error, GatewayError):
                forget(error)
                raise error
            guard.failed(kind, name, error, exchange.id)
            if not guard.is_open:
                raise guard.refusal() from None
            return -1
        guard.took(TIMER() - began, name)
        if guard.cut_off:
            guard.succeeded()
        return number
