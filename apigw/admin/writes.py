"""Authorization on the admin listener (docs/decisions/admin-writes.md).

Reads need no token, but a ``Host`` that is an address, ``localhost`` or a configured name, against DNS rebinding: a web
page could point its own name to this machine and read the answers. A write needs what no web page can send: the token,
a JSON content type, and a ``Host`` that is an address of this machine.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from hmac import compare_digest
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

from twisted.internet.address import UNIXAddress
from twisted.internet.interfaces import ITransport
from twisted.logger import Logger

from apigw import errors
from apigw.ops.audit_log import Audit, unaudited
from apigw.wire.address import client_of
from apigw.wire.web_request import WebRequest

REALM = b'Bearer realm="apigw admin"'
JSON_TYPE = b"application/json"

MOST_WRONG, WINDOW = 10, 60.0
"""Wrong tokens of one address (IPv6: of a /64) that are checked in a window, and the window in seconds."""

MOST_ADDRESSES = 1024
"""Maximum number of addresses whose wrong tokens are counted."""

log = Logger()


def may_read(request: WebRequest, hosts: Collection[str]) -> None:
    """Raises the refusal if the Host is neither an address, nor ``localhost``, nor in ``hosts``."""
    host = _host(request.authority)
    # No Host: not a browser, which always sends one.
    known = {"", "localhost", *map(str.lower, hosts)}
    if host in known or _address(host) is not None or isinstance(request.transport.getHost(), UNIXAddress):
        return
    raise errors.Misdirected("This name is not one of gateway.admin_hosts.")


class Writes:
    """Authorizes writes. Wrong tokens are logged, and limited for each address."""

    def __init__(
        self, seconds: Callable[[], float], token: Callable[[], bytes | None], audit: Audit = unaudited
    ) -> None:
        self._audit = audit
        self._seconds = seconds
        self._token = token
        self._wrong: dict[bytes, tuple[float, int]] = {}  # by client: start of its window, and the count

    def check(self, request: WebRequest) -> None:
        """Raises the refusal if the request may not write."""
        if not _is_here(request.authority, request.transport):
            raise errors.Misdirected("A write must be sent to an address of this listener, not to a name.")
        given = [value for name, value in request.headers if name == b"content-type"]
        if len(given) != 1 or given[0].partition(b";")[0].strip(b" \t").lower() != JSON_TYPE:
            raise errors.UnsupportedMediaType("A write must be application/json.")
        token = self._token()
        if token is None:
            raise errors.ReadOnly("Without gateway.admin_token_file nothing can be changed here.")
        credentials = [value for name, value in request.headers if name == b"authorization"]
        if not credentials:
            raise errors.Unauthorized("A token is required.", [(b"www-authenticate", REALM)])
        began, wrong = self._counted(request.peer)
        if wrong >= MOST_WRONG:
            after = max(1, round(began + WINDOW - self._seconds()))
            raise errors.RateLimited("Too many wrong tokens.", [(b"retry-after", b"%d" % after)])
        scheme, _, sent = credentials[0].partition(b" ")
        if len(credentials) != 1 or scheme.lower() != b"bearer" or not compare_digest(sent.strip(b" "), token):
            self._count(request.peer, began, wrong + 1)
            path = request.path.decode("ascii", "replace")
            self._audit("admin_token", "wrong", request.peer.decode("ascii", "replace"), path=path)
            challenge = REALM + b', error="invalid_token"'
            raise errors.Unauthorized("The token is not the right one.", [(b"www-authenticate", challenge)], "invalid")

    def _counted(self, peer: bytes) -> tuple[float, int]:
        now = self._seconds()
        began, wrong = self._wrong.get(_client(peer), (now, 0))
        return (began, wrong) if now < began + WINDOW else (now, 0)

    def _count(self, peer: bytes, began: float, wrong: int) -> None:
        client = _client(peer)
        self._wrong.pop(client, None)
        if len(self._wrong) >= MOST_ADDRESSES:
            del self._wrong[next(iter(self._wrong))]
        self._wrong[client] = began, wrong
        shown = peer.decode("ascii", "replace")
        if wrong < MOST_WRONG:
            log.warn("admin: a wrong token from {peer}", peer=shown)
        else:
            log.warn(
                "admin: the wrong token number {wrong} from {peer}, whose tokens are not looked at for {seconds:g} s",
                wrong=wrong,
                peer=shown,
                seconds=began + WINDOW - self._seconds(),
            )


def _client(peer: bytes) -> bytes:
    """All that one client can have at will, or what is no address as it is."""
    return client_of(peer.decode("latin-1")) or peer


def _host(authority: bytes) -> str:
    host = authority.rpartition(b":")[0] if not authority.endswith(b"]") and b":" in authority else authority
    return host.decode("latin-1").lower()


def _address(host: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(host.strip("[]"))
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _is_here(authority: bytes, transport: ITransport) -> bool:
    """Whether a Host is a loopback address, or the local address of the connection. Names are not trusted."""
    host = _host(authority)
    if host == "localhost":
        return True
    address = _address(host)
    if address is None:
        return False
    if address.is_loopback:
        return True
    arrived: Any = transport.getHost()
    return address == _address(str(getattr(arrived, "host", "")).partition("%")[0])
