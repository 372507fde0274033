"""Load in the background of a test, of which every answer is known."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from itertools import repeat

from bench.load import Load, Request, Tally, encode

from support.client import Address
from support.waiting import eventually

DEADLINE = 3.0
"""Seconds within which every request must be answered, whatever is broken behind the gateway."""


class Traffic:
    """``connections`` clients that ask for ``target`` one request after the other, from ``with`` to its end."""

    def __init__(self, address: Address, target: str, connections: int = 2, *headers: tuple[str, str]) -> None:
        request = Request(encode(target, headers=headers))
        self._load = Load(address, repeat(request), connections, DEADLINE)
        self._thread = threading.Thread(target=lambda: asyncio.run(self._load.run()), daemon=True)

    def __enter__(self) -> Traffic:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        # The loop's own thread cuts idle connections; here it is enough that no more requests are sent.
        self._load.stopping = True
        self._thread.join(2 * DEADLINE)
        assert not self._thread.is_alive()

    @property
    def tally(self) -> Tally:
        return self._load.tally

    @property
    def statuses(self) -> Counter[int]:
        return self._load.tally.statuses

    def go_on(self, answers: int = 50) -> None:
        """Wait until so many more requests have been answered, with whatever status."""
        wanted = self.statuses.total() + answers
        eventually(lambda: self.statuses.total() >= wanted)

    @property
    def surprises(self) -> Counter[str]:
        """What no client should see: no answer in time, a connection cut, an answer that is none."""
        return Counter({kind: count for kind, count in self.tally.kinds.items() if not kind.startswith("status ")})
