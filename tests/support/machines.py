"""Several workers in one process, as they see each other."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.defer import Deferred, gatherResults

from apigw.contract.machine import Answer, Machine


class Linked(Machine):
    """One worker of ``linked``. What they say to each other passes through JSON, as between processes."""

    def __init__(self, index: int, all: list[Linked]) -> None:
        super().__init__(1000 + index)
        self.index = index
        self._all = all
        self.gone: list[Answer] = []
        """What is answered for workers that are gone."""

    @property
    def workers(self) -> int:  # type: ignore[override]
        return len(self._all)

    @property
    def checks(self) -> bool:
        return self.index == 0

    def ask(self, question: str, argument: Any = None, silent: bool = False) -> Deferred[list[Answer]]:
        said = gatherResults([each.give(question, through_json(argument)) for each in self._all], consumeErrors=True)
        return said.addCallback(self._answers)

    def _answers(self, values: list[Any]) -> list[Answer]:
        answers = zip(self._all, values, strict=True)
        return [*self.gone, *(Answer(each.index, each.process, through_json(value)) for each, value in answers)]


def linked(workers: int) -> list[Linked]:
    """So many workers of one machine."""
    all: list[Linked] = []
    all.extend(Linked(index, all) for index in range(workers))
    return all


def through_json(value: Any) -> Any:
    return json.loads(json.dumps(value))
