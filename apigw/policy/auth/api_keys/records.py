"""The lines of a file of API keys (docs/reference/api-keys.md).

    HASH ⇥ ID ⇥ ROLES ⇥ SCOPES ⇥ EXPIRES

HASH is the SHA-256 of the key in hexadecimal digits. The lines are sorted by it, so that a key is found without reading
the file. Lines that begin with ``#`` are comments, and stand above all others.
"""

from __future__ import annotations

import os
import re
import secrets
import stat
from datetime import UTC, datetime
from hashlib import sha256

from attrs import frozen

from apigw.policy.auth.jwt.claims import is_name, is_role
from apigw.policy.auth.names import check_scope

PREFIX = "apigw_"
"""Of every key, so that scanners for secrets find keys that were published by mistake."""
MAX_LINE = 1024
"""Bytes of a line, with its end."""
HEADER = "# API keys, as HASH ID ROLES SCOPES EXPIRES, sorted by the hash. `apigw keys` changes them.\n"


_KNOWN = 10_000
_HASH = re.compile(r"[0-9a-f]{64}")
_WRITTEN = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z")
_TIME = "%Y-%m-%dT%H:%M:%SZ"


@frozen
class Record:
    """One key. ``digest`` is in hexadecimal digits; ``expires`` in Unix seconds, ``None`` for never."""

    digest: str
    id: str
    roles: tuple[str, ...] = ()
    scopes: tuple[str, ...] = ()
    expires: float | None = None


def new_key() -> str:
    """A random key of 256 bits, which nobody guesses: so a quick hash of it is enough."""
    return PREFIX + secrets.token_urlsafe(32)


def digest_of(key: bytes) -> str:
    return sha256(key).hexdigest()


def parse(line: str) -> Record:
    """The record in a line, without its end. Raises ``ValueError`` with what is wrong, and no part of the line."""
    fields = line.split("\t")
    if len(fields) != 5:
        raise ValueError("has not five fields with tabs between them")
    digest, id, roles_text, scopes_text, expires = fields
    if _HASH.fullmatch(digest) is None:
        raise ValueError("does not begin with a hash of 64 hexadecimal digits")
    if not is_name(id):
        raise ValueError("has an id that is not up to 256 printable characters without spaces at its ends")
    roles = tuple(roles_text.split(",")) if roles_text else ()
    if not all(map(is_role, roles)):
        raise ValueError("has a role that is none")
    scopes = tuple(scopes_text.split(" ")) if scopes_text else ()
    for scope in scopes:
        check_scope_of(scope)
    return Record(digest, id, roles, scopes, time_of(expires) if expires else None)


def check_scope_of(scope: str) -> None:
    try:
        check_scope(scope)
    except ValueError:
        raise ValueError("has a scope that is none (RFC 6749 §3.3)") from None


def time_of(text: str) -> float:
    """Unix seconds of ``2027-01-31T12:00:00Z``. Raises ``ValueError``."""
    try:
        if _WRITTEN.fullmatch(text):
            return datetime.fromisoformat(text).timestamp()
    except ValueError:
        pass
    raise ValueError("has a time that is not written as 2027-01-31T12:00:00Z")


def time_text(seconds: float) -> str:
    """The reverse of ``time_of``."""
    return datetime.fromtimestamp(seconds, UTC).strftime(_TIME)


def rendered(record: Record) -> str:
    """The line of a record, with its end. Raises ``ValueError`` if it is too long, or its values are none."""
    expires = "" if record.expires is None else time_text(record.expires)
    fields = (record.digest, record.id, ",".join(record.roles), " ".join(record.scopes), expires)
    line = "\t".join(fields)
    if parse(line) != record:
        raise ValueError("cannot hold a role with a comma, or a scope with a space")
    if len(line.encode()) >= MAX_LINE:
        raise ValueError(f"is longer than {MAX_LINE} bytes")
    return line + "\n"


def check_file(path: str) -> None:
    """Reads all of a file. Raises ``ValueError`` for the first line that is wrong: a fragment that follows its name."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # to open a pipe is to wait for whoever writes to it
            raise ValueError("is not a regular file")
        with open(path, "rb") as file:
            before, known = "", set[str]()
            for number, raw in enumerate(iter(lambda: file.readline(MAX_LINE + 1), b""), 1):
                before = _next(raw, before, number, known)
    except FileNotFoundError:
        raise ValueError("does not exist") from None
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from None


def _next(raw: bytes, before: str, number: int, known: set[str]) -> str:
    """The hash of a line, which comes after the one ``before``. ``known`` are ends of good lines before it."""
    try:
        if not raw.endswith(b"\n"):
            raise ValueError(f"is longer than {MAX_LINE} bytes" if len(raw) > MAX_LINE else "has no end")
        if raw.startswith(b"#"):
            if before:
                raise ValueError("is a comment below keys: comments stand above them")
            return ""
        line = raw[:-1].decode()
        digest, _, rest = line.partition("\t")
        id, _, end = rest.partition("\t")
        if end not in known or _HASH.fullmatch(digest) is None or not is_name(id):
            parse(line)
            if len(known) < _KNOWN:
                known.add(end)
        if digest <= before:
            raise ValueError("is not in order: `apigw keys sort` repairs that" if digest < before else "is there twice")
    except UnicodeDecodeError:
        raise ValueError(f"has a line {number} that is not UTF-8") from None
    except ValueError as error:
        raise ValueError(f"has a line {number} that {error}") from None
    return digest
