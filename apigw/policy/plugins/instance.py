"""The object of a plugin: made for an entry of the configuration, started, stopped."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

from apigw.policy.plugins.context import Context
from apigw.policy.plugins.guard import EXCEPTION, Guard
from apigw.policy.plugins.model import Plugin
from apigw.policy.plugins.series import Kept
from apigw.policy.plugins.shape import METHODS, NOT_OF_EXCHANGES, OF_PIECES, POSITION, owned_by
from apigw.policy.plugins.stage import Users
from apigw.policy.plugins.waits import begun, within

PATIENCE = 5.0
"""Seconds that ``stop`` may take."""


class Instance:
    """One object of a plugin's class, which has prepared ``plugin.with_``. Raises what the class raises.

    It is in use from ``start`` to ``retire``, and stopped after that when the last exchange with it has ended.
    """

    def __init__(self, plugin: Plugin, made: type[Any], context: Context, kept: Kept, clock: Any) -> None:
        self.plugin = plugin
        self.context = context
        self.kept = kept
        self.guard = Guard(plugin.on_error == "open", plugin.timeout, kept.counts, kept.log, clock)
        self.users = Users()
        self.object = made()
        prepare = getattr(self.object, "prepare", None)
        if prepare is not None:
            result = prepare(dict(plugin.with_), context)
            if result is not None:
                raise TypeError(f"prepare returned {type(result).__name__}, and not None")
        self.owned = owned_by(self.object)
        self.position: str = getattr(self.object, "position", POSITION)
        self.changes_body: bool = getattr(self.object, "changes_body", True)
        self._started = False

    def method(self, name: str) -> Callable[..., Any] | None:
        found: Callable[..., Any] | None = getattr(self.object, name, None)
        return found

    @property
    def is_called_again(self) -> bool:
        """Whether there may be several calls for one exchange."""
        called = {name for name in METHODS if self.method(name) is not None} - NOT_OF_EXCHANGES
        return len(called) > 1 or not OF_PIECES.isdisjoint(called)

    def start(self) -> None:
        """It comes into use. No effect if it is."""
        if self._started:
            return
        self._started = True
        if self.context.wants_redis and self.context.link is not None:
            self.context.link.start()
        self._call("start")

    def retire(self) -> None:
        """It is no longer in use, but for the exchanges that have begun with it."""
        if self.users.count:
            self.users.when_none = self.stop
        else:
            self.stop()

    def stop(self) -> Deferred[Any]:
        """Fires when it has stopped, or after ``PATIENCE``."""
        if not self._started:
            return succeed(None)
        self._started = False
        stopping = self._call("stop")
        stopping.addCallback(lambda _: self.context.end())
        link = self.context.link
        if self.context.wants_redis and link is not None:
            stopping.addCallback(lambda _: link.stop())
        return stopping

    def _call(self, name: str) -> Deferred[Any]:
        """Call a method without an exchange. The Deferred never fails."""
        method = self.method(name)
        if method is None:
            return succeed(None)
        try:
            result = begun(method(), self.guard, name)
        except BaseException as error:
            self.guard.failed(EXCEPTION, name, error)
            return succeed(None)
        if not isinstance(result, Deferred):
            return succeed(None)
        if name == "stop":
            result = within(PATIENCE, result, self.guard, name)

        def failed(failure: Failure) -> None:
            assert failure.value is not None
            self.guard.failed(EXCEPTION, name, failure.value)

        return result.addErrback(failed)
