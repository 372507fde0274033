"""How many connections each client has with all workers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from apigw.shared.page import Page
from apigw.shared.spot import Spot
from apigw.wire.room import counted

_OWNER: Final = -1
"""Of the entries in the table: no limit's id."""


class SharedCrowd:
    """As ``wire.room.Crowd``, in the shared page. The connections of a worker that dies are gone with it.

    Workers that ask at the same moment may each admit one: a client may have a connection too many for each of them.
    """

    def __init__(self, page: Page, worker: int, seconds: Callable[[], float]) -> None:
        """``seconds`` is the monotonic clock."""
        self._page = page
        self._worker = worker
        self._seconds = seconds
        self._owed: dict[bytes, int] = {}
        """Connections of a client that the page has too few of, or too many: a lock or room was not to be had."""

    def came(self, peer: bytes) -> None:
        client = counted(peer)
        if client is not None:
            self._change(client, 1)

    def left(self, peer: bytes) -> None:
        client = counted(peer)
        if client is not None:
            self._change(client, -1)

    def has(self, peer: bytes) -> int:
        """0 if it is not known because the lock is not to be had: then the client is not turned away for it."""
        client = counted(peer)
        if client is None:
            return 0
        spot = self._spot(client)
        if not self._page.locks.take(spot.lock):
            return 0
        try:
            # Who is turned away never comes nor leaves: so what is owed must be paid here, too.
            self._pay(client, spot)
            return int(self._page.places.taken(spot))
        finally:
            self._page.locks.give_back(spot.lock)

    def _change(self, client: bytes, by: int) -> None:
        owed = self._owed.pop(client, 0) + by
        if not owed:
            return
        self._owed[client] = owed
        spot = self._spot(client)
        if self._page.locks.take(spot.lock):
            try:
                self._pay(client, spot)
            finally:
                self._page.locks.give_back(spot.lock)

    def _spot(self, client: bytes) -> Spot:
        return self._page.limits.spot(b"connections\0" + client)

    def _pay(self, client: bytes, spot: Spot) -> None:
        """What is owed, as far as there is room. The caller has the lock."""
        places, owed = self._page.places, self._owed.pop(client, 0)
        now = int(self._seconds() * 1_000_000) if owed else 0
        while owed > 0 and places.take(spot, _OWNER, self._worker, now):
            owed -= 1
        while owed < 0:
            places.free(spot, self._worker)
            owed += 1
        if owed:
            self._owed[client] = owed
