# Compiled: see docs/decisions/compiled.md
"""Values with braces, compiled: literal bytes, and pieces that are taken from each exchange."""

from __future__ import annotations

import re
from collections.abc import Sequence
from math import isfinite
from typing import final
from urllib.parse import quote_from_bytes

from apigw import errors
from apigw.contract.exchange import Exchange
from apigw.contract.principal import reach
from apigw.policy.transform.syntax import CLAIM, PARAM, REST, Name, Parts, parse
from apigw.routing.pattern import Pattern
from apigw.wire.headers import FIELD_VALUE

_PORT = re.compile(rb":\d*\Z").search


class Piece:
    """A part of a value."""

    def text(self, exchange: Exchange) -> bytes | None:
        """What it is for this exchange; None if it is missing, such as a claim that the token does not have.

        Raises ``BadRequest`` for what no header can hold.
        """
        raise NotImplementedError


@final
class Template:
    """A compiled value. ``constant`` if it has no names."""

    def __init__(self, pieces: Sequence[Piece], constant: bytes | None) -> None:
        self._pieces = tuple(pieces)
        self._only = self._pieces[0] if len(self._pieces) == 1 else None
        self.constant = constant

    def text(self, exchange: Exchange) -> bytes | None:
        """The value for this exchange, None if a part of it is missing. Raises as ``Piece.text`` does."""
        if self._only is not None:
            return self._only.text(exchange)
        found: list[bytes] = []
        for piece in self._pieces:
            text = piece.text(exchange)
            if text is None:
                return None
            found.append(text)
        return b"".join(found)


def compiled(text: str, pattern: Pattern, encoded: bool = False) -> Template:
    """The template of a valid ``text`` on a route with this ``pattern``.

    ``encoded``: it becomes part of a URL, so what is known of the caller is percent-encoded. The parts of the request's
    own URL are as the client sent them.
    """
    return of_parts(parse(text), pattern, encoded)


def of_parts(parts: Parts, pattern: Pattern, encoded: bool = False) -> Template:
    """The template of a text that is parsed already."""
    if len(parts) == 1 and isinstance(parts[0], str):
        constant = parts[0].encode()
        return Template([_Literal(constant)], constant)
    return Template([_piece(part, pattern, encoded) for part in parts], None)


def _piece(part: str | Name, pattern: Pattern, encoded: bool) -> Piece:
    if isinstance(part, str):
        return _Literal(part.encode())
    name = part.text
    if name.startswith(PARAM):
        at, on = place(name, pattern)
        return _Rest(at) if on else _Segment(at)
    if name.startswith(CLAIM):
        claim: Piece = _Claim(name.removeprefix(CLAIM))
        return _Encoded(claim) if encoded else claim
    if name.startswith("principal."):
        principal: Piece = _Principal(("principal.id", "principal.roles").index(name))
        return _Encoded(principal) if encoded else principal
    return _PLAIN[name]()


def place(name: str, pattern: Pattern) -> tuple[int, bool]:
    """Where the parameter ``param.NAME`` is in paths that match ``pattern``: the number of its segment, from 1 on; and
    whether it goes on to the end. Raises ``KeyError`` if there is none.
    """
    wanted = name.removeprefix(PARAM)
    if wanted in pattern.names:
        parameters = [number for number, segment in enumerate(pattern.segments, 1) if segment is None]
        return parameters[pattern.names.index(wanted)], False
    if name == REST and pattern.wildcard:
        return len(pattern.segments) + 1, True
    raise KeyError(name)


@final
class _Literal(Piece):
    def __init__(self, value: bytes) -> None:
        self._value = value

    def text(self, exchange: Exchange) -> bytes | None:
        return self._value


@final
class _Segment(Piece):
    def __init__(self, at: int) -> None:
        self._at = at

    def text(self, exchange: Exchange) -> bytes | None:
        return exchange.request.path.split(b"/", self._at + 1)[self._at]


@final
class _Rest(Piece):
    def __init__(self, at: int) -> None:
        self._at = at

    def text(self, exchange: Exchange) -> bytes | None:
        return exchange.request.path.split(b"/", self._at)[self._at]


@final
class _Principal(Piece):
    """The caller's id or roles, as in its identity headers."""

    def __init__(self, at: int) -> None:
        self._at = at

    def text(self, exchange: Exchange) -> bytes | None:
        principal = exchange.principal
        return None if principal is None else principal.fields[self._at][1]


@final
class _Claim(Piece):
    """A claim, as ``reach`` finds it."""

    def __init__(self, name: str) -> None:
        self._name = name

    def text(self, exchange: Exchange) -> bytes | None:
        principal = exchange.principal
        if principal is None:
            return None
        found: object = reach(principal.claims, self._name)
        if isinstance(found, str) and found.isprintable():  # nearly always, and without a regular expression
            return found.encode().strip(b" ")
        try:
            text = shown(found)
        except UnicodeEncodeError:
            text = b"\n"
        if text is None:
            return None
        value = text.strip(b" \t")
        if FIELD_VALUE(value) is None:
            raise errors.BadRequest("A claim of the token cannot be sent to the service.")
        return value


def shown(claim: object) -> bytes | None:
    """A claim as text in UTF-8: of a text, a number, true or false; of a list of them, with commas between them.

    None for all else, and for lists whose entries contain commas. Raises ``UnicodeEncodeError``.
    """
    if isinstance(claim, str):
        return claim.encode()
    if isinstance(claim, bool):
        return b"true" if claim else b"false"
    if isinstance(claim, int):
        return str(claim).encode()
    if isinstance(claim, float):
        return repr(claim).encode() if isfinite(claim) else None
    if isinstance(claim, list):
        entries: list[bytes] = []
        for entry in claim:
            text = None if isinstance(entry, list) else shown(entry)
            if text is None or text.find(b",") >= 0:
                return None
            entries.append(text)
        return b",".join(entries)
    return None


@final
class _Encoded(Piece):
    def __init__(self, piece: Piece) -> None:
        self._piece = piece

    def text(self, exchange: Exchange) -> bytes | None:
        text = self._piece.text(exchange)
        return None if text is None else quote_from_bytes(text, "").encode()


@final
class _Address(Piece):
    def text(self, exchange: Exchange) -> bytes | None:
        return exchange.peers.client_address(exchange.request)


@final
class _Id(Piece):
    def text(self, exchange: Exchange) -> bytes | None:
        return exchange.id


@final
class _Host(Piece):
    """Without the port."""

    def text(self, exchange: Exchange) -> bytes | None:
        host = exchange.request.authority
        port = _PORT(host)
        return host if port is None else host[: port.start()]


@final
class _Path(Piece):
    def text(self, exchange: Exchange) -> bytes | None:
        return exchange.request.path


@final
class _Query(Piece):
    """Without the question mark."""

    def text(self, exchange: Exchange) -> bytes | None:
        return exchange.request.query[1:]


_PLAIN: dict[str, type[Piece]] = {
    "client.address": _Address,
    "request.id": _Id,
    "host": _Host,
    "path": _Path,
    "query": _Query,
}
