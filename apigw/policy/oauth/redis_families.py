"""Families of refresh tokens in Redis: shared by all gateways, and kept over restarts."""

from __future__ import annotations

from json import dumps
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from apigw.errors import AuthUnavailable
from apigw.policy.auth.strict_json import parse
from apigw.policy.oauth.refresh import Family
from apigw.redis.errors import RedisUnavailable
from apigw.redis.link import RedisLink, Script

VERSION = 1
"""The version of the stored format. It is part of each key, so that two versions of the gateway can share a Redis."""

MAX_RECORD = 1024 * 1024
"""Bytes: more than the scopes of any client take. To read 16 MiB, which Redis may send, takes a tenth of a second."""

_NO_TIME = 2**40
"""Unix seconds beyond those of any record: the year 36812."""

# A record begins with the digest of the family's current secret, 64 characters, so that the server can compare it.
_REPLACE = Script(
    b"""local record = redis.call("GET", KEYS[1])
if not record or string.sub(record, 1, 64) ~= ARGV[1] then return 0 end
redis.call("SET", KEYS[1], ARGV[2], "PX", ARGV[3])
return 1
"""
)


log = Logger()


class RedisFamilies:
    """A ``FamilyStore`` on ``link``, which is shared; the caller starts and stops it.

    Keys begin with its prefix and expire with their family. What is stored is a digest, never a token. Every answer
    fails with ``AuthUnavailable`` when Redis does not give one in time.
    """

    def __init__(self, link: RedisLink) -> None:
        self._prefix = f"{link.prefix}:refresh:{VERSION}:".encode()
        self._link = link

    def put(self, id: str, family: Family, now: float) -> Deferred[None]:
        left = _left(family, now)
        return self._asked(self._link.call(b"SET", self._key(id), _record(family), b"PX", left)).addCallback(_nothing)

    def get(self, id: str, now: float) -> Deferred[Family | None]:
        key = self._key(id)

        def found(record: object) -> Family | None:
            if record is None:
                return None
            family = _family(record)
            if family is None:
                log.warn("the record of a refresh token in Redis is broken: {key}", key=key.decode())
            return family if family is not None and now < family.expires else None

        return self._asked(self._link.call(b"GET", key)).addCallback(found)

    def replace(self, id: str, digest: str, family: Family, now: float) -> Deferred[bool]:
        """One script, so that of two requests with the same token only one gets the next."""
        words = (digest.encode(), _record(family), _left(family, now))
        return self._asked(self._link.evaluate(_REPLACE, [self._key(id)], *words)).addCallback(bool)

    def remove(self, id: str) -> Deferred[None]:
        return self._asked(self._link.call(b"DEL", self._key(id))).addCallback(_nothing)

    def _key(self, id: str) -> bytes:
        return self._prefix + id.encode()

    def _asked(self, answer: Deferred[Any]) -> Deferred[Any]:
        return answer.addErrback(_unavailable)


def _unavailable(failure: Failure) -> None:
    failure.trap(RedisUnavailable)
    raise AuthUnavailable("Refresh tokens are unavailable at present.", [(b"retry-after", b"1")]) from None


def _nothing(_: object) -> None:
    return None


def _left(family: Family, now: float) -> bytes:
    """Milliseconds until a family expires: at least one, the minimum of Redis."""
    return b"%d" % max(1, int((family.expires - now) * 1000))


def _record(family: Family) -> bytes:
    return family.digest.encode() + dumps([family.client, family.scopes, family.expires]).encode()


def _family(record: object) -> Family | None:
    """Parse a record. None if it is not one of ``_record``."""
    if not isinstance(record, bytes) or len(record) > MAX_RECORD:
        return None
    try:
        digest = record[:64].decode("ascii")
        client, scopes, expires = parse(record[64:])
    except (TypeError, ValueError):
        return None
    if not isinstance(client, str) or not isinstance(scopes, list) or not isinstance(expires, int | float):
        return None
    if not all(isinstance(scope, str) for scope in scopes) or not 0 <= expires < _NO_TIME:
        return None
    return Family(client, tuple(scopes), digest, expires)
