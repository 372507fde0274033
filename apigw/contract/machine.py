"""The workers of this gateway on one machine, as each of them sees the others.

What operators ask (``/metrics``, ``/status``, ``/circuits``, ``/limits``) is for the whole machine: the worker that was
asked puts a question to every worker, and adds up their answers.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred, maybeDeferred

from apigw.errors import Overloaded

GONE = -1
"""The worker of an answer that is not of one: for those that are gone."""

Give = Callable[[Any], Any]
"""Answers a question: from its argument, to a value that JSON can hold or a Deferred of one."""


@frozen
class Answer:
    """What one worker says. ``worker`` counts from 0; ``process`` is its id. ``value``: None if it does not answer.

    That of ``GONE`` has what workers counted that are gone (``Machine.counts``), added up, if there is any.
    """

    worker: int
    process: int
    value: Any


class Machine:
    """The workers of one gateway. This one is alone: with ``workers: 1`` there is no other."""

    workers: int = 1
    """How many there are to be."""
    index: int = 0
    """Which of them this is."""

    def __init__(self, process: int | None = None) -> None:
        """``process``: its id, if it is not that of this process."""
        self._process = process
        self._gives: dict[str, Give] = {}
        self._counts: dict[str, Callable[[], Mapping[str, int]]] = {}

    @property
    def process(self) -> int:
        """Its id. That of this process changes when twistd becomes a daemon."""
        return os.getpid() if self._process is None else self._process

    @property
    def checks(self) -> bool:
        """Whether this worker does what is done once for the machine, as health checks. The lowest living one does."""
        return True

    def while_checks(self, begin: Callable[[], object], end: Callable[[], object]) -> None:
        """Call ``begin`` when this worker is the one that ``checks``, and ``end`` when another has become it."""
        begin()

    def when_joined(self, call: Callable[[], object]) -> None:
        """Call once questions of others reach this worker. Those that were asked while it started have not."""

    def answers(self, question: str, give: Give) -> None:
        """From now on this worker answers ``question`` by ``give``."""
        self._gives[question] = give

    def counts(self, question: str, say: Callable[[], Mapping[str, int]]) -> None:
        """From now on what ``say`` says, numbers that only grow, outlives this worker, for who asks ``question``.

        It is called in a thread, about once a second.
        """
        self._counts[question] = say

    def counted(self) -> dict[str, dict[str, int]]:
        """What outlives this worker, by question."""
        return {question: dict(say()) for question, say in self._counts.copy().items()}

    def ask(self, question: str, argument: Any = None, silent: bool = False) -> Deferred[list[Answer]]:
        """Ask every worker, this one too. Fires with the answers by worker, without those who do not answer in time.

        With those, too, if ``silent`` ones are wanted.

        Fails if this worker itself cannot answer.
        """
        own = self.give(question, argument)
        return own.addCallback(lambda value: [Answer(self.index, self.process, value)])

    def apart(self, answers: Iterable[Answer]) -> tuple[Any, list[Any]]:
        """What this worker has answered, and what the others have. Raises ``Overloaded`` if this one has not."""
        own: list[Any] = []
        others: list[Any] = []
        for answer in answers:
            (own if answer.worker == self.index else others).append(answer.value)
        if not own:
            raise Overloaded("This worker has not answered in time; try again in some seconds.")
        return own[0], others

    def give(self, question: str, argument: Any) -> Deferred[Any]:
        """This worker's own answer."""
        return maybeDeferred(self._gives[question], argument)
