"""Authorization of writes on the admin listener (docs/decisions/admin-writes.md).

Reads need none. A write needs what a web page cannot send: the token, a JSON content type, and a ``Host`` that is an
address of this machine, because a name could be under another's control (DNS rebinding).
"""

from __future__ import annotations

from hmac import compare_digest
from ipaddress import ip_address
from typing import Any

from twisted.internet.interfaces import ITransport

from apigw import errors
from apigw.wire.web_request import WebRequest

REALM = b'Bearer realm="apigw admin"'
JSON_TYPE = b"application/json"


def may_write(request: WebRequest, token: bytes | None) -> None:
    """Return if the write is authorized. Raises the ``GatewayError`` to refuse it otherwise."""
    if not _is_here(request.authority, request.transport):
        raise errors.Misdirected("A write must be sent to an address of this listener, not to a name.")
    given = [value for name, value in request.headers if name == b"content-type"]
    if len(given) != 1 or given[0].partition(b";")[0].strip(b" \t").lower() != JSON_TYPE:
        raise errors.UnsupportedMediaType("A write must be application/json.")
    if token is None:
        raise errors.ReadOnly("Changes need gateway.admin_token_file, which is not set.")
    credentials = [value for name, value in request.headers if name == b"authorization"]
    if not credentials:
        raise errors.Unauthorized("A token is required.", [(b"www-authenticate", REALM)])
    scheme, _, sent = credentials[0].partition(b" ")
    if len(credentials) != 1 or scheme.lower() != b"bearer" or not compare_digest(sent.strip(b" "), token):
        challenge = REALM + b', error="invalid_token"'
        raise errors.Unauthorized("The token is wrong.", [(b"www-authenticate", challenge)], "invalid")


def _is_here(authority: bytes, transport: ITransport) -> bool:
    """Whether a Host names the loopback, or the address at which the connection arrived. A name could be anybody's."""
    host = authority.rpartition(b":")[0] if not authority.endswith(b"]") and b":" in authority else authority
    if host.lower() == b"localhost":
        return True
    try:
        address = ip_address(host.decode("ascii").strip("[]"))
    except ValueError:
        return False
    if address.is_loopback:
        return True
    arrived: Any = transport.getHost()
    try:
        return address == ip_address(str(getattr(arrived, "host", "")).partition("%")[0])
    except ValueError:
        return False
