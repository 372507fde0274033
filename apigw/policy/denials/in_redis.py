"""Denials in Redis: those of all gateways that share it."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from os import urandom
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger

from apigw.policy.denials.denial import MOST, Denial, unpacked
from apigw.redis.link import RedisLink, Script

VERSION = 1
"""Of the stored format. It is part of each key, so that two versions of the gateway can share a Redis."""

# A hash of all denials, and beside it a mark that is another after each change, so that a poll reads one word. The mark
# outlives the hash: where it is missing though denials should hold, Redis has lost its data.
_ADD = Script(
    b"""if redis.call("HEXISTS", KEYS[1], ARGV[2]) == 0 and redis.call("HLEN", KEYS[1]) >= tonumber(ARGV[5]) then
return 0 end
redis.call("HSET", KEYS[1], ARGV[2], ARGV[3])
if redis.call("PTTL", KEYS[1]) < tonumber(ARGV[4]) then redis.call("PEXPIRE", KEYS[1], ARGV[4]) end
local left = math.max(redis.call("PTTL", KEYS[1]), redis.call("PTTL", KEYS[2])) + 60000
redis.call("SET", KEYS[2], ARGV[1], "PX", left)
return 1
"""
)
_REMOVE = Script(
    b"""for at = 3, #ARGV do redis.call("HDEL", KEYS[1], ARGV[at]) end
local left = math.max(redis.call("PTTL", KEYS[1]), redis.call("PTTL", KEYS[2]), tonumber(ARGV[2])) + 60000
redis.call("SET", KEYS[2], ARGV[1], "PX", left)
return 1
"""
)
# Of denials that a gateway takes for over, those that have been for a minute: no wrong clock of a gateway removes one.
_FORGET = Script(
    b"""local now = redis.call("TIME")[1]
for _, name in ipairs(ARGV) do
local record = redis.call("HGET", KEYS[1], name)
if record and cjson.decode(record)["until"] < now - 60 then redis.call("HDEL", KEYS[1], name) end
end
"""
)

log = Logger()


class InRedis:
    """Every answer fails with ``RedisUnavailable`` when Redis does not give one in time."""

    def __init__(self, link: RedisLink) -> None:
        name = f"{link.prefix}:denials:{VERSION}".encode()
        self._keys = [name, name + b":mark"]
        self._link = link

    def mark(self) -> Deferred[bytes | None]:
        """Another one after each change; None where there is nothing."""
        return self._link.call(b"GET", self._keys[1])

    def all(self, now: float) -> Deferred[Mapping[bytes, Denial]]:
        """Those that are not over. Others are removed, so that they take no room."""
        return self._link.call(b"HGETALL", self._keys[0]).addCallback(_read).addCallback(self._holding, now)

    def _holding(self, found: Mapping[bytes, Denial], now: float) -> Mapping[bytes, Denial]:
        over = [name for name, each in found.items() if each.until <= now]
        if over:
            self._link.evaluate(_FORGET, self._keys[:1], *over).addErrback(lambda _: None)  # the next look does it
        return dict(islice(((name, each) for name, each in found.items() if each.until > now), MOST))

    def add(self, denial: Denial, now: float) -> Deferred[bool]:
        """Whether there was room for it."""
        left = b"%d" % max(1, int((denial.until - now) * 1000))
        words = (_mark(), denial.name, denial.packed(), left, b"%d" % MOST)
        return self._link.evaluate(_ADD, self._keys, *words).addCallback(bool)

    def remove(self, denials: Mapping[bytes, Denial], now: float) -> Deferred[Any]:
        """Remove those of these names. For as long as they would have held, the mark says that they were removed."""
        if not denials:
            return succeed(None)
        until = max(each.until for each in denials.values())
        left = b"%d" % max(1, int((until - now) * 1000))
        return self._link.evaluate(_REMOVE, self._keys, _mark(), left, *denials)


def _mark() -> bytes:
    return urandom(12).hex().encode("ascii")


def _read(reply: Any) -> Mapping[bytes, Denial]:
    """What cannot be read is left out, and told: another denial is as good as it was."""
    found: dict[bytes, Denial] = {}
    words = reply if isinstance(reply, list) else []
    for name, record in zip(words[::2], words[1::2], strict=False):
        denial = unpacked(record) if isinstance(record, bytes) else None
        if denial is None or denial.name != name:
            log.warn("a denial in Redis is broken: {name}", name=repr(name)[:100])
        else:
            found[denial.name] = denial
    return found
