"""The text of ``/metrics``: rendered in a thread, one at a time, and cached for a second."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

Page = tuple[bytes, bytes]
"""Content type and text."""

MAX_AGE = 1.0
"""Seconds."""

_OPENMETRICS = b"application/openmetrics-text"
_PLAIN = b"text/plain"
_QVALUE = re.compile(rb"[01](?:\.[0-9]{0,3})?")


def prefers_openmetrics(accept: bytes | None) -> bool:
    """Whether an ``Accept`` field (RFC 9110 §12.5.1) names OpenMetrics and does not prefer plain text.

    Wildcards, as curl and browsers send them, get plain text.
    """
    weights = {_OPENMETRICS: 0.0, _PLAIN: 0.0}
    for entry in (accept or b"").lower().split(b","):
        media, *parameters = (part.strip() for part in entry.split(b";"))
        if media in weights:
            weights[media] = max(weights[media], _weight(parameters))
    return weights[_OPENMETRICS] > 0 and weights[_OPENMETRICS] >= weights[_PLAIN]


def _weight(parameters: list[bytes]) -> float:
    for parameter in parameters:
        if parameter.startswith(b"q="):
            return float(parameter[2:]) if _QVALUE.fullmatch(parameter[2:]) else 0.0
    return 1.0


class Exposition:
    """Serves pages that ``render(openmetrics)`` makes in a thread.

    Concurrent requests share one rendering, which is not cancelled if a client leaves. A page is served until a second
    after its rendering began.
    """

    def __init__(self, render: Callable[[bool], Deferred[Page]], clock: IReactorTime) -> None:
        self._render = render
        self._clock = clock
        self._busy = False
        self._kept: dict[bool, tuple[float, Page]] = {}
        self._waiting: dict[bool, list[Deferred[Page]]] = {False: [], True: []}

    def page(self, accept: bytes | None = None) -> Deferred[Page]:
        """A page in the format that ``accept`` prefers; fails with the exception of the rendering."""
        wanted = prefers_openmetrics(accept)
        began, page = self._kept.get(wanted, (None, (b"", b"")))
        if began is not None and self._clock.seconds() - began < MAX_AGE:
            return succeed(page)
        waiting = self._waiting[wanted]
        waiter: Deferred[Page] = Deferred(waiting.remove)
        waiting.append(waiter)
        self._begin()
        return waiter

    def _begin(self) -> None:
        for wanted, waiting in self._waiting.items():
            if waiting and not self._busy:
                self._busy = True
                self._render(wanted).addBoth(self._rendered, wanted, self._clock.seconds())

    def _rendered(self, result: Page | Failure, wanted: bool, began: float) -> None:
        self._busy = False
        if not isinstance(result, Failure):
            self._kept[wanted] = began, result
        waiting, self._waiting[wanted] = self._waiting[wanted], []
        self._begin()
        for waiter in waiting:
            answer: Any = result
            waiter.callback(answer)


class Kept:
    """What ``make()`` makes, for all who ask while it does and until ``age`` seconds after it began. Not failures."""

    def __init__(self, make: Callable[[], Deferred[Any]], clock: IReactorTime, age: float) -> None:
        self._make = make
        self._clock = clock
        self._age = age
        self._ends = float("-inf")
        self._value: Any = None
        self._waiting: list[Deferred[Any]] = []

    def get(self) -> Deferred[Any]:
        if self._clock.seconds() < self._ends:
            return succeed(self._value)
        waiter: Deferred[Any] = Deferred()
        self._waiting.append(waiter)
        if len(self._waiting) == 1:
            self._make().addBoth(self._made, self._clock.seconds() + self._age)
        return waiter

    def _made(self, result: Any, ends: float) -> None:
        if not isinstance(result, Failure):
            self._value, self._ends = result, ends
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            waiter.callback(result)
