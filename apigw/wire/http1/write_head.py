# Compiled: see docs/decisions/compiled.md
"""How HTTP/1.1 writes heads: that of a request to a service, and the fields of all."""

from __future__ import annotations

from typing import Final, cast

from mypy_extensions import i64

from apigw.wire.headers import Headers

_REMEMBERED: Final = 4096
_LONGEST: Final = 64  # bytes of a cached name: the cache takes 1 MiB at most
_WITH_BODY: Final = frozenset({b"POST", b"PUT", b"PATCH"})  # empty ones have a Content-Length too (RFC 9110 §8.6)


class _Beginnings(dict[bytes, bytes]):
    """A bounded cache: a field's name to its line up to the value. Most messages have the same few names."""

    def __missing__(self, name: bytes) -> bytes:
        beginning = b"\r\n%b: " % name
        if len(name) <= _LONGEST and len(self) < _REMEMBERED:
            self[name] = beginning
        return beginning


_beginnings: Final = _Beginnings()


def add_lines(out: list[bytes], fields: Headers) -> None:
    """Add the lines of ``fields`` to what is joined later. Each begins with the end of the line before it."""
    beginnings = _beginnings
    pairs = cast("list[tuple[bytes, ...]]", fields)  # when compiled, iterating over pairs would unpack each
    size: i64 = len(pairs)
    at: i64 = 0
    while size - at >= 4:  # so many in one go: to join their parts would take twice as long as to format them
        a, b, c, d = pairs[at], pairs[at + 1], pairs[at + 2], pairs[at + 3]
        of_a, of_b, of_c, of_d = beginnings[a[0]], beginnings[b[0]], beginnings[c[0]], beginnings[d[0]]
        out.append(b"%b%b%b%b%b%b%b%b" % (of_a, a[1], of_b, b[1], of_c, c[1], of_d, d[1]))
        at += 4
    while at < size:
        out.append(b"%b%b" % (beginnings[pairs[at][0]], pairs[at][1]))
        at += 1


def request_head(
    method: bytes, target: bytes, authority: bytes, fields: Headers, length: int | None, upgrade: bool
) -> bytes:
    """The head of a request in canonical form, with exactly one framing (RFC 9112 §3 to §6)."""
    out = [b"%b %b HTTP/1.1\r\nhost: %b" % (method, target, authority)]
    add_lines(out, fields)
    if length is None:
        out.append(b"\r\ntransfer-encoding: chunked")
    elif length or method in _WITH_BODY:
        out.append(b"\r\ncontent-length: %d" % length)
    if upgrade:
        out.append(b"\r\nconnection: upgrade\r\nupgrade: websocket")
    out.append(b"\r\n\r\n")
    return b"".join(out)
