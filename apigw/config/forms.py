"""The forms that a text can be required to have.

Each takes the text and raises ``ValueError`` with what is wrong, as the end of a sentence that begins with the text.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from apigw.config import addresses, endpoints, patterns
from apigw.config.nearest import hint

# Those that llhttp knows, but for CONNECT, which a gateway does not forward, and PRI, which is HTTP/2's own.
# fmt: off
METHODS = frozenset({
    "ACL", "BIND", "CHECKOUT", "COPY", "DELETE", "GET", "HEAD", "LINK", "LOCK", "M-SEARCH", "MERGE", "MKACTIVITY",
    "MKCALENDAR", "MKCOL", "MOVE", "NOTIFY", "OPTIONS", "PATCH", "POST", "PROPFIND", "PROPPATCH", "PURGE", "PUT",
    "QUERY", "REBIND", "REPORT", "SEARCH", "SOURCE", "SUBSCRIBE", "TRACE", "UNBIND", "UNLINK", "UNLOCK", "UNSUBSCRIBE",
})
# fmt: on

_SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")


def method(text: str) -> None:
    if text == "CONNECT":
        raise ValueError("is not forwarded: a gateway answers CONNECT with 405")
    if text not in METHODS:
        if text.upper() in METHODS:
            raise ValueError(f"is not an HTTP method: write {text.upper()}")
        near = hint(text, METHODS, 0.75)
        raise ValueError(f"is not an HTTP method{near if 'mean' in near else ''}")


def prefix(text: str) -> None:
    """A path prefix that can be cut off: literal segments only."""
    shape = patterns.parse(text).shape
    if shape[-1] == "=":
        raise ValueError("ends in a slash: write only the segments that are to go")
    if any(not part.startswith("=") for part in shape):
        raise ValueError("has a parameter or a *: only literal segments can be cut off")


def request_path(text: str) -> None:
    """What goes into a request line as it is: a path, perhaps with a query."""
    if not text.startswith("/"):
        raise ValueError("does not begin with /")
    if not text.isascii() or re.search(r"[\x00-\x20\x7f\"<>\\^`{|}]", text):
        raise ValueError("has characters that must be percent-encoded in a request")
    if "#" in text:
        raise ValueError("has a fragment (#), which is never sent")
    if re.search(r"%(?![0-9A-Fa-f]{2})", text):
        raise ValueError("has a % that is not followed by two hexadecimal digits")


def scope(text: str) -> None:
    """RFC 6749 §3.3."""
    if not _SCOPE.fullmatch(text):
        raise ValueError("is not a scope: one or more printable ASCII characters without space, quote and backslash")


def role(text: str) -> None:
    """Roles travel in one header, separated by commas."""
    if not text or not text.isprintable() or "," in text or text != text.strip():
        raise ValueError("is not a role: printable characters without commas, and no space at its ends")


def printable(text: str) -> None:
    if not text or not text.isascii() or not text.isprintable() or len(text) > 200:
        raise ValueError("is not 1 to 200 printable ASCII characters")


def client_id(text: str) -> None:
    """RFC 6749 §A.1, but for the colon, which ends the id in Basic credentials that nobody form-encoded."""
    if not re.fullmatch(r"[\x20-\x39\x3b-\x7e]{1,256}", text) or text != text.strip():
        raise ValueError("is not a client id: 1 to 256 printable ASCII characters, no colon, and no space at its ends")


def name(text: str) -> None:
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}", text):
        raise ValueError("is not a name: letters, digits, _, - and ., beginning with a letter, digit or _, at most 64")


def claim(text: str) -> None:
    if not text.isprintable() or not all(text.split(".")) or len(text) > 200:
        raise ValueError("is not a claim's name, or names with dots between them")


def secret_hash(text: str) -> None:
    if not re.fullmatch(r"(?:scrypt|sha256)\$[^\s$][^\s]*", text):
        raise ValueError("is not a hash that `apigw hash-secret` makes: it begins with scrypt$ or sha256$")


def file_name(text: str) -> None:
    if not text or not text.isprintable():
        raise ValueError("is not a file name")


FORMS: dict[str, Callable[[str], object]] = {
    "method": method,
    "pattern": patterns.parse,
    "prefix": prefix,
    "request path": request_path,
    "scope": scope,
    "role": role,
    "printable": printable,
    "client id": client_id,
    "name": name,
    "claim": claim,
    "hash": secret_hash,
    "file": file_name,
    "network": addresses.network,
    "target": addresses.target,
    "redis url": addresses.redis_url,
    "url": addresses.web_url,
    "origin": addresses.origin,
    "host": addresses.host,
    "host:port": addresses.host_and_port,
    "endpoint": endpoints.parse,
}
