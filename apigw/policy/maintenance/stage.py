# Compiled: see docs/decisions/compiled.md
"""The stage of a route under maintenance."""

from __future__ import annotations

from typing import final

from apigw import errors
from apigw.contract.exchange import Exchange, Outcome, Stage


@final
class UnderMaintenance(Stage):
    def __init__(self, seconds: int) -> None:
        self._headers = [(b"retry-after", b"%d" % seconds)]

    def run(self, exchange: Exchange) -> Outcome:
        raise errors.Maintenance("This is under maintenance.", self._headers)
