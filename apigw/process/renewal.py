"""A new configuration in a process that serves: made beside the one in use, then used or dropped.

Nothing here takes longer than a piece (``pieces``), so that requests are served meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from typing import Any

from attrs import fields, frozen
from twisted.internet.defer import CancelledError, Deferred, DeferredLock, inlineCallbacks
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger

from apigw.config.errors import ConfigError, Problem, problem_in
from apigw.config.model import Config, Redis
from apigw.process.current import Current
from apigw.process.garbage import Garbage
from apigw.process.handover import unpack
from apigw.process.listeners import Listener
from apigw.process.pieces import in_pieces
from apigw.process.rules import RULES
from apigw.process.snapshot import Snapshot, letting_go
from apigw.wire.tls import reason

log = Logger()

Steps = Generator[None, None, None]
Compiling = Callable[[Config, Snapshot], Generator[None, None, Snapshot]]

FIXED = {
    "gateway": ("listen", "admin", "workers", "limits_memory", "log", "access_log", "audit_log"),
    "redis": tuple(field.name for field in fields(Redis) if field.name != "timeout"),
}
"""The keys of sections that no reload changes."""


@frozen(eq=False)
class _Ready:
    snapshot: Snapshot
    certificates: list[Callable[[], None]]


class Renewal:
    """Two phases, so that several processes can change at one moment, or none: ``prepare``, then ``commit`` or
    ``abandon``. What is left to do after them, as freeing what is not used any more, is done in pieces.
    """

    def __init__(
        self,
        reactor: Any,
        compiling: Compiling,
        listeners: Iterable[Listener],
        current: Current,
        garbage: Garbage,
    ) -> None:
        self._reactor = reactor
        self._compiling = compiling
        self._secure = [listener for listener in listeners if listener.contexts is not None]
        self._current = current
        self._garbage = garbage
        self._lock = DeferredLock()  # one after the other: who tidies up removes the series of what is being prepared
        self._preparing: Deferred[None] | None = None
        self._ready: _Ready | None = None

    def prepare(self, data: bytes) -> Deferred[None]:
        """Make all that ``handover.pack`` has packed ready, and change nothing. What was ready before is dropped.

        Fails with ``ConfigError`` for a configuration that needs a restart, or cannot be used here. A cancel is an
        ``abandon``.
        """
        self.abandon()
        preparing = self._preparing = self._lock.run(self._prepare, data)
        return preparing.addBoth(self._prepared)

    def commit(self) -> Deferred[None]:
        """Use what is ready. Takes a millisecond, and cannot fail. Fires when what it replaces is gone."""
        ready, self._ready = self._ready, None
        assert ready is not None, "nothing is prepared"
        old = letting_go(self._current.snapshot)
        self._current.use(ready.snapshot)
        for use in ready.certificates:
            use()
        return self._tidy(old)

    def abandon(self) -> Deferred[None]:
        """Drop what is ready, or being made ready. Fires when it is gone; at once where there is nothing."""
        if self._preparing is not None:
            self._preparing.cancel()
        ready, self._ready = self._ready, None
        return self._lock.run(_nothing) if ready is None else self._tidy(letting_go(ready.snapshot))

    @inlineCallbacks
    def _prepare(self, data: bytes) -> Generator[Any, Any, None]:
        self._garbage.begin()
        try:
            snapshot = yield in_pieces(self._reactor, self._compile(data))
            loaded = []
            if self._secure:
                # Files are read, and OpenSSL does not hold the interpreter's lock.
                loaded = yield deferToThreadPool(self._reactor, self._reactor.getThreadPool(), self._load, snapshot)
        except CancelledError:
            self._tidy()
            raise
        except Exception:
            yield in_pieces(self._reactor, self._tidying())
            raise
        self._ready = _Ready(snapshot, loaded)

    def _prepared(self, result: Any) -> Any:
        self._preparing = None
        return result

    def _compile(self, data: bytes) -> Generator[None, None, Snapshot]:
        config = yield from unpack(data)
        current = self._current.snapshot
        problems = needs_restart(current.config, config)
        if problems:
            raise ConfigError(problems)
        return (yield from self._compiling(config, current))

    def _load(self, snapshot: Snapshot) -> list[Callable[[], None]]:
        """Read the certificates of all listeners. Raises ``ConfigError``: files may have changed since the check."""
        loaded: list[Callable[[], None]] = []
        problems: list[Problem] = []
        for listener in self._secure:
            try:
                loaded.append(listener.load(snapshot.authorities))
            except Exception as error:
                path = ("gateway", "listen", snapshot.config.gateway.listen.index(listener.config), "tls")
                problems.append(problem_in(snapshot.config, path, f"cannot be used any more: {reason(error)}"))
        if problems:
            raise ConfigError(problems)
        return loaded

    def _tidy(self, unused: Steps | None = None) -> Deferred[None]:
        """After a configuration was used or dropped, finish ``unused`` and give the metrics what they had before it."""
        done: Deferred[None] = Deferred()
        running: Deferred[None] = self._lock.run(in_pieces, self._reactor, self._tidying(unused))
        running.addErrback(lambda failure: log.failure("after a reload", failure=failure)).addCallback(done.callback)
        return done

    def _tidying(self, unused: Steps | None = None) -> Steps:
        if unused is not None:
            yield from unused
        yield from self._current.keeping_series()
        self._garbage.end()


def needs_restart(old: Config, new: Config) -> list[Problem]:
    """Problems for changes that need a restart. Certificates may change, but not the list of their files."""
    # Where `auto` stands for one worker, the upgrade says so itself.
    upgrade = "" if 1 in (old.gateway.workers, new.gateway.workers) else ", or `apigw upgrade`"
    problems = [
        Problem(f"a change here needs a restart{upgrade}", path, new.origins.get(path))
        for section in FIXED
        for path in _changed(section, getattr(old, section), getattr(new, section))
    ]
    return [*problems, *(problem for refuse in RULES.refuse for problem in refuse(old, new))]


def _changed(section: str, old: object, new: object) -> list[tuple[str, ...]]:
    if old is None or new is None:
        return [] if old is new else [(section,)]
    return [(section, key) for key in FIXED[section] if getattr(old, key) != getattr(new, key)]


def _nothing() -> None:
    pass
