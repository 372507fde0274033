"""Families of refresh tokens as bytes, for stores outside of this process."""

from __future__ import annotations

from json import dumps

from apigw.policy.auth.strict_json import parse
from apigw.policy.oauth.refresh import Family

MAX_RECORD = 1024 * 1024
"""Bytes: more than the scopes of any client take. To read 16 MiB, which Redis may send, takes a tenth of a second."""

_NO_TIME = 2**40
"""Unix seconds beyond those of any record: the year 36812."""


def pack(family: Family) -> bytes:
    """A record. It begins with the digest of the family's current secret, 64 characters."""
    return family.digest.encode() + dumps([family.client, family.scopes, family.expires]).encode()


def unpack(record: object) -> Family | None:
    """Parse a record. None if it is not one of ``pack``."""
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
