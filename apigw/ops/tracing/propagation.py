# Compiled: see docs/decisions/compiled.md
"""The headers that carry a trace from one program to the next: W3C Trace Context and B3.

Ids are lower-case hexadecimal digits, 32 of a trace and 16 of a span. Headers that are malformed count as none, so that
a new trace begins.
"""

from __future__ import annotations

from collections.abc import Iterable
from os import urandom
from typing import Any, Final, cast, final

from mypy_extensions import i64

Header = tuple[bytes, bytes]
Headers = list[Header]

W3C: Final = "w3c"
B3: Final = "b3"
B3_MULTI: Final = "b3_multi"
FORMATS: Final = (W3C, B3, B3_MULTI)

NAMES: Final[dict[str, tuple[bytes, ...]]] = {
    W3C: (b"traceparent", b"tracestate"),
    B3: (b"b3", b"x-b3-traceid", b"x-b3-spanid", b"x-b3-parentspanid", b"x-b3-sampled", b"x-b3-flags"),
    B3_MULTI: (b"b3", b"x-b3-traceid", b"x-b3-spanid", b"x-b3-parentspanid", b"x-b3-sampled", b"x-b3-flags"),
}
"""The headers of each format."""

REQUEST_ID: Final = b"x-request-id"
MOST_STATE: Final = 512
"""Bytes of ``tracestate`` that are passed on; the standard wants at least so many (Trace Context §3.3.1.5)."""

UNDECIDED: Final = -1
_HEX: Final = b"0123456789abcdef"
_NO_TRACE: Final = b"0" * 32
_NO_SPAN: Final = b"0" * 16
_SAMPLED: Final = {b"1": 1, b"true": 1, b"d": 1, b"0": 0, b"false": 0}
"""Values of B3. ``d`` is debug: sampled, too."""


@final
class Parent:
    """What the headers of a request say of its trace.

    ``trace_id`` and ``span_id`` are empty where they say only whether it is ``sampled``: 1, 0, or ``UNDECIDED``.
    ``state`` is the ``tracestate``.
    """

    def __init__(self, trace_id: bytes, span_id: bytes, sampled: int, state: bytes = b"") -> None:
        self.trace_id = trace_id
        self.span_id = span_id
        self.sampled = sampled
        self.state = state


@final
class Propagation:
    """Reads and writes the formats ``wanted``. Of several, the first one counts that a request has well-formed."""

    def __init__(self, wanted: Iterable[str]) -> None:
        self._wanted = tuple(wanted)
        self.names = frozenset(name for each in self._wanted for name in NAMES[each])
        """In lower case."""
        self._looked_for = self.names - {b"tracestate"} | {REQUEST_ID}
        self._sizes: i64 = 0
        for name in self._looked_for:
            self._sizes |= 1 << len(name)
        self._w3c = W3C in self._wanted
        self._b3 = B3 in self._wanted
        self._b3_multi = B3_MULTI in self._wanted
        self._w3c_alone = self._wanted == (W3C,)
        self.nobody = urandom(8).hex().encode("ascii")
        """The digits of a span that nobody records."""
        self._random = self._digits = b""
        self._at = 0

    def new_spans(self) -> tuple[bytes, bytes]:
        """The seven random bytes that the ids of the spans of one exchange have in common, and their digits. 256 are
        made at once."""
        at = self._at
        if at == len(self._random):
            self._random = urandom(7 * 256)
            self._digits = self._random.hex().encode("ascii")
            at = 0
        self._at = end = at + 7
        return self._random[at:end], self._digits[2 * at : 2 * end]

    def concerns(self, headers: Headers) -> bool:
        """Whether there is a header of a trace, or a request id: most requests have neither."""
        names, sizes = self._looked_for, self._sizes
        for header in cast("list[tuple[bytes, ...]]", headers):
            name = header[0]
            size: i64 = len(name)
            if size < 24 and (sizes >> size) & 1 and name in names:
                return True
        return False

    def parent(self, headers: Headers) -> Parent | None:
        """What the ``headers`` say, or None if they say nothing, or nothing that can be understood."""
        found: dict[bytes, bytes] = {}
        for name, value in headers:
            if name in self.names:
                before = found.get(name)
                # Given twice, a header is malformed, but for a list that may go on (Trace Context §3.3.1.1).
                found[name] = value if before is None else before + b"," + value if name == b"tracestate" else b""
        if found:
            for wanted in self._wanted:
                parent = _w3c(found) if wanted == W3C else _b3(found)
                if parent is not None:
                    return parent
        return None

    def fields(self, trace_id: bytes, span: bytes, number: bytes, sampled: bool, state: bytes) -> tuple[Header, ...]:
        """The headers for a service that is called by the span with the id ``span`` and ``number``. The parent of that
        has the number 00; it is not told where there is no ``number``."""
        parent: Any = None
        if self._w3c:
            parent = (b"traceparent", b"00-%b-%b%b%b" % (trace_id, span, number, b"-01" if sampled else b"-00"))
            if self._w3c_alone and not state:
                return (parent,)
        out: list[Any] = []  # of pairs: typed, each would be taken apart and made anew
        if parent is not None:
            out.append(parent)
            if state:
                out.append((b"tracestate", state))
        if self._b3:
            value = b"%b-%b%b%b" % (trace_id, span, number, b"-1" if sampled else b"-0")
            out.append((b"b3", b"%b-%b00" % (value, span) if number else value))
        if self._b3_multi:
            out += ((b"x-b3-traceid", trace_id), (b"x-b3-spanid", span + number))
            if number:
                out.append((b"x-b3-parentspanid", span + b"00"))
            out.append((b"x-b3-sampled", b"1" if sampled else b"0"))
        return tuple(out)


def _is_hex(text: bytes, size: int, none: bytes) -> bool:
    return len(text) == size and not text.translate(None, _HEX) and text != none


def _w3c(found: dict[bytes, bytes]) -> Parent | None:
    """Trace Context §3.2. A version that is not known is read as far as version 00 goes."""
    parts = found.get(b"traceparent", b"").split(b"-", 4)
    if len(parts) < 4 or not _is_hex(parts[0], 2, b"ff") or (parts[0] == b"00" and len(parts) > 4):
        return None
    if not (_is_hex(parts[1], 32, _NO_TRACE) and _is_hex(parts[2], 16, _NO_SPAN) and _is_hex(parts[3], 2, b"")):
        return None
    state = found.get(b"tracestate", b"")
    return Parent(parts[1], parts[2], int(parts[3], 16) & 1, state if len(state) <= MOST_STATE else b"")


def _b3(found: dict[bytes, bytes]) -> Parent | None:
    """The single header counts before the others, as the specification of B3 says."""
    single = found.get(b"b3")
    if single is not None:
        parts = single.lower().split(b"-")
        if len(parts) == 1:
            return Parent(b"", b"", _SAMPLED[parts[0]]) if parts[0] in _SAMPLED else None
        if len(parts) > 4 or (len(parts) > 2 and parts[2] not in _SAMPLED):
            return None
        return _b3_ids(parts[0], parts[1], _SAMPLED[parts[2]] if len(parts) > 2 else UNDECIDED)
    sampled = _SAMPLED.get(found.get(b"x-b3-sampled", b"").lower(), UNDECIDED)
    if found.get(b"x-b3-flags") == b"1":
        sampled = 1
    trace_id = found.get(b"x-b3-traceid", b"").lower()
    if not trace_id:
        return None if sampled == UNDECIDED else Parent(b"", b"", sampled)
    return _b3_ids(trace_id, found.get(b"x-b3-spanid", b"").lower(), sampled)


def _b3_ids(trace_id: bytes, span_id: bytes, sampled: int) -> Parent | None:
    """Ids of traces may have half the length: then they begin with zeros."""
    if len(trace_id) == 16:
        trace_id = b"0" * 16 + trace_id
    if _is_hex(trace_id, 32, _NO_TRACE) and _is_hex(span_id, 16, _NO_SPAN):
        return Parent(trace_id, span_id, sampled)
    return None
