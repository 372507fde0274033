# Compiled: see docs/decisions/compiled.md
"""What all views of one plugin have in common, and when a view may change what."""

from __future__ import annotations

from _thread import RLock
from collections.abc import Awaitable, Callable
from typing import Any, Final, final

from apigw.contract.exchange import Exchange, Seen
from apigw.contract.fields import Names

READS: Final = 0
REQUEST: Final = 1
"""The request may be changed, as for the client's."""
FORWARD: Final = 2
"""It may be changed, as for the service."""
ANSWER: Final = 3
"""The head of the answer may be changed."""
ENDS: Final = 4
"""The exchange is over; ``on_end`` reads."""


class Bodies:
    """How a view reaches the body of its request (``proxy.body``)."""

    def read(self, exchange: Exchange, view: Seen, limit: int) -> Awaitable[bytes]:
        raise NotImplementedError


@final
class Shared:
    """What all views of one plugin have in common. Made in the reactor's thread.

    ``log_of`` makes the log for the exchange of a request id. ``late``: whether what ``on_request`` sets is for the
    service alone. ``keeps``: whether there may be several calls for one exchange, which get the same view.
    """

    def __init__(
        self,
        plugin: str,
        names: Names,
        context: Any,
        log_of: Callable[[str], Any],
        bodies: Bodies,
        late: bool,
        keeps: bool = True,
    ) -> None:
        self.plugin = plugin
        self.names = names
        self.context = context
        self.log_of = log_of
        self.bodies = bodies
        self.late = late
        self.keeps = keeps
        lock = RLock()
        lock.acquire()
        self.is_here: Callable[[], bool] = lock._is_owned  # type: ignore[attr-defined]  # as threading.Condition does
        """Whether this is the reactor's thread. A lock tells in a third of the time that an id takes to be made."""
