# Compiled: see docs/decisions/compiled.md
"""The fields of a request or an answer, as a policy that a user wrote reads and writes them (``contract.view``).

What is written is checked as the wire would check it. What was judged once is remembered.
"""

from __future__ import annotations

from collections.abc import Set
from typing import Any, Final, cast, final

from apigw.contract.exchange import NOTHING, Exchange, Head
from apigw.contract.principal import IDENTITY
from apigw.wire.headers import FIELD_VALUE, FOLDED, HOP_BY_HOP, SECRET, TOKEN, Headers

UNTOUCHED: Final = HOP_BY_HOP | {b"content-length", b"expect", b"x-request-id"}
"""Fields of the connection and of framing, and those that the gateway writes from what it has parsed."""
_MOST_NAMES: Final = 64
"""Names that are remembered for one plugin. Those in its code are fewer; others may come from clients."""

_MOST_VALUES: Final = 256
_LONGEST: Final = 64
"""Values that are remembered for one name, and their characters: most plugins set few, again and again."""

PLAIN: Final = 0
OWNED: Final = 1
"""Names that only a plugin may set: what a client sends of them is not shown."""
CALLER: Final = 2
"""Identity headers: they are the gateway's, whatever a client sends."""
ORIGIN: Final = 3
"""What trusted proxies say of the client."""


@final
class Name:
    """The name of a field. ``refused`` says why requests may not have it written, ``of_answer`` why answers may not."""

    def __init__(self, key: bytes, kind: int, refused: str, of_answer: str) -> None:
        self.key = key
        self.kind = kind
        self.refused = refused
        self.of_answer = of_answer
        self.is_ours = kind == ORIGIN or key == b"via"
        """Whether the gateway itself writes it, unless it is withheld."""
        self._most = 0 if SECRET(key) else _MOST_VALUES
        self._known: dict[str, Any] = {}
        self._last = ""
        self._last_field: Any = ((key, b""),)
        self._before: Set[bytes] = NOTHING
        self._after: Set[bytes] = frozenset({key})

    def field(self, value: object) -> Any:
        """The field with this value: a pair, in a tuple that ``Exchange.sent`` may be. Raises as ``value_of``."""
        if value is self._last:  # the same text, as where it is in the plugin's code
            return self._last_field
        if not isinstance(value, str):
            return ((self.key, value_of(value)),)
        known = self._known.get(value)
        if known is None:
            return self._judge(value)
        self._last, self._last_field = value, known
        return known

    def with_others(self, names: Set[bytes]) -> Set[bytes]:
        """``names``, and this one. It is the same object as long as ``names`` are, which are so for most requests."""
        if names is not self._before:
            self._before, self._after = names, names if self.key in names else names | {self.key}
        return self._after

    def _judge(self, value: str) -> Any:
        field: Any = ((self.key, value_of(value)),)
        if len(self._known) < self._most and len(value) <= _LONGEST:
            self._known[value] = field
        return field


@final
class Names:
    """Judges names. ``owned`` are those that only a plugin may set, of all plugins, folded (``wire.headers.FOLDED``);
    ``mine`` those of them that this one may."""

    def __init__(self, owned: frozenset[bytes], mine: frozenset[bytes]) -> None:
        self._owned = owned
        self._mine = mine
        self._known: dict[str, Name] = {}
        self._last = ""
        self._last_name: Name | None = None

    def of(self, text: str) -> Name:
        """Raises ``ValueError`` for what is no name, and ``TypeError`` for what is no text."""
        last = self._last_name
        if last is not None and text is self._last:  # most plugins have one
            return last
        known = self._known.get(text)
        if known is None:
            return self._judge(text)
        self._last, self._last_name = text, known
        return known

    def kind(self, key: bytes) -> int:
        folded = key.translate(FOLDED)
        if folded in self._owned:
            return OWNED
        if folded in IDENTITY:
            return CALLER
        if folded.startswith(b"x-forwarded-") or folded == b"forwarded" or folded == b"x-real-ip":
            return ORIGIN
        return PLAIN

    def _judge(self, text: str) -> Name:
        if not isinstance(text, str):
            raise TypeError(f"the name of a header is text, not {type(text).__name__}")
        key = text.lower().encode("utf-8", "surrogateescape")
        if TOKEN(key) is None:
            raise ValueError(f"{text!r} is not the name of a header")
        folded = key.translate(FOLDED)
        of_answer = f"{text} is written by the gateway itself" if folded in UNTOUCHED else ""
        refused = of_answer
        if folded == b"host":
            refused = "Host is written by view.rewrite(host=…)"
        elif folded in IDENTITY:
            refused = f"{text} says who calls: the gateway itself writes it"
        elif folded in self._owned and folded not in self._mine:
            refused = f"{text} is among the own_headers of another plugin"
        name = Name(key, self.kind(key), refused, of_answer)
        if len(self._known) < _MOST_NAMES:
            self._known[text] = name
        return name


def value_of(value: object) -> bytes:
    """A field's value. Raises ``ValueError`` for what no field can hold, ``TypeError`` for what is no text."""
    if isinstance(value, str):
        data = value.encode("utf-8", "surrogateescape")
    elif isinstance(value, bytes):
        data = value
    else:
        raise TypeError(f"the value of a header is text or bytes, not {type(value).__name__}")
    if FIELD_VALUE(data) is None:
        raise ValueError("the value of a header has a control character, or a space at an end")
    return data


def text_of(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def checked(names: Names, headers: object) -> Headers:
    """The fields of an answer, from a map or pairs of names and values. Raises as ``value_of`` does."""
    pairs: Any = headers.items() if hasattr(headers, "items") else headers
    out: Headers = []
    for given, value in pairs:
        name = names.of(given)
        if name.of_answer:
            raise ValueError(name.of_answer)
        out.append((name.key, value_of(value)))
    return out


def without(headers: Headers, key: bytes) -> Headers:
    """``headers`` themselves where none is of that name; else a new list."""
    pairs = cast("list[tuple[bytes, ...]]", headers)  # compiled, a pair would be taken apart and made anew
    for pair in pairs:
        if pair[0] == key:
            return cast(Headers, [each for each in pairs if each[0] != key])
    return headers


def seen_of(exchange: Exchange, names: Names) -> Headers:
    """The request's fields that a plugin may see, with what plugins have set."""
    out = [header for header in exchange.request.headers if shown(exchange, names.kind(header[0]))]
    if exchange.principal is not None:
        out += exchange.principal.fields
    if exchange.withheld:
        out = [header for header in out if header[0] not in exchange.withheld]
    return [*out, *exchange.sent]


def shown(exchange: Exchange, kind: int) -> bool:
    """Whether a plugin may see what a client has sent of a field of this kind: not what could be forged."""
    if kind == PLAIN:
        return True
    return kind == ORIGIN and exchange.peers.some and exchange.peers.trusts(exchange.request.stream.peer)


def values_in(exchange: Exchange, name: Name) -> list[bytes]:
    """The values of the request's fields of this name, of which a plugin may see."""
    key = name.key
    found: list[bytes] = []
    if key in exchange.withheld:
        pass  # the service gets what is ``sent``, as of an external check
    elif name.kind == CALLER:
        principal = exchange.principal
        if principal is not None:
            found = [value for each, value in principal.fields if each == key]
    elif shown(exchange, name.kind):
        found = [value for each, value in exchange.request.headers if each == key]
    if exchange.sent:
        found += [value for each, value in exchange.sent if each == key]
    return found


def write(exchange: Exchange, name: Name, value: object, late: bool, replace: bool) -> None:
    """Write a field of the request: for the service alone if ``late``, else as if the client had sent it.

    One that belongs to plugins reaches the service in any case; from clients it is taken (``Part.stripped``).
    Raises as ``value_of``.
    """
    key = name.key
    field: tuple[Any, ...] = name.field(value)
    if not late:
        request = exchange.request
        request.headers = [*(without(request.headers, key) if replace else request.headers), *field]
        if name.kind != OWNED:
            return
    elif replace:
        exchange.withheld = name.with_others(exchange.withheld)
    if not exchange.sent:
        exchange.sent = field
    else:
        sent: tuple[Any, ...] = tuple(exchange.sent)
        exchange.sent = (_others(sent, key) if replace else sent) + field  # unpacked, it is a list first


def _others(sent: tuple[Any, ...], key: bytes) -> tuple[Any, ...]:
    """The fields of ``sent`` that have another name."""
    pairs = cast("tuple[tuple[bytes, ...], ...]", sent)
    for pair in pairs:
        if pair[0] == key:
            return tuple([each for each in pairs if each[0] != key])
    return pairs


def erase(exchange: Exchange, name: Name) -> None:
    """Remove the fields of this name from the request."""
    key = name.key
    exchange.request.headers = without(exchange.request.headers, key)
    exchange.sent = _others(tuple(exchange.sent), key)
    if name.is_ours:
        exchange.withheld = exchange.withheld | {key}


def write_head(head: Head, name: Name, value: object, replace: bool) -> None:
    """Write a field of an answer. Raises as ``value_of``."""
    field: tuple[Any, ...] = name.field(value)
    head.headers = [*(without(head.headers, name.key) if replace else head.headers), *field]
