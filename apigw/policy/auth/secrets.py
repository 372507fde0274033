"""Secrets of OAuth clients, and passwords: generation, hashes, verification, and the threads for hashing.

A stored hash is ``sha256$<hex>`` for a generated secret of 256 random bits, which cannot be guessed, or
``scrypt$<n>$<r>$<p>$<salt>$<hash>`` (RFC 7914) for a chosen one.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
import sys
import threading
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TypeVar

from attrs import field, frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

from apigw.errors import Overloaded

MIN_CHOSEN = 16
HASHING_NICE = 10
MAX_SECRET = 256
N, R, P = 2**14, 8, 1
MAX_MEMORY = 64 * 1024 * 1024

_SCRYPT = re.compile(r"scrypt\$(\d{1,7})\$(\d{1,2})\$(\d{1,2})\$([A-Za-z0-9_-]{22,86})\$([A-Za-z0-9_-]{43})")
_SHA256 = re.compile(r"sha256\$([0-9a-f]{64})")
_CHOSEN = re.compile(r"[!-$&-~]+")

T = TypeVar("T")
Cost = tuple[int, int, int] | None
"""The cost of checking a hash: scrypt's n, r and p; ``None`` for SHA-256."""


def new_secret() -> str:
    """A random secret of 256 bits, in characters that need no escaping."""
    return secrets.token_urlsafe(32)


def hash_generated(secret: str) -> str:
    """The stored hash of a secret from ``new_secret``."""
    return "sha256$" + hashlib.sha256(secret.encode()).hexdigest()


def hash_secret(secret: str) -> str:
    """The stored hash of a chosen secret, which takes some 40 ms. Raises ``ValueError`` for an unsuitable secret.

    Spaces and ``%`` are refused, because clients disagree on how HTTP Basic carries them (RFC 6749 §2.3.1).
    """
    if len(secret) < MIN_CHOSEN:
        raise ValueError(f"a secret must have at least {MIN_CHOSEN} characters")
    if len(secret) > MAX_SECRET:
        raise ValueError(f"a secret may have at most {MAX_SECRET} characters")
    if not _CHOSEN.fullmatch(secret):
        raise ValueError("a secret may contain only printable ASCII characters, without spaces and %")
    if len(set(secret)) < 6:
        raise ValueError("a secret must have at least 6 different characters")
    salt = os.urandom(16)
    return f"scrypt${N}${R}${P}${_encode(salt)}${_encode(_scrypt(secret, salt, (N, R, P)))}"


@frozen
class SecretHash:
    """One stored hash."""

    cost: Cost
    digest: bytes = field(repr=False)
    salt: bytes = field(default=b"", repr=False)

    @classmethod
    def parse(cls, stored: str) -> SecretHash:
        """Parse a stored hash. Raises ``ValueError``, also for parameters that are too weak or too costly.

        The message is a sentence fragment that follows the hash.
        """
        if found := _SHA256.fullmatch(stored):
            return cls(None, bytes.fromhex(found[1]))
        found = _SCRYPT.fullmatch(stored)
        if found is None:
            raise ValueError("is not a hash that `apigw hash-secret` makes: scrypt$… or sha256$…, copied whole")
        n, r, p = int(found[1]), int(found[2]), int(found[3])
        if n & (n - 1) or n < N or r < R or not 1 <= p <= 4 or 128 * n * r > MAX_MEMORY:
            raise ValueError(
                "is a hash with parameters that are too weak or too costly: make it with `apigw hash-secret`"
            )
        return cls((n, r, p), _decode(found[5]), _decode(found[4]))

    def matches(self, secret: str) -> bool:
        """Whether ``secret`` has this hash (compared in constant time)."""
        if self.cost is None:
            computed = hashlib.sha256(secret.encode()).digest()
        else:
            computed = _scrypt(secret, self.salt, self.cost)
        return hmac.compare_digest(computed, self.digest)


def decoy(cost: Cost) -> SecretHash:
    """A dummy hash: no secret matches it, and checking it costs as much as a real one."""
    return SecretHash(cost, os.urandom(33), os.urandom(16))


def decoys(clients: Iterable[tuple[SecretHash, ...]]) -> tuple[SecretHash, ...]:
    """The dummy hashes to check for an unknown client, so that this costs as much as the most costly of ``clients``."""
    dearest: Counter[Cost] = Counter()
    for hashes in clients:
        dearest |= Counter(each.cost for each in hashes)
    return tuple(map(decoy, dearest.elements()))


def verify(secret: str, hashes: tuple[SecretHash, ...], decoys: tuple[SecretHash, ...]) -> bool:
    """Whether one of ``hashes`` matches. If none does, the time is that of ``decoys``, independent of ``hashes``."""
    unused = list(decoys)
    for each in hashes:
        if each.matches(secret):
            return True
        unused.remove(next(one for one in unused if one.cost == each.cost))
    for each in unused:
        each.matches(secret)
    return False


class _PatientThread(threading.Thread):
    """A thread with a high niceness: on a busy core, it gets about a tenth of the reactor's share."""

    def run(self) -> None:
        if sys.platform == "linux":  # on other systems, niceness applies to the whole process
            with suppress(OSError):
                thread = threading.get_native_id()
                os.setpriority(os.PRIO_PROCESS, thread, max(HASHING_NICE, os.getpriority(os.PRIO_PROCESS, thread)))
        super().run()


class _PatientPool(ThreadPool):
    threadFactory = _PatientThread


class SecretThreads:
    """A small thread pool for hashing, separate from the reactor's, with a short queue.

    One id may use at most ``each`` of its places, so that guesses at one secret do not take them all, and one client's
    address at most ``each_caller``.
    """

    def __init__(
        self, reactor: IReactorFromThreads, threads: int = 2, queue: int = 32, each: int = 8, each_caller: int = 4
    ) -> None:
        self._reactor = reactor
        self._pool = _PatientPool(minthreads=0, maxthreads=threads, name="apigw-secrets")
        self._started = False
        self._room = threads + queue
        self._each = each
        self._each_caller = each_caller
        self._taken = Counter[str]()
        self._callers = Counter[str]()

    def start(self) -> None:
        self._started = True
        self._pool.start()

    def stop(self) -> None:
        """Stop when all queued work is done, which takes at most a second or two. No effect if it is not running."""
        if self._started:
            self._started = False
            self._pool.stop()

    def run(self, work: Callable[[], T], id: str, caller: str = "") -> Deferred[T]:
        """Run ``work()`` in a thread for ``id``, which need not exist. Cancelled work is not started.

        Raises ``Overloaded`` if too much work is queued, in all, for this id, or for this ``caller``, if that is given.
        """
        full = self._room <= 0 or self._taken[id] >= self._each
        if full or (caller and self._callers[caller] >= self._each_caller):
            raise Overloaded("Too many secrets are waiting to be checked.", [(b"retry-after", b"1")])
        self._room -= 1
        self._taken[id] += 1
        self._callers[caller] += 1
        answer: Deferred[T] = Deferred()

        def unless_cancelled() -> T | None:
            return None if answer.called else work()

        def finished(success: bool, result: T | Failure) -> None:
            self._room += 1
            _give_back(self._taken, id)
            _give_back(self._callers, caller)
            if not answer.called:
                answer.callback(result)

        self._pool.callInThreadWithCallback(
            lambda success, result: self._reactor.callFromThread(finished, success, result), unless_cancelled
        )
        return answer


def _give_back(taken: Counter[str], key: str) -> None:
    taken[key] -= 1
    if not taken[key]:
        del taken[key]


def _scrypt(secret: str, salt: bytes, cost: tuple[int, int, int]) -> bytes:
    n, r, p = cost
    return hashlib.scrypt(secret.encode(), salt=salt, n=n, r=r, p=p, maxmem=2 * MAX_MEMORY, dklen=32)


def _encode(raw: bytes) -> str:
    return urlsafe_b64encode(raw).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))
