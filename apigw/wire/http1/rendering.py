# Compiled: see docs/decisions/compiled.md
"""Renders the head of a request to a service."""

from __future__ import annotations

from typing import Final, cast

from apigw.wire.headers import Headers

_REMEMBERED: Final = 4096
_LONGEST: Final = 64  # bytes of a cached name: the cache takes 1 MiB at most
_WITH_BODY: Final = frozenset({b"POST", b"PUT", b"PATCH"})  # empty ones have a Content-Length too (RFC 9110 §8.6)


class _Beginnings(dict[bytes, bytes]):
    """A bounded cache: a field's name to its line up to the value. Most requests have the same few names."""

    def __missing__(self, name: bytes) -> bytes:
        beginning = b"\r\n%b: " % name
        if len(name) <= _LONGEST and len(self) < _REMEMBERED:
            self[name] = beginning
        return beginning


_beginnings: Final = _Beginnings()


def rendered(
    method: bytes, target: bytes, authority: bytes, fields: Headers, length: int | None, upgrade: bool
) -> bytes:
    """The head of a request in canonical form, with exactly one framing (RFC 9112 §3 to §6)."""
    out = [method, b" ", target, b" HTTP/1.1\r\nhost: ", authority]
    beginnings = _beginnings
    for pair in cast("list[tuple[bytes, ...]]", fields):  # when compiled, iterating over pairs would unpack each
        out.append(beginnings[pair[0]])
        out.append(pair[1])
    if length is None:
        out.append(b"\r\ntransfer-encoding: chunked")
    elif length or method in _WITH_BODY:
        out.append(b"\r\ncontent-length: %d" % length)
    if upgrade:
        out.append(b"\r\nconnection: upgrade\r\nupgrade: websocket")
    out.append(b"\r\n\r\n")
    return b"".join(out)
