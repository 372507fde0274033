"""A key set that is fetched and refreshed (RFC 7517; RFC 9111 for its lifetime).

Its URL is configured, or is in the metadata of an OpenID provider or OAuth server (``metadata``).

The set is fetched when it is started, again at four fifths of its ``max-age``, and at once for a token with an
unknown ``kid``, at most every 30 s. There is one fetch at a time. If a fetch fails, the last good set stays in use,
and the next attempts follow after 1, 2, 4 … 30 s.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from urllib.parse import urlsplit

from attrs import frozen
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from apigw.contract.policy import Fetch
from apigw.errors import AuthUnavailable
from apigw.policy.auth.jwt.algorithms import PUBLIC
from apigw.policy.auth.jwt.keys import Keys, key_set
from apigw.policy.auth.jwt.metadata import keys_url

DEADLINE = 5.0  # seconds for a fetch
DEFAULT_AGE, MIN_AGE, MAX_AGE = 600.0, 60.0, 3600.0
UNKNOWN_KID_INTERVAL = 30.0
LONGEST_BACKOFF = 30.0

_MAX_AGE = re.compile(r'(?:^|[\s,])max-age\s*=\s*"?(\d{1,9})', re.IGNORECASE)
_NOT_TO_KEEP = re.compile(r"(?:^|[\s,])no-(?:store|cache)(?:$|[\s,=])", re.IGNORECASE)


def lifetime(headers: Mapping[str, str]) -> float:
    """Lifetime of a fetched set in seconds: ``max-age`` minus ``Age``, between 60 and 3600; without ``max-age`` 600."""
    control = headers.get("cache-control", "")
    if _NOT_TO_KEEP.search(control):
        return MIN_AGE
    found = _MAX_AGE.search(control)
    if found is None:
        return DEFAULT_AGE
    age = headers.get("age", "")
    spent = int(age) if age.isdecimal() and len(age) < 10 else 0
    return min(max(float(int(found[1]) - spent), MIN_AGE), MAX_AGE)


@frozen
class Source:
    """Where keys are fetched: the URL of a key set, or with ``openid`` an issuer, whose metadata has that URL."""

    url: str
    openid: bool = False


class KeySet:
    """The keys of one source. It survives reloads: each configuration passes it to the next.

    Constructing it does nothing, so that a configuration can be compiled in a thread; all else is for the reactor's.
    """

    log = Logger()

    def __init__(self, source: Source, fetch: Fetch, clock: IReactorTime) -> None:
        self.source = source
        self.keys: Keys | None = None
        parts = urlsplit(source.url)
        self._place = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
        self._fetch = fetch
        self._clock = clock
        self._running = False
        self._fetching: Deferred[tuple[Keys, float]] | None = None
        self._timer: IDelayedCall | None = None
        self._waiting: dict[Deferred[None], None] = {}
        self._failures = 0
        self._asked = -math.inf

    def start(self) -> None:
        """Fetch now, without waiting, and refresh the set from then on. No effect if it is running."""
        if not self._running:
            self._running = True
            self._begin()

    def stop(self) -> None:
        """Stop refreshing. A running fetch continues for tokens that wait for it, and is cancelled otherwise."""
        self._running = False
        self._cancel_timer()
        if self._fetching is not None and not self._waiting:
            self._fetching.cancel()

    def wanted(self) -> Deferred[None] | None:
        """Fetch the set for an unknown key. Fires when that has ended; ``None`` if it is too early."""
        if self._fetching is None:
            now = self._clock.seconds()
            if self._failures or now - self._asked < UNKNOWN_KID_INTERVAL:
                return None
            self._asked = now
            self._begin()
            if self._fetching is None:
                return succeed(None)
        waiter: Deferred[None] = Deferred(self._leaves)
        self._waiting[waiter] = None
        return waiter

    def _leaves(self, waiter: Deferred[None]) -> None:
        """One who waits is cancelled; also by another, who has just been told that the fetch is over."""
        self._waiting.pop(waiter, None)

    def unavailable(self) -> AuthUnavailable | None:
        """The 503 for an unknown key while fetches fail; ``None`` if the last fetch succeeded."""
        if self.keys is not None and not self._failures:
            return None
        seconds = 1
        if self._timer is not None:
            seconds = max(1, math.ceil(self._timer.getTime() - self._clock.seconds()))
        return AuthUnavailable("The keys that verify this token are unavailable.", [(b"retry-after", b"%d" % seconds)])

    def _begin(self) -> None:
        self._cancel_timer()
        loading = Deferred.fromCoroutine(self._load())
        loading.addTimeout(DEADLINE, self._clock, onTimeoutCancel=_late)
        self._fetching = loading
        loading.addCallbacks(self._loaded, self._failed).addCallback(self._settle)

    async def _load(self) -> tuple[Keys, float]:
        source = self.source
        url = await keys_url(source.url, self._fetch) if source.openid else source.url
        body, headers = await self._fetch(url)
        return key_set(body, PUBLIC), lifetime(headers)

    def _loaded(self, answer: tuple[Keys, float]) -> float:
        newer, seconds = answer
        self.keys = newer if self.keys is None else self.keys.succeeded_by(newer)
        if self._failures:
            self.log.info("Key set {place}: fetched again.", place=self._place)
        self._failures = 0
        return seconds * 0.8

    def _failed(self, failure: Failure) -> float:
        if isinstance(failure.value, CancelledError) and not self._running:
            return 0.0
        self._failures += 1
        self.log.warn(
            "Key set {place} cannot be used: {reason}; {keeps}.",
            place=self._place,
            reason=(failure.getErrorMessage()[:500] or type(failure.value).__name__).removesuffix("."),
            keeps="no set has been fetched yet" if self.keys is None else "the last good set stays in use",
        )
        return min(2.0 ** min(self._failures - 1, 10), LONGEST_BACKOFF)

    def _settle(self, next_in: float) -> None:
        self._fetching = None
        if self._running:
            self._timer = self._clock.callLater(next_in, self._begin)
        waiting, self._waiting = self._waiting, {}
        for waiter in waiting:
            if not waiter.called:  # cancelled by what one before it led to
                waiter.callback(None)

    def _cancel_timer(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None


def carry_over(
    sources: Iterable[Source], previous: Mapping[Source, KeySet], make: Callable[[Source], KeySet]
) -> dict[Source, KeySet]:
    """The key sets of a new snapshot: those of ``previous`` that it needs, and new ones, which are not started."""
    return {source: previous.get(source) or make(source) for source in sources}


class Running:
    """The running key sets: those of the configuration in use."""

    def __init__(self) -> None:
        self._sets: Mapping[Source, KeySet] = {}

    def use(self, sets: Mapping[Source, KeySet]) -> None:
        """Use these key sets from now on: start new ones, and stop removed ones. In the reactor's thread."""
        previous, self._sets = self._sets, sets
        for keys in sets.values():
            keys.start()
        for source in previous.keys() - sets.keys():
            previous[source].stop()


def _late(result: object, seconds: float) -> object:
    if isinstance(result, Failure):
        raise TimeoutError(f"no answer in {seconds:g} s")
    return result
