# Compiled: see docs/decisions/compiled.md
"""One exchange as one line: JSON, or the Combined Log Format of Apache and nginx with more at its end.

Log injection is prevented: what is not printable ASCII is escaped as ``\\xHH``, as in nginx, so that no request can end
a line, leave its quotes, or send a control sequence to a terminal. Values of secrets in queries are shown as ``***``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from time import gmtime, strftime
from typing import Protocol
from urllib.parse import unquote_to_bytes

import orjson

MAX_TARGET = 4096
"""Bytes of a request's target that are logged."""

MAX_FIELD = 1024
"""Bytes of a referer or a user agent that are logged."""

MAX_PAIRS = 256
"""A query with more pairs of names and values is not logged."""

LONGEST_NAME = 64
"""Bytes of a name of which is remembered whether it is one of a secret."""

ENDINGS = (
    b"token", b"secret", b"key", b"signature", b"credential", b"credentials", b"password", b"passwd", b"passphrase",
    b"pwd", b"jwt", b"assertion", b"session", b"sessionid", b"verifier", b"auth_code", b"authorization_code",
    b"token_hint", b"bearer", b"nonce", b"sessid", b"device_code", b"user_code",
)  # fmt: skip
"""Endings of names of secret query values: ``access_token``, ``X-Amz-Signature``, ``user[password]``."""

WORDS = frozenset(
    {
        b"code",
        b"state",
        b"sig",
        b"auth",
        b"authorization",
        b"sid",
        b"otp",
        b"pin",
        b"pass",
        b"refresh",
        b"ticket",
        b"samlart",
        b"samlresponse",
    }
)
"""Whole names of secret query values."""

_SESSION = re.compile(rb"(?i)(;[a-z_]*sess(?:ion)?id=)[^;/]*")
"""What servers of Java write into paths for clients without cookies: ``;jsessionid=``."""
_USER = re.compile(rb"(?i)^([a-z][a-z0-9+.-]*://)?[^/?#]*@")
_LIKE_URL = re.compile(rb"(?i)[?#@]|%(?:25)*(?:3f|23|26|40)").search
"""Whether a value may be a URL with a query, a fragment or a user, perhaps encoded."""
_INNER_NAMES = re.compile(rb"[?#&;]([^?#&;=]+)=").findall
_INNER_USER = re.compile(rb"//[^/?#:]*:[^/?#]*@").search
_BACKSLASH, _DELETE = 0x5C, 0x7F
_MILLISECONDS = [f".{number:03d}Z" for number in range(1000)]
_HEX = {code: f"\\x{code:02X}" for code in (*range(0x20), *range(0x7F, 0x100), ord('"'), ord("\\"))}


def _is_secret(name: bytes) -> bool:
    return _known(name) if len(name) <= LONGEST_NAME else _judged(name)


def _judged(name: bytes) -> bool:
    plain = unquote_to_bytes(name.replace(b"+", b" ")).rstrip(b" []").rpartition(b"[")[2].strip().lower()
    return plain.endswith(ENDINGS) or plain in WORDS


_known = lru_cache(maxsize=512)(_judged)


def without_secrets(target: bytes) -> bytes:
    """A target or URL with the values of secrets in its query, ids of sessions in its path, and a user before its
    host replaced by ``***``."""
    if not target.startswith(b"/") and target.find(b"@") >= 0:
        target = _USER.sub(rb"\1***@", target)
    path, mark, query = target.partition(b"?")
    if path.find(b";") >= 0:
        path = _SESSION.sub(rb"\1***", path)
        target = path + mark + query
    if not mark:
        return target
    if len(query) > MAX_PAIRS and query.count(b"&") + query.count(b";") > MAX_PAIRS:
        return path + b"?***"
    pairs = query.split(b"&")
    if b";" not in query and not _LIKE_URL(query):
        # Nearly always: one look at each name, and the target as it is.
        for pair in pairs:
            name, mark, _ = pair.partition(b"=")
            if mark and _is_secret(name):
                break
        else:
            return target
    return path + b"?" + b"&".join([_without_secret(pair) for pair in pairs])


def _without_secret(pair: bytes) -> bytes:
    # Some read ``;`` as a separator, others as part of the value: a secret is taken to go on to the next ``&``.
    start = 0
    for piece in pair.split(b";"):
        name, mark, _ = piece.partition(b"=")
        if mark and _is_secret(name):
            return pair[: start + len(name)] + b"=***"
        start += len(piece) + 1
    name, _, value = pair.partition(b"=")
    return name + b"=***" if _LIKE_URL(value) and _holds_secret(value) else pair


def _holds_secret(value: bytes) -> bool:
    """Whether a value is a URL that has a secret itself, as in ``next=/reset%3Ftoken%3D…``, encoded once or twice."""
    for _ in range(3):
        names = _INNER_NAMES(value)
        if len(names) > MAX_PAIRS or any(map(_is_secret, names)) or _INNER_USER(value):
            return True
        value = unquote_to_bytes(value)
    return False


def printable(value: bytes | str) -> str:
    """Bytes as text for a log line: what is not printable ASCII is escaped."""
    if isinstance(value, str):
        return value if value.isprintable() else printable(value.encode("utf-8", "surrogatepass"))
    text = value.decode("latin-1")
    return text if text.isascii() and text.isprintable() else text.translate(_HEX)


def _quoted(value: bytes | None) -> str:
    text = value.decode("latin-1") if value else "-"
    if text.isascii() and text.isprintable() and '"' not in text and "\\" not in text:
        return text
    return text.translate(_HEX)


def _word(value: str | None) -> str:
    if not value:
        return "-"
    if value.isascii() and value.isprintable() and " " not in value and '"' not in value and "\\" not in value:
        return value
    return _quoted(value.encode("utf-8", "surrogatepass")).replace(" ", "\\x20")


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else int(seconds * 1e6) / 1e3


class Entry:
    """The record of an exchange at its end. Bytes are as the client sent them; ``time`` is Unix time in seconds,
    durations are seconds.

    ``made_by`` is ``gateway`` or ``upstream``; ``code`` and ``reason`` are those of the gateway's own answer.
    ``host``, ``referer`` and ``user_agent`` are for formats with ``quotes_headers``, and only JSON has what comes after
    them.
    """

    def __init__(
        self,
        time: float,
        request_id: str,
        client: str,
        method: bytes,
        target: bytes,
        route: str | None,
        status: int,
        made_by: str,
        code: str | None,
        bytes_in: int,
        bytes_out: int,
        duration: float,
        upstream: str | None,
        upstream_duration: float | None,
        principal: str | None,
        protocol: str,
        referer: bytes | None = None,
        user_agent: bytes | None = None,
        grpc_status: int | None = None,
        tries: int | None = None,
        service: str | None = None,
        trace_id: str | None = None,
        reason: str | None = None,
        host: bytes | None = None,
    ) -> None:
        self.time = time
        self.request_id = request_id
        self.client = client
        self.method = method
        self.target = target
        self.route = route
        self.status = status
        self.made_by = made_by
        self.code = code
        self.bytes_in = bytes_in
        self.bytes_out = bytes_out
        self.duration = duration
        self.upstream = upstream
        self.upstream_duration = upstream_duration
        self.principal = principal
        self.protocol = protocol
        self.referer = referer
        self.user_agent = user_agent
        self.grpc_status = grpc_status
        self.tries = tries
        self.service = service
        self.trace_id = trace_id
        self.reason = reason
        self.host = host


class Format(Protocol):
    """A format of lines. ``stamp`` formats a time to the second, ``line`` makes the line with its newline."""

    quotes_headers: bool
    """Whether lines may have ``host``, ``referer`` and ``user_agent``."""

    def stamp(self, second: int) -> str: ...

    def line(self, stamp: str, millisecond: int, entry: Entry) -> bytes: ...


class JSON:
    """One JSON object a line, in UTF-8. A field that does not apply is ``null``; those of ``_SOMETIMES`` are left out.

    With ``fields`` a line has these, in this order.
    """

    def __init__(self, fields: Sequence[str] = ()) -> None:
        self._fields = tuple(fields)
        self.quotes_headers = not _HEADERS.isdisjoint(fields)

    def stamp(self, second: int) -> str:
        return strftime("%Y-%m-%dT%H:%M:%S", gmtime(second))

    def line(self, stamp: str, millisecond: int, entry: Entry) -> bytes:
        took = entry.upstream_duration
        fields = {
            "time": stamp + _MILLISECONDS[millisecond],
            "level": "info" if entry.status < 500 else "warn",
            "request_id": entry.request_id,
            "client": entry.client,
            "method": entry.method.decode("latin-1"),
            "path": without_secrets(entry.target[:MAX_TARGET]).decode("latin-1"),
            "route": entry.route,
            "status": entry.status,
            "made_by": entry.made_by,
            "code": entry.code,
            "bytes_in": entry.bytes_in,
            "bytes_out": entry.bytes_out,
            "duration_ms": int(entry.duration * 1e6) / 1e3,
            "upstream": entry.upstream,
            "upstream_ms": None if took is None else int(took * 1e6) / 1e3,
            "principal": entry.principal,
            "protocol": entry.protocol,
        }
        if entry.reason is not None:
            fields["reason"] = entry.reason
        if entry.grpc_status is not None:
            fields["grpc_status"] = entry.grpc_status
        if entry.tries is not None:
            fields["tries"] = entry.tries
        if entry.service is not None:
            fields["service"] = entry.service
        if entry.trace_id is not None:
            fields["trace_id"] = entry.trace_id
        if self._fields:
            if self.quotes_headers:
                fields |= _of_headers(entry)
            fields = {name: fields.get(name) for name in self._fields}
        try:
            line = orjson.dumps(fields, None, orjson.OPT_APPEND_NEWLINE)
        except TypeError:  # a lone surrogate
            line = b"\\"
        # ``find`` of a byte takes half the time of ``in``.
        if line.isascii() and line.find(_BACKSLASH) < 0 and line.find(_DELETE) < 0:
            return line
        # Something is not plain ASCII, or had to be escaped: only now it is worth looking what.
        plain = {
            "request_id": printable(entry.request_id),
            "client": printable(entry.client),
            "method": printable(entry.method),
            "path": printable(without_secrets(entry.target[:MAX_TARGET])),
            "principal": entry.principal and printable(entry.principal),
        }
        fields |= {name: value for name, value in plain.items() if name in fields}
        try:
            return orjson.dumps(fields, None, orjson.OPT_APPEND_NEWLINE)
        except TypeError:
            fields = {name: printable(value) if isinstance(value, str) else value for name, value in fields.items()}
            return orjson.dumps(fields, None, orjson.OPT_APPEND_NEWLINE)


_HEADERS = frozenset({"host", "referer", "user_agent"})


def _of_headers(entry: Entry) -> dict[str, str | None]:
    """Values of headers, always escaped: who asks for them pays for it."""
    referer, agent, host = entry.referer, entry.user_agent, entry.host
    return {
        "host": None if host is None else printable(host[:MAX_FIELD]),
        "referer": None if referer is None else printable(without_secrets(referer[:MAX_FIELD])),
        "user_agent": None if agent is None else printable(agent[:MAX_FIELD]),
    }


class Combined:
    """The nine fields of the Combined Log Format, followed by: request id, "route", who made the response, its code,
    bytes in, milliseconds, upstream, its milliseconds. A field that does not apply is ``-``."""

    quotes_headers = True

    def stamp(self, second: int) -> str:
        return strftime("%d/%b/%Y:%H:%M:%S +0000", gmtime(second))

    def line(self, stamp: str, millisecond: int, entry: Entry) -> bytes:
        referer = entry.referer and without_secrets(entry.referer[:MAX_FIELD])
        agent = entry.user_agent and entry.user_agent[:MAX_FIELD]
        route = None if entry.route is None else entry.route.encode("utf-8", "surrogatepass")
        took = _milliseconds(entry.upstream_duration)
        return (
            f"{_word(entry.client)} - {_word(entry.principal)} [{stamp}] "
            f'"{_quoted(entry.method)} {_quoted(without_secrets(entry.target[:MAX_TARGET]))} {entry.protocol}" '
            f'{entry.status} {entry.bytes_out} "{_quoted(referer)}" "{_quoted(agent)}" '
            f'{_word(entry.request_id)} "{_quoted(route)}" {entry.made_by} {_word(entry.code)} {entry.bytes_in} '
            f"{_milliseconds(entry.duration)} {_word(entry.upstream)} {'-' if took is None else took}\n"
        ).encode("ascii", "backslashreplace")


def of_format(format: str, fields: Sequence[str] = ()) -> Format:
    """``json``, perhaps with some ``fields`` only, or ``combined``."""
    return Combined() if format == "combined" else JSON(fields)
