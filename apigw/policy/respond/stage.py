# Compiled: see docs/decisions/compiled.md
"""Fixed answers."""

from __future__ import annotations

from typing import final

from apigw.contract.exchange import Answer, Exchange, Outcome, Stage
from apigw.policy.transform.fields import Fields
from apigw.wire.headers import Headers


@final
class Responded(Stage):
    """Answers every request alike, but for ``fields``."""

    def __init__(self, status: int, headers: Headers, body: bytes, fields: Fields) -> None:
        self._answer = Answer(status, headers, body)
        self._fields = fields if fields else None

    def run(self, exchange: Exchange) -> Outcome:
        same = self._answer
        if self._fields is None:
            return same
        headers = same.headers.copy()
        self._fields.write(exchange, headers, False)
        return Answer(same.status, headers, same.body)
