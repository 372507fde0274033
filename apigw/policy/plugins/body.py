# Compiled: see docs/decisions/compiled.md
"""Calls the methods of a plugin for pieces of bodies."""

from __future__ import annotations

from typing import Any, Final, final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure

from apigw.contract.bodies import BodyHook
from apigw.contract.exchange import Exchange
from apigw.contract.view import View, view_of
from apigw.contract.view_shared import Shared
from apigw.errors import GatewayError
from apigw.policy.plugins.guard import EXCEPTION, TIMEOUT, TIMER, VALUE, Guard, forget
from apigw.policy.plugins.stage import Method
from apigw.policy.plugins.waits import begun, give_up

OF_REQUEST: Final = 1
OF_ANSWER: Final = 2
"""Bits of ``View.passes`` and ``View.changed``."""


@final
class BodyCall(BodyHook):
    """``on_request_body`` or ``on_answer_body``: ``bit`` says which."""

    def __init__(self, guard: Guard, shared: Shared, method: Method, bit: int, changes: bool) -> None:
        self.changes = changes
        self._guard = guard
        self._shared = shared
        self._method = method
        self._bit = bit
        self.name = "on_request_body" if bit == OF_REQUEST else "on_answer_body"

    def passes(self, exchange: Exchange) -> bool:
        view = view_of(exchange, self._shared)
        if view.passes & self._bit:
            return True
        guard = self._guard
        if guard.cut_off and guard.is_open and guard.skips():
            view.passes |= self._bit
            return True
        return False

    def piece(self, exchange: Exchange, data: bytes, last: bool) -> bytes | Deferred[bytes]:
        guard, view = self._guard, view_of(exchange, self._shared)
        if view.passes & self._bit:  # it has failed for this body
            return data
        if guard.cut_off and not guard.is_open and not view.changed & self._bit and guard.skips():
            raise guard.refusal()
        began = TIMER()
        try:
            result = self._method(view, data, last)
            if result is not None and type(result) is not bytes:
                result = begun(result, guard, self.name)
        except BaseException as error:
            guard.took(TIMER() - began, self.name)
            return self.raised(view, data, error)
        guard.took(TIMER() - began, self.name)
        if isinstance(result, Deferred):
            return PieceWait(self, view, data, result, guard).outer
        return self.returned(view, data, result)

    def returned(self, view: View, data: bytes, result: object) -> bytes:
        """What goes on. Raises the error of an exchange that cannot."""
        if result is None:
            out = data
        elif not isinstance(result, bytes):
            wrong = TypeError(f"{self.name} returned {type(result).__name__}, and not bytes or None")
            return self.failed(view, data, VALUE, wrong)
        elif not self.changes:
            return self.failed(view, data, VALUE, TypeError(f"{self.name} returned bytes, with changes_body = False"))
        else:
            view.changed |= self._bit
            out = result
        if self._guard.cut_off:
            self._guard.succeeded()
        return out

    def raised(self, view: View, data: bytes, error: BaseException) -> bytes:
        if isinstance(error, GatewayError):
            if self._guard.cut_off:
                self._guard.succeeded()
            forget(error)
            raise error
        return self.failed(view, data, EXCEPTION, error)

    def failed(self, view: View, data: bytes, kind: str, error: BaseException) -> bytes:
        guard = self._guard
        guard.failed(kind, self.name, error, view._exchange.id)
        if not guard.is_open or view.changed & self._bit:
            raise guard.refusal()
        view.passes |= self._bit
        return data


@final
class PieceWait:
    """A call that waits, up to the plugin's ``timeout``. ``outer`` fires with what goes on."""

    def __init__(self, call: BodyCall, view: View, data: bytes, waited: Deferred[Any], guard: Guard) -> None:
        self._call = call
        self._view = view
        self._data = data
        self._waited = waited
        self._guard = guard
        self._done = False
        self.outer: Deferred[bytes] = Deferred(self._cancelled)
        self._timer: IDelayedCall = guard.clock.callLater(guard.timeout, self._late)
        waited.addCallbacks(self._succeeded, self._failed)

    def _close(self) -> bool:
        """Whether it had not ended before."""
        if self._done:
            return False
        self._done = True
        if self._timer.active():
            self._timer.cancel()
        return True

    def _cancelled(self, _: object) -> None:
        if self._close():
            give_up(self._waited, self._guard, self._call.name)

    def _late(self) -> None:
        if not self._close():
            return
        give_up(self._waited, self._guard, self._call.name)
        try:
            late = TimeoutError(f"did not end within {self._guard.timeout:g} s")
            out = self._call.failed(self._view, self._data, TIMEOUT, late)
        except GatewayError as error:
            self.outer.errback(Failure(error))
        else:
            self.outer.callback(out)

    def _succeeded(self, result: object) -> None:
        if self._close():
            try:
                out = self._call.returned(self._view, self._data, result)
            except GatewayError as error:
                self.outer.errback(Failure(error))
            else:
                self.outer.callback(out)

    def _failed(self, failure: Failure) -> None:
        if self._close():
            assert failure.value is not None
            try:
                out = self._call.raised(self._view, self._data, failure.value)
            except GatewayError as error:
                self.outer.errback(Failure(error))
            else:
                self.outer.callback(out)
