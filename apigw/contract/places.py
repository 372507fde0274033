"""How much may be under way at a time for all clients, and for one of them."""

from __future__ import annotations

from collections import Counter


class Places:
    """``most`` in all, and ``each`` for one client, as ``address_groups.network`` names it."""

    def __init__(self, most: int, each: int) -> None:
        self._most = most
        self._each = each
        self._taken = 0
        self._callers = Counter[str]()

    def take(self, caller: str) -> bool:
        """Whether there was a place for ``caller``. Who got one gives it back."""
        if self._taken >= self._most or self._callers[caller] >= self._each:
            return False
        self._taken += 1
        self._callers[caller] += 1
        return True

    def give_back(self, caller: str) -> None:
        self._taken -= 1
        self._callers[caller] -= 1
        if not self._callers[caller]:
            del self._callers[caller]
