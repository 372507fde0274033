# Compiled: see docs/decisions/compiled.md
"""Calls the methods of a plugin for an exchange."""

from __future__ import annotations

from collections.abc import Callable
from types import MethodType
from typing import Any, final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure

from apigw.contract.exchange import Answer, AtEnd, Exchange, Head, Hook, Outcome, Stage, Waiting
from apigw.contract.view import View, view_of
from apigw.contract.view_shared import ANSWER, ENDS, READS, Shared
from apigw.errors import GatewayError
from apigw.policy.plugins.guard import EXCEPTION, TIMEOUT, TIMER, VALUE, Guard, forget
from apigw.policy.plugins.waits import begun, give_up

Method = Callable[..., Any]
"""A method of the plugin's object."""


@final
class Before:
    """What of an exchange a call may change, so that it can be undone."""

    def __init__(self, exchange: Exchange) -> None:
        self._headers = exchange.request.headers
        self._sent = exchange.sent
        self._withheld = exchange.withheld
        self._target = exchange.target
        self._authority = exchange.authority

    def restore(self, exchange: Exchange) -> None:
        exchange.request.headers = self._headers
        exchange.sent = self._sent
        exchange.withheld = self._withheld
        exchange.target = self._target
        exchange.authority = self._authority


def _begins(exchange: Exchange) -> float:
    """When the call of the current stage begins. That of the stage before it ends there: the time is read once."""
    return exchange.lap_at if exchange.lap_stage == exchange.at - 1 else TIMER()


@final
class Call(Stage):
    """``on_request`` or ``on_forward``. ``phase`` says which (``contract.view``), ``name`` what it is called.

    Of headers that are ``owned``, stages after it see what the plugin has set, and nothing of the client's.
    """

    def __init__(
        self,
        guard: Guard,
        shared: Shared,
        method: Method,
        name: str,
        phase: int,
        owned: frozenset[bytes] | None = None,
    ) -> None:
        self._owned = owned
        self._guard = guard
        self._shared = shared
        self._method = method
        self._owner: Any = None
        if isinstance(method, MethodType):  # which would be taken apart for each call
            self._method, self._owner = method.__func__, method.__self__
        self.name = name
        self._phase = phase

    def run(self, exchange: Exchange) -> Outcome:
        guard = self._guard
        if self._owned is not None:
            exchange.withheld = exchange.withheld | self._owned
        if guard.cut_off and guard.skips():
            if guard.is_open:
                return None
            raise guard.refusal()
        began = _begins(exchange)
        before = Before(exchange) if guard.is_open else None
        view = view_of(exchange, self._shared)
        view.phase = self._phase
        try:
            owner = self._owner
            result = self._method(view) if owner is None else self._method(owner, view)
            if result is not None:
                result = begun(result, guard, self.name)
        except BaseException as error:
            guard.took(TIMER() - began, self.name)
            return self.raised(exchange, view, before, error)
        ended = TIMER()
        guard.took(ended - began, self.name)
        if result is None:
            exchange.lap_at, exchange.lap_stage = ended, exchange.at
            view.phase = READS
            if view.replacement is not None:
                view.put_back()
            if guard.cut_off:
                guard.succeeded()
            return view.answered
        if isinstance(result, Deferred):
            return Wait(self, exchange, view, before, result, guard).outcome()
        return self.returned(exchange, view, before, result)

    def returned(self, exchange: Exchange, view: View, before: Before | None, result: object) -> Outcome:
        """The call has ended with ``result``. Raises the error of a request that it must not go on with."""
        view.phase = READS
        if result is None or (result is view.answered and isinstance(result, Answer)):
            view.put_back()
            if self._guard.cut_off:
                self._guard.succeeded()
            return view.answered
        wrong = TypeError(f"{self.name} returned {type(result).__name__}, and not None or what view.respond() makes")
        return self.failed(exchange, view, before, VALUE, wrong)

    def raised(self, exchange: Exchange, view: View, before: Before | None, error: BaseException) -> Outcome:
        """The call has raised ``error``."""
        if isinstance(error, GatewayError):
            view.phase = READS
            if self._guard.cut_off:
                self._guard.succeeded()
            forget(error)
            raise error
        return self.failed(exchange, view, before, EXCEPTION, error)

    def failed(self, exchange: Exchange, view: View, before: Before | None, kind: str, error: BaseException) -> Outcome:
        view.phase = READS
        view.replacement = None
        guard = self._guard
        guard.failed(kind, self.name, error, exchange.id)
        if before is None:
            raise guard.refusal()
        view.answered = None
        before.restore(exchange)
        return None


@final
class Wait(Waiting):
    """A call that waits, up to the plugin's ``timeout``."""

    def __init__(
        self, call: Call, exchange: Exchange, view: View, before: Before | None, deferred: Deferred[Any], guard: Guard
    ) -> None:
        self._call = call
        self._exchange = exchange
        self._view = view
        self._before = before
        self._deferred = deferred
        self._guard = guard
        self._timer: IDelayedCall | None = None
        self._returned = False
        self._done = False
        self._result: object = None
        self._error: BaseException | None = None
        view.waits = self
        deferred.addCallbacks(self._succeeded, self._failed)

    def outcome(self) -> Outcome:
        """What the stage returns. Raises as a stage does."""
        if self._done:
            return self._ended()
        self._returned = True
        if not self._view.is_reading:
            self.resume_time()
        return self

    def pause_time(self) -> None:
        """The time that follows does not count: a client sends its body."""
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def resume_time(self) -> None:
        if not self._done and self._timer is None:
            self._timer = self._guard.clock.callLater(self._guard.timeout, self._late)

    def cancel(self) -> None:
        self._close()
        give_up(self._deferred, self._guard, self._call.name)

    def _close(self) -> None:
        self._done = True
        self._view.waits = None
        self.pause_time()

    def _succeeded(self, result: object) -> None:
        if not self._done:
            self._result = result
            self._go_on()

    def _failed(self, failure: Failure) -> None:
        if not self._done:
            self._error = failure.value
            self._go_on()

    def _late(self) -> None:
        self._timer = None
        self._close()
        give_up(self._deferred, self._guard, self._call.name)
        try:
            late = TimeoutError(f"did not end within {self._guard.timeout:g} s")
            outcome = self._call.failed(self._exchange, self._view, self._before, TIMEOUT, late)
        except Exception as error:
            self._exchange.fail(error)
        else:
            self._exchange.resume(outcome)

    def _go_on(self) -> None:
        self._close()
        if not self._returned:
            return
        try:
            outcome = self._ended()
        except Exception as error:
            self._exchange.fail(error)
        else:
            self._exchange.resume(outcome)

    def _ended(self) -> Outcome:
        if self._error is not None:
            return self._call.raised(self._exchange, self._view, self._before, self._error)
        return self._call.returned(self._exchange, self._view, self._before, self._result)


@final
class AnswerHook(Hook):
    """``on_answer``."""

    def __init__(self, guard: Guard, shared: Shared, method: Method) -> None:
        self._guard = guard
        self._shared = shared
        self._method = method

    def run(self, exchange: Exchange, head: Head) -> None:
        guard = self._guard
        if guard.cut_off and guard.skips():
            if guard.is_open:
                return
            raise guard.refusal()
        view = view_of(exchange, self._shared)
        was, view.phase, view.head = view.phase, ANSWER, head
        headers, kind = head.headers, EXCEPTION
        began = TIMER()
        try:
            result = self._method(view)
            if result is not None:
                kind = VALUE
                _drop(result)
                raise TypeError(f"on_answer returned {type(result).__name__}, and not None")
        except BaseException as error:
            guard.took(TIMER() - began, "on_answer")
            view.phase = was
            guard.failed(kind, "on_answer", error, exchange.id)
            if not guard.is_open:
                raise guard.refusal() from None
            head.headers = headers
            return
        guard.took(TIMER() - began, "on_answer")
        view.phase = was
        if guard.cut_off:
            guard.succeeded()


@final
class Users:
    """The exchanges that a plugin watches."""

    def __init__(self) -> None:
        self.count = 0
        """Those that have begun and not ended."""
        self.when_none: Callable[[], object] | None = None
        """Called when the last has ended."""


@final
class Watch(Stage):
    """Begins to watch an exchange for the sake of ``on_end``, or of ``stop``, before anything else of the plugin."""

    def __init__(self, ending: Ending) -> None:
        self._ending = ending

    def run(self, exchange: Exchange) -> Outcome:
        self._ending.users.count += 1
        exchange.at_end = (*exchange.at_end, self._ending)
        return None


@final
class Ending(AtEnd):
    """``on_end``, and who waits for the last exchange. ``method`` is None if there is no ``on_end``."""

    def __init__(self, guard: Guard, shared: Shared, method: Method | None, users: Users) -> None:
        self._guard = guard
        self._shared = shared
        self._method = method
        self.users = users

    def run(self, exchange: Exchange) -> None:
        method, guard = self._method, self._guard
        if method is not None and not (guard.cut_off and guard.skips()):
            self._call(method, exchange)
        users = self.users
        users.count -= 1
        if not users.count and users.when_none is not None:
            users.when_none()

    def _call(self, method: Method, exchange: Exchange) -> None:
        guard = self._guard
        view = view_of(exchange, self._shared)
        view.phase = ENDS
        kind = EXCEPTION
        began = TIMER()
        try:
            result = method(view)
            if result is not None:
                kind = VALUE
                _drop(result)
                raise TypeError(f"on_end returned {type(result).__name__}, and not None")
        except BaseException as error:
            guard.took(TIMER() - began, "on_end")
            guard.failed(kind, "on_end", error, exchange.id)
        else:
            guard.took(TIMER() - began, "on_end")
            if guard.cut_off:
                guard.succeeded()
        view.phase = READS


def _drop(result: Any) -> None:
    """Nobody waits for ``result``."""
    if isinstance(result, Deferred):
        result.addErrback(_nothing)
    elif hasattr(result, "close"):
        result.close()


def _nothing(_: object) -> None: ...
