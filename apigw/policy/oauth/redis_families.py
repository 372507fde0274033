"""Families of refresh tokens in Redis: shared by all gateways, and kept over restarts."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from apigw.errors import AuthUnavailable
from apigw.policy.oauth.family_records import pack, unpack
from apigw.policy.oauth.refresh import Family
from apigw.redis.errors import RedisUnavailable
from apigw.redis.link import RedisLink, Script

VERSION = 1
"""The version of the stored format. It is part of each key, so that two versions of the gateway can share a Redis."""

# A record begins with the digest of the family's current secret, so that the server can compare it.
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
        return self._asked(self._link.call(b"SET", self._key(id), pack(family), b"PX", left)).addCallback(_nothing)

    def get(self, id: str, now: float) -> Deferred[Family | None]:
        key = self._key(id)

        def found(record: object) -> Family | None:
            if record is None:
                return None
            family = unpack(record)
            if family is None:
                log.warn("the record of a refresh token in Redis is broken: {key}", key=key.decode())
            return family if family is not None and now < family.expires else None

        return self._asked(self._link.call(b"GET", key)).addCallback(found)

    def replace(self, id: str, digest: str, family: Family, now: float) -> Deferred[bool]:
        """One script, so that of two requests with the same token only one gets the next."""
        words = (digest.encode(), pack(family), _left(family, now))
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
