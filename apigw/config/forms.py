"""Checks of text values: methods, names, addresses, endpoint strings.

Each raises ``ValueError`` for a wrong text, with a sentence fragment that follows the text: "does not begin with /".
"""

from __future__ import annotations

import re
from collections.abc import Callable

from apigw.config import addresses, endpoints
from apigw.config.nearest import meant

# Those that the wire takes, but for CONNECT, which a gateway does not forward.
# fmt: off
METHODS = frozenset({
    "ACL", "BASELINE-CONTROL", "BIND", "CHECKIN", "CHECKOUT", "COPY", "DELETE", "GET", "HEAD", "LABEL", "LINK", "LOCK",
    "M-SEARCH", "MERGE", "MKACTIVITY", "MKCALENDAR", "MKCOL", "MKREDIRECTREF", "MKWORKSPACE", "MOVE", "NOTIFY",
    "OPTIONS", "ORDERPATCH", "PATCH", "POST", "PROPFIND", "PROPPATCH", "PURGE", "PUT", "QUERY", "REBIND", "REPORT",
    "SEARCH", "SOURCE", "SUBSCRIBE", "TRACE", "UNBIND", "UNCHECKOUT", "UNLINK", "UNLOCK", "UNSUBSCRIBE", "UPDATE",
    "UPDATEREDIRECTREF", "VERSION-CONTROL",
})
# fmt: on


def method(text: str) -> None:
    if text == "CONNECT":
        raise ValueError("is not forwarded: a gateway answers CONNECT with 405")
    if text not in METHODS:
        if text.upper() in METHODS:
            raise ValueError(f"is not an HTTP method: write {text.upper()}")
        if text.upper() in ("*", "ALL", "ANY"):
            raise ValueError("is not an HTTP method: without methods, the route has all")
        near = meant(text, METHODS, 0.75)
        raise ValueError(f"is not an HTTP method{near}")


def request_path(text: str) -> None:
    """A path, perhaps with a query, that can be written into a request line unchanged."""
    if not text.startswith("/"):
        raise ValueError("does not begin with /")
    if not text.isascii() or re.search(r"[\x00-\x20\x7f\"<>\\^`{|}]", text):
        raise ValueError("has characters that must be percent-encoded in a request")
    if "#" in text:
        raise ValueError("has a fragment (#), which is never sent")
    if re.search(r"%(?![0-9A-Fa-f]{2})", text):
        raise ValueError("has a % that is not followed by two hexadecimal digits")


def printable(text: str) -> None:
    if not text or not text.isascii() or not text.isprintable() or len(text) > 200:
        raise ValueError("is not 1 to 200 printable ASCII characters")


def name(text: str) -> None:
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}", text):
        raise ValueError("is not a name: letters, digits, _, - and ., beginning with a letter, digit or _, at most 64")


def file_name(text: str) -> None:
    if not text or not text.isprintable():
        raise ValueError("is not a file name")


def token(text: str) -> None:
    """The name of a header or a cookie (RFC 9110 §5.1, RFC 6265 §4.1.1)."""
    if not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,256}", text):
        raise ValueError("is not the name of a header or cookie")


def balance(text: str) -> None:
    known = ("round_robin", "least_requests")
    if text == "hash":
        raise ValueError("does not say by what: write {hash: client}, {hash: principal} or {hash: {header: X-Name}}")
    if text not in known:
        other = {"ip_hash": "{hash: client}", "sticky": "{hash: {cookie: …}}", "least_conn": "'least_requests'"}.get(
            text
        )
        near = f"; did you mean {other}?" if other else meant(text, known)
        raise ValueError(f"is not one of {', '.join(known)}, or a map such as {{hash: client}}{near}")


def hashed_by(text: str) -> None:
    if text not in ("client", "principal"):
        raise ValueError("is neither client nor principal, nor a map such as {header: X-Name}")


def workers(text: str) -> None:
    if text.isdecimal():
        raise ValueError("is text: write it without quotes")
    if text != "auto":
        raise ValueError("is neither a whole number nor auto")


def retried(text: str) -> None:
    if text not in ("idempotent", "all", *METHODS):
        if text.upper() in METHODS:
            raise ValueError(f"is not an HTTP method: write {text.upper()}")
        raise ValueError(f"is neither an HTTP method nor idempotent nor all{meant(text, ('idempotent', 'all'))}")


FORMS: dict[str, Callable[[str], object]] = {
    "method": method,
    "request path": request_path,
    "printable": printable,
    "name": name,
    "file": file_name,
    "network": addresses.network,
    "proxy": addresses.proxy,
    "target": addresses.target,
    "dns target": addresses.dns_target,
    "srv target": addresses.srv_target,
    "balance": balance,
    "hashed by": hashed_by,
    "token": token,
    "redis url": addresses.redis_url,
    "url": addresses.web_url,
    "origin": addresses.origin,
    "host": addresses.host,
    "route host": addresses.route_host,
    "host:port": addresses.host_and_port,
    "endpoint": endpoints.parse,
    "workers": workers,
    "retried": retried,
}
"""Checks of text, by the names in the schema. Other rooms add theirs by ``Rules.forms``."""
