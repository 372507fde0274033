# Compiled: see docs/decisions/compiled.md
"""The stage that looks at the client's address."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, final

from apigw import errors
from apigw.contract.exchange import Exchange, Outcome, Stage
from apigw.contract.ranges import Ranges, packed_peer

REMEMBERED: Final = 4096
"""Addresses of which the decision is remembered, for each list: most callers come again."""


@final
class Admission:
    """Which addresses may call: all that each of ``allowed`` holds, and none of ``denied``.

    ``refused`` is called for each that may not.
    """

    def __init__(self, allowed: Sequence[Ranges], denied: Sequence[Ranges], refused: Callable[[], object]) -> None:
        self._allowed = tuple(allowed)
        self._denied = tuple(denied)
        self._refused = refused
        self._known: dict[bytes, bool] = {}

    def check(self, address: bytes, is_certain: bool) -> None:
        """Raises ``AddressDenied``. Nobody is allowed whose address is not certain (``Peers.is_certain``)."""
        known = self._known.get(address)
        if known is None:
            known = self._decide(address)
            if len(self._known) >= REMEMBERED:
                self._known.clear()
            self._known[address] = known
        if not known or (not is_certain and self._allowed):
            self._refused()
            raise errors.AddressDenied("Requests from this address are not accepted.")

    def _decide(self, address: bytes) -> bool:
        # Compiled, a generator takes as long as the search.
        packed = packed_peer(address)
        for each in self._denied:
            if each.has(packed):
                return False
        passes = True
        for each in self._allowed:
            passes = passes and each.has(packed)
        return passes


@final
class Admit(Stage):
    def __init__(self, admission: Admission) -> None:
        self._admission = admission

    def run(self, exchange: Exchange) -> Outcome:
        request, peers = exchange.request, exchange.peers
        address = peers.client_address(request)
        self._admission.check(address, peers.is_certain(address, request))
        return None
