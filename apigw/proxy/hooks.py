# Compiled: see docs/decisions/compiled.md
"""Runs the hooks of a route on the head of an answer."""

from __future__ import annotations

from twisted.logger import Logger

from apigw.contract.exchange import Exchange, Head
from apigw.errors import GatewayError
from apigw.wire.headers import Headers

log = Logger(namespace=__name__)


def hooked(exchange: Exchange, status: int, headers: Headers, own: bool) -> Headers | None:
    """The fields of an answer after the route's hooks have run; None if one failed, and the exchange is refused."""
    head = Head(status, headers, own)
    try:
        for hook in exchange.route.hooks:
            hook.run(exchange, head)
    except GatewayError as error:
        exchange.hooks_failed = True
        exchange.driver.refuse(exchange, error)
        return None
    except Exception:
        log.failure("{id}: a hook failed", id=exchange.id.decode("ascii"))
        exchange.hooks_failed = True
        exchange.driver.refuse(exchange, GatewayError("An error in the gateway; its log has the details."))
        return None
    return head.headers
