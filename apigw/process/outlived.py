"""What workers counted outlives them: they tell the master, which keeps it, and answers for those that are gone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from typing import Any

from attrs import frozen
from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from apigw.contract.machine import GONE
from apigw.ops.totals import counts_of, gone

log = Logger()

MOST_KEPT = 16
"""Deaths that are added up when somebody asks. More are added up at once: nobody may ask for days."""


TELLS_EVERY = 2.0
"""Seconds after which a worker tells what it has counted. That takes 2 ms, nearly all of it in a thread, and 6 ms with
2,000 routes: eight workers that did so each second took 2 % of a core for it."""

ROUTES = 1000
"""With more than 2,000 routes, it is a second for each so many of them: at most 0.4 % of a core."""


class Tells(Service):
    """In a worker: ``tell`` the master, again and again, what ``say`` says, so that little is lost if it is killed."""

    def __init__(
        self,
        clock: Any,
        say: Callable[[], Deferred[str]],
        tell: Callable[[str], Deferred[Any]],
        routes: Callable[[], int],
    ) -> None:
        self._clock = clock
        self._say = say
        self._tell = tell
        self._routes = routes
        self._next: IDelayedCall | None = None

    def startService(self) -> None:
        super().startService()
        self._wait()

    def stopService(self) -> None:
        super().stopService()
        if self._next is not None:
            self._next.cancel()
            self._next = None

    def _wait(self, _: object = None) -> None:
        if self.running:
            self._next = self._clock.callLater(max(TELLS_EVERY, self._routes() / ROUTES), self._tells)

    def _tells(self) -> None:
        self._next = None
        # Not again before the master has heard it. One that hangs would find all of them.
        self._say().addCallback(self._tell).addErrback(lambda _: None).addCallback(self._wait)


@frozen
class _Gone:
    index: int
    last: str | None
    died: bool


class Outlived:
    """The last answers to ``metrics``, and the sum of those of workers that are gone.

    Adding up takes some 50 ms for each of them with 2,000 routes: it waits until somebody asks, so that a worker that
    died is replaced first.
    """

    def __init__(self) -> None:
        self.total: str | None = None
        """Of the workers that have been added up."""
        self.last: dict[int, str] = {}
        """What each worker that lives has said last."""
        self._leaving: set[int] = set()
        self._gone: list[_Gone] = []

    def said(self, index: int, metrics: str) -> None:
        """What a worker has counted so far."""
        self.last[index] = metrics

    def last_word(self, index: int, metrics: str) -> None:
        """A worker is about to end, because it was asked to."""
        self.last[index] = metrics
        self._leaving.add(index)

    def left(self, index: int) -> None:
        """A worker has ended. Without a last word it has died."""
        self._gone.append(_Gone(index, self.last.pop(index, None), index not in self._leaving))
        self._leaving.discard(index)
        if len(self._gone) > MOST_KEPT:
            self.add_up()

    def heard(self, question: str, answers: Sequence[list[Any]]) -> list[list[Any]]:
        """The answers, each with index, process and value, and one for workers that are gone if they counted anything.

        One that did not answer in time is answered for, too: otherwise its counters would go back, and forth again.
        """
        if question != "metrics":
            counts = self._counts(question, {index for index, _, value in answers if value is not None})
            return [*answers, *([[GONE, 0, counts]] if counts else [])]
        self.add_up()
        answers = [each for each in answers if each[2] is not None]
        said = {index: value for index, _, value in answers}
        self.last.update(said)
        total = self.total
        for index in self.last.keys() - said.keys():
            total = _added(total, self.last[index], index, died=False)
        return [*answers, *([] if total is None else [[GONE, 0, total]])]

    def _counts(self, question: str, said: Collection[int]) -> dict[str, int]:
        """What those counted for a question that are gone, or have not ``said`` it now."""
        silent = (self.last[index] for index in self.last.keys() - said)
        counts: Counter[str] = Counter()
        for text in (self.total, *(each.last for each in self._gone), *silent):
            if text is not None:
                with suppress(Exception):  # it is told when it is added up
                    counts.update(counts_of(text, question))
        return dict(counts)

    def add_up(self) -> None:
        """Have all that are gone in ``total``."""
        for each in self._gone:
            self.total = _added(self.total, each.last, each.index, each.died)
        self._gone.clear()


def _added(total: str | None, last: str | None, index: int, died: bool) -> str:
    try:
        return gone(total, last, index, died)
    except Exception:  # a worker's word is taken for no more than it is worth
        log.failure("the metrics of worker {index} cannot be read", index=index)
        return gone(total, None, index, died)
