"""Work of a plugin in threads: so much at a time, and each piece of it for so long."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from threading import Thread
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool

AT_ONCE = 10
"""Threads of one plugin. They are made when they are needed."""


class OwnPool(ThreadPool):
    """Threads of one plugin: work that does not end has no thread of others, and the program ends without it."""

    threadFactory: Any = staticmethod(partial(Thread, daemon=True))

    def __init__(self) -> None:
        super().__init__(0, AT_ONCE, "apigw-plugin")

    def stop(self) -> None:
        """What runs may go on, and what waits comes after it. Twisted's own waits for all of it."""
        self.joined, self.started = True, False
        self._team.quit()


class Busy(Exception):
    """Too much of the plugin is in threads already, or it takes too long."""


class Threads:
    """At most so much at a time, by the sizes of what runs or waits for a thread, and nothing for longer than
    ``seconds``. What counts here counts as one among ``all_others`` too.
    """

    def __init__(
        self, reactor: Any, most: int, seconds: float | None = None, all_others: Threads | None = None
    ) -> None:
        self._reactor = reactor
        self._most = most
        self._seconds = seconds
        self._all_others = all_others
        self._pool: Any = None
        self._stopped = False
        self.held = 0
        """The sizes of what runs or waits, also of what nobody waits for any more: its thread is not free."""

    def run(self, size: int, call: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        """What ``call`` returns, in another thread. Fails with ``Busy``. What is larger than ``most`` runs alone."""
        if self.held and self.held + size > self._most:
            return fail(Busy("too much is in threads, or waits for one"))
        self.held += size
        outer: Deferred[Any] = Deferred()

        def late() -> None:
            if not outer.called:
                outer.errback(Busy(f"did not end within {self._seconds:g} s"))

        timer = None if self._seconds is None else self._reactor.callLater(self._seconds, late)

        def ended(result: Any) -> None:
            self.held -= size
            if timer is not None and timer.active():
                timer.cancel()
            if self._stopped and not self.held:
                self.stop()
            if not outer.called:
                outer.callback(result)

        if self._all_others is not None:
            running = self._all_others.run(1, call, *arguments)
        else:
            running = deferToThreadPool(self._reactor, self._started(), call, *arguments)
        running.addBoth(ended)
        return outer

    def _started(self) -> Any:
        if self._pool is None:
            shared = self._reactor.getThreadPool()
            # That of a gateway in memory runs all at once.
            self._pool = OwnPool() if isinstance(shared, ThreadPool) else shared
            if self._pool is not shared:
                self._pool.start()
        return self._pool

    def stop(self) -> None:
        """It is no longer in use. Exchanges that have begun may still bring work: its threads end with that."""
        self._stopped = True
        pool, self._pool = self._pool, None
        if isinstance(pool, OwnPool):
            pool.stop()
