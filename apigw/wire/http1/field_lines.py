# Compiled: see docs/decisions/compiled.md
"""The lines of the fields of a head, as HTTP/1.1 writes them."""

from __future__ import annotations

from typing import Final, cast

from mypy_extensions import i64

from apigw.wire.headers import Headers

_REMEMBERED: Final = 4096
_LONGEST: Final = 64  # bytes of a cached name: the cache takes 1 MiB at most


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
