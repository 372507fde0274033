"""Families of refresh tokens in the shared page: of all workers of this machine."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from twisted.internet.defer import Deferred, fail, succeed

from apigw.errors import AuthUnavailable
from apigw.policy.oauth.family_records import pack, unpack
from apigw.policy.oauth.refresh import Family
from apigw.shared.records import Busy, Records

T = TypeVar("T")


class PageFamilies:
    """A ``FamilyStore``. When there is no more room, the client with the most families loses one that it has not used
    for long, as in one process.

    An answer fails with ``AuthUnavailable`` where the lock is not to be had, because a worker hangs that has it.
    """

    def __init__(self, records: Records) -> None:
        self._records = records

    def put(self, id: str, family: Family, now: float) -> Deferred[None]:
        return _answer(lambda: self._records.put(id.encode(), *_stored(family, now)))

    def get(self, id: str, now: float) -> Deferred[Family | None]:
        return _answer(lambda: unpack(self._records.get(id.encode(), _microseconds(now))))

    def replace(self, id: str, digest: str, family: Family, now: float) -> Deferred[bool]:
        return _answer(lambda: self._records.replace(id.encode(), digest.encode(), *_stored(family, now)))

    def remove(self, id: str) -> Deferred[None]:
        return _answer(lambda: self._records.remove(id.encode()))


def _stored(family: Family, now: float) -> tuple[bytes, bytes, int, int]:
    """Owner, record, and the times of a family, in microseconds of Unix time."""
    owner = b"client " + family.client.encode("utf-8", "surrogatepass")
    return owner, pack(family), _microseconds(family.expires), _microseconds(now)


def _microseconds(seconds: float) -> int:
    return int(seconds * 1_000_000)


def _answer(ask: Callable[[], T]) -> Deferred[T]:
    try:
        return succeed(ask())
    except Busy:
        return fail(AuthUnavailable("Refresh tokens are unavailable at present.", [(b"retry-after", b"1")]))
