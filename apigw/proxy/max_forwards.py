# Compiled: see docs/decisions/compiled.md
"""How far an OPTIONS or a TRACE may go: RFC 9110 §7.6.2."""

from __future__ import annotations

from typing import Final

from apigw import errors
from apigw.contract.exchange import Answer, Exchange
from apigw.wire.headers import first

BOUND: Final = frozenset({b"OPTIONS", b"TRACE"})
"""The methods to which Max-Forwards means something."""
_MOST: Final = 999
"""What is sent on of a larger number, as the standard lets us."""


def count_hop(exchange: Exchange) -> Answer | None:
    """The answer to a request that may go no further; of another its field is one less, if it has one.

    Raises ``GatewayError`` for a TRACE, which the gateway does not answer.
    """
    request = exchange.request
    given = first(request.headers, b"max-forwards")
    if given is None or not given.isdigit():
        return None
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
