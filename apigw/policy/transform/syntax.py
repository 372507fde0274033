"""The syntax of values with braces, such as ``/v2/orders/{param.id}``, and the checks of where they may stand.

``{{`` and ``}}`` are braces. The checks raise ``ValueError`` with a sentence fragment that follows the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from attrs import frozen

from apigw.config.forms import request_path
from apigw.config.nearest import hint
from apigw.wire.errors import Refused
from apigw.wire.headers import FIELD_VALUE
from apigw.wire.target import check_authority, check_target

PLAIN = ("client.address", "host", "path", "principal.id", "principal.roles", "query", "request.id")
PARAM, CLAIM = "param.", "claims."
REST = "param.rest"
OF_CALLER = ("principal.", CLAIM)
"""How the names begin of what is known of an authenticated caller."""

_NGINXS = {
    **dict.fromkeys(("host", "http_host"), "host"),
    **dict.fromkeys(("request_uri", "uri"), "path"),
    **dict.fromkeys(("args", "query_string"), "query"),
    "remote_addr": "client.address",
    "request_id": "request.id",
}
"""Variables of nginx, and what they are called here."""
_BRACES = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_PARAMETER = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_HOST = re.compile(r"[A-Za-z0-9.-]+(?::[0-9]{1,5})?|\[[0-9A-Fa-f:.]+\](?::[0-9]{1,5})?")
_SAMPLES = {"host": "host.test", "path": "/path", "client.address": "192.0.2.1"}


@frozen
class Name:
    """What stands in braces."""

    text: str


Parts = tuple[str | Name, ...]


def parse(text: str) -> Parts:
    """The literal texts, unescaped, and the names between them. Raises ``ValueError``."""
    parts: list[str | Name] = []
    literal, at = "", 0
    for found in _BRACES.finditer(text):
        literal += text[at : found.start()]
        at = found.end()
        if found[0] in ("{{", "}}"):
            literal += found[0][0]
        elif found[0] == "{":
            raise ValueError("has a { that is not closed: write {{ for a brace")
        elif found[0] == "}":
            raise ValueError("has a } that closes nothing: write }} for a brace")
        else:
            _check_name(found[1])
            parts += [literal, Name(found[1])] if literal else [Name(found[1])]
            literal = ""
    literal += text[at:]
    return (*parts, literal) if literal or not parts else tuple(parts)


def names(text: str) -> Iterator[str]:
    """The names in the braces of a valid text."""
    return (part.text for part in parse(text) if isinstance(part, Name))


def of_caller(text: str) -> bool:
    """Whether a part of the value is known of authenticated callers only."""
    return any(name.startswith(OF_CALLER) for name in names(text))


def _check_name(name: str) -> None:
    if name in PLAIN:
        return
    if name.startswith(PARAM):
        if _PARAMETER.fullmatch(name.removeprefix(PARAM)):
            return
    elif name.startswith(CLAIM):
        path = name.removeprefix(CLAIM)
        if path.isprintable() and all(path.split(".")):
            return
        raise ValueError(f"has {{{name}}}, which has an empty name between its dots")
    below = name.partition(".")[2] or "NAME"
    near = hint(name, [*PLAIN, REST, PARAM + below, CLAIM + below])
    raise ValueError(f"has {{{name}}}, which names nothing{near}")


def nginxs(text: str, also: str = "(?!)") -> None:
    """Raises ``ValueError`` for a variable of nginx, which would be sent as it is. ``also`` are further names."""
    found = re.search(rf"\$({'|'.join(_NGINXS)}|{also})(?![A-Za-z0-9_])", text)
    if found is not None:
        raise ValueError(f"has {found[0]}, as in nginx: write {{{_NGINXS.get(found[1], 'param.NAME')}}}")


def header_value(text: str) -> None:
    """The value of a header."""
    nginxs(text)
    for part in parse(text):
        if isinstance(part, str) and FIELD_VALUE(part.strip(" \t").encode()) is None:
            raise ValueError("cannot be sent in a header")


def path(text: str) -> None:
    """A path, perhaps with a query, to which a request is rewritten."""
    nginxs(text, "[0-9]")
    example = sample(parse(text))
    if not example.startswith("/"):
        raise ValueError("does not begin with / or {path}")
    request_path(example)
    try:
        check_target(example.encode())
    except Refused as refused:
        raise ValueError(f"would be refused: {refused.reason}") from None


def host(text: str) -> None:
    """A host, perhaps with a port, that a service is asked for."""
    nginxs(text)
    if _HOST.fullmatch(sample(parse(text))) is None:
        raise ValueError("is not a host, or a host and a port")


def authority(value: bytes) -> bool:
    """Whether what came of the braces is a host, perhaps with a port."""
    try:
        check_authority(value)
    except Refused:
        return False
    return _HOST.fullmatch(value.decode("latin-1")) is not None


def sample(parts: Iterable[str | Name]) -> str:
    """An example of what the braces may become."""
    return "".join(part if isinstance(part, str) else _SAMPLES.get(part.text, "x") for part in parts)
