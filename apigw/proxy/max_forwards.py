# Compiled: see docs/decisions/compiled.md
"""``Max-Forwards`` of OPTIONS and TRACE: RFC 9110 §7.6.2."""

from __future__ import annotations

from typing import Final

from apigw import errors
from apigw.contract.exchange import Answer, Exchange
from apigw.wire.headers import first

BOUND: Final = frozenset({b"OPTIONS", b"TRACE"})
"""The methods to which Max-Forwards applies."""
_MOST: Final = 999
"""The maximum that is forwarded; the RFC allows a recipient to lower larger numbers."""


def count_hop(exchange: Exchange) -> Answer | None:
    """The answer to an OPTIONS with 0; otherwise reduces the field by one, if there is one, and returns None.

    Raises ``GatewayError`` for a TRACE with 0, which the gateway does not answer, and for what is no number.
    """
    request = exchange.request
    given = first(request.headers, b"max-forwards")
    if given is None:
        return None
    if not given.isdigit():
        raise errors.BadRequest("Max-Forwards is not a number.")
    digits = given.lstrip(b"0")
    if digits:
        left = int(digits) if len(digits) <= 3 else _MOST + 1
        others = [header for header in request.headers if header[0] != b"max-forwards"]
        request.headers = [*others, (b"max-forwards", b"%d" % (left - 1))]
        return None
    methods = exchange.route.methods
    allow = [] if methods is None else [(b"allow", ", ".join(methods).encode("ascii"))]
    if request.method == b"TRACE":
        raise errors.MethodNotAllowed("The gateway itself does not answer TRACE.", allow)
    return Answer(204, allow)
