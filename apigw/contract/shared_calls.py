# Compiled: see docs/decisions/compiled.md
"""Calls that several exchanges wait for at once: the same question is asked once (request coalescing, singleflight)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, final

from twisted.internet.defer import Deferred


@final
class SharedCalls:
    """Those that are under way, by their keys. One is cancelled when all who wait for it have left."""

    def __init__(self) -> None:
        self._under_way: dict[bytes, _Call] = {}

    def join(self, key: bytes, begin: Callable[[], Deferred[Any]]) -> Deferred[Any]:
        """Wait for the call of this key; ``begin`` makes it, unless it is under way. What ``begin`` raises is raised.

        All who wait get the same result, and the same error: who may change an error makes one of its own of it.
        """
        call = self._under_way.get(key)
        if call is None:
            call = _Call(self._under_way, key, begin())
        return call.joined()


@final
class _Call:
    def __init__(self, under_way: dict[bytes, _Call], key: bytes, calling: Deferred[Any]) -> None:
        self._under_way = under_way
        self._key = key
        self._calling = calling
        self._waiting: dict[Deferred[Any], None] = {}
        """In their order. Thousands may leave at once, each in no time."""
        self._ended = False
        self._result: Any = None
        under_way[key] = self
        calling.addBoth(self._end)

    def joined(self) -> Deferred[Any]:
        waiting: Deferred[Any] = Deferred(self._left)
        if self._ended:
            waiting.callback(self._result)
        else:
            self._waiting[waiting] = None
        return waiting

    def _left(self, waiting: Deferred[Any]) -> None:
        if waiting in self._waiting:
            del self._waiting[waiting]
            if not self._waiting:
                self._forget()
                self._calling.cancel()

    def _end(self, result: Any) -> None:
        self._forget()
        self._ended = True
        self._result = result
        waiting, self._waiting = self._waiting, {}
        for each in waiting:
            if not each.called:  # else what one before it led to has cancelled it
                each.callback(result)

    def _forget(self) -> None:
        """Whoever asks from now on asks anew."""
        if self._under_way.get(self._key) is self:
            del self._under_way[self._key]
