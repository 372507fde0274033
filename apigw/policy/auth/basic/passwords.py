# Compiled: see docs/decisions/compiled.md
"""HTTP Basic authentication (RFC 7617), by hashed passwords."""

from __future__ import annotations

import os
from base64 import b64decode, b64encode
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from hashlib import blake2b
from typing import NoReturn

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from apigw.contract.principal import Principal
from apigw.contract.shared_calls import SharedCalls
from apigw.errors import Overloaded
from apigw.policy.auth.basic.users import User
from apigw.policy.auth.hashing import UNKNOWN
from apigw.policy.auth.method import Method, Providers, after_scheme
from apigw.policy.auth.refusals import SEVERAL, Refusal
from apigw.policy.auth.secrets import MAX_SECRET, SecretHash, decoys, verify
from apigw.wire.request import Request

CHALLENGE = b'Basic realm="apigw", charset="UTF-8"'
REMEMBERED = 16_384
FORGOTTEN_AFTER = 3600.0
"""Seconds after its last use. A password is hashed again then; what is in the file changes at a reload alone."""
LONGEST = 1024
"""Bytes of the header."""

MALFORMED = Refusal("malformed", "the name and password are not well-formed")
WRONG = Refusal("password", "the name or the password is wrong")

Run = Callable[[Callable[[], bool], str, bytes], Deferred[bool]]
"""Runs work in a thread, for a user's name, beginning with ``UNKNOWN`` if it is nobody's, and a client's address
(``hashing.SecretThreads.run``)."""


class Known:
    """A caller whose password was right. ``used`` is when it was sent last, in Unix seconds."""

    def __init__(self, principal: Principal, user: User, used: float) -> None:
        self.principal = principal
        self.user = user
        self.used = used


class Passwords(Method):
    """All providers of passwords. ``users`` are those of each provider, by name.

    Hashing takes 40 ms, in a thread, but for generated ones that are right; once for all requests that wait for the
    same. Whose password was right is remembered, by a digest with a key of this object.
    Unknown names are hashed, too, so that the time does not tell which names exist.
    """

    def __init__(self, users: Mapping[str, Mapping[str, User]], run: Run) -> None:
        super().__init__(b"authorization")
        self._users = dict(users)
        self._run = run
        self._decoys = decoys((user.hash,) for each in users.values() for user in each.values())
        self._key = os.urandom(32)
        self._seen: OrderedDict[bytes, Known] = OrderedDict()
        self._hashing = SharedCalls()

    def providers(self) -> frozenset[str]:
        return frozenset(self._users)

    def challenge(self, providers: Providers) -> bytes:
        return CHALLENGE

    def sent(self, request: Request) -> list[bytes]:
        return self.with_scheme(b"basic", request)

    def remembered(self, sent: Sequence[bytes], now: float) -> Principal | None:
        if len(sent) != 1:
            return None
        digest = self._digest(sent[0])
        known = self._seen.get(digest)
        if known is None or now >= known.used + FORGOTTEN_AFTER:
            return None
        known.used = now
        self._seen.move_to_end(digest)
        return known.principal

    def again(self, sent: Sequence[bytes], now: float, providers: Providers) -> Principal | None:
        """Without hashing: a password that was right is remembered, unless its line has changed."""
        said = _said(sent)
        known = None if said is None else self.remembered([_as_usual(*said)], now)
        if known is None:
            raise WRONG.by(CHALLENGE)
        return known

    def verify(
        self, sent: Sequence[bytes], now: float, providers: Providers = None, caller: bytes = b""
    ) -> Principal | Deferred[Principal] | None:
        said = _said(sent)
        if said is None:
            return None
        name, password = said
        as_usual = _as_usual(name, password)
        if as_usual != sent[0]:
            # any spelling is the same password: one caller must not fill what is remembered with spellings
            known = self.remembered([as_usual], now)
            if known is not None and (providers is None or known.provider in providers):
                return known
        digest = self._digest(as_usual)
        provider, user = self._user(name, providers)
        hashes: tuple[SecretHash, ...] = () if user is None else (user.hash,)
        if user is not None and user.hash.cost is None and user.hash.matches(password):
            # A generated one that is right waits for nobody; all who have none wait alike.
            return self._checked(True, provider, user, digest, now)
        work = partial(verify, password, hashes, self._decoys)
        id = UNKNOWN + name if user is None else name
        hashing = self._hashing.join(digest + provider.encode(), lambda: self._run(work, id, caller))
        return hashing.addCallbacks(self._checked, _of_its_own, (provider, user, digest, now))

    def _checked(self, right: bool, provider: str, user: User | None, digest: bytes, now: float) -> Principal:
        if not right or user is None:
            raise WRONG.by(CHALLENGE)
        principal = Principal(provider, user.name, user.roles)
        self._seen[digest] = Known(principal, user, now)
        if len(self._seen) > REMEMBERED:
            self._seen.popitem(last=False)
        return principal

    def _user(self, name: str, providers: Providers) -> tuple[str, User | None]:
        for provider, users in self._users.items():
            if (providers is None or provider in providers) and name in users:
                return provider, users[name]
        return "", None

    def _digest(self, value: bytes) -> bytes:
        return blake2b(value, digest_size=32, key=self._key).digest()

    def take_over(self, previous: Method) -> None:
        """Callers whose line is unchanged stay known."""
        if previous is self or not isinstance(previous, Passwords):
            return
        self._key, seen = previous._key, previous._seen
        previous._seen = OrderedDict()
        for digest, known in seen.items():
            same: object = self._users.get(known.principal.provider, {}).get(known.user.name)
            if same == known.user:
                self._seen[digest] = known


def _of_its_own(failure: Failure) -> NoReturn:
    """An error for each request: what refuses one may add fields to it."""
    error = failure.value
    assert error is not None
    raise Overloaded(error.detail, error.headers) if isinstance(error, Overloaded) else error


def _said(sent: Sequence[bytes]) -> tuple[str, str] | None:
    """Name and password in these values of ``Authorization``; ``None`` without any. Raises ``Unauthorized``."""
    if len(sent) > 1:
        raise SEVERAL.by(CHALLENGE)
    encoded = after_scheme(sent[0], b"basic") if sent else None
    if encoded is None:
        return None
    name, password = _decoded(encoded) if len(sent[0]) <= LONGEST else ("", "")
    if not name:
        raise MALFORMED.by(CHALLENGE)
    return name, password


def _as_usual(name: str, password: str) -> bytes:
    """As nearly everybody spells it: base64 leaves a choice, as does the scheme."""
    return b"Basic " + b64encode(f"{name}:{password}".encode())


def _decoded(encoded: bytes) -> tuple[str, str]:
    """Name and password; twice nothing if they are not well-formed."""
    try:
        text = b64decode(encoded, validate=True).decode()
    except ValueError:
        return "", ""
    name, colon, password = text.partition(":")
    if not colon or not text.isprintable() or len(password) > MAX_SECRET:
        return "", ""
    return name, password
