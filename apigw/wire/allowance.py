# Compiled: see docs/decisions/compiled.md
"""How many connections to one address there may be, and how many exchanges may wait for one."""

from __future__ import annotations

from collections.abc import Callable

Retry = Callable[[], None]
"""Connects for exchanges that wait, as far as it is allowed."""


class Allowance:
    """Of a pool alone. One that processes share is a subclass."""

    def __init__(self, most: int, most_waiting: int) -> None:
        self.alone = True
        """Whether no other process can want a place: then nobody asks ``is_wanted``."""
        self.most = most
        self.most_waiting = most_waiting
        self.taken = 0
        """Connections of this process."""
        self.waiting = 0
        """Exchanges of this process that wait."""

    def take(self) -> bool:
        """Take a place for a new connection. False if all are taken."""
        if self.taken >= self.most:
            return False
        self.taken += 1
        return True

    def take_anyway(self) -> None:
        """For a connection that was made elsewhere, and whose place there has been given back."""
        self.taken += 1

    def give_back(self) -> None:
        """The connection is gone."""
        self.taken -= 1

    @property
    def is_full(self) -> bool:
        return self.taken >= self.most

    def wait(self) -> bool:
        """An exchange begins to wait. False if too many do."""
        if self.waiting >= self.most_waiting:
            return False
        self.waiting += 1
        return True

    def leave(self) -> None:
        """It waits no longer."""
        self.waiting -= 1

    def retries(self, retry: Retry) -> None:
        """``retry`` is called every now and then while exchanges wait for places that other processes give back."""

    @property
    def is_wanted(self) -> bool:
        """Whether an exchange of another process waits for a place."""
        return False

    def gives_way(self, busy: bool) -> bool:
        """Whether to give up a connection for one of another process, though exchanges may wait for it (``busy``) here.

        Asked if ``is_wanted``. The answer yes is for one connection.
        """
        return False

    def used(self, now: float) -> None:
        """Say that it is in use. Called twice a second where others share it."""
