# Compiled: see docs/decisions/compiled.md
"""The stages of an exchange: what ``Gateway.proceed`` walks, one function each.

A stage does its part at once, or returns what it waits for, or raises the ``GatewayError`` that ends the
exchange. What a route does not demand costs it one look at an attribute.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from apigw import errors
from apigw.policy.auth.principal import Principal, authorize, missing_token
from apigw.policy.cors.cors import cors_headers, preflight
from apigw.policy.limits.limits import HEADERS, Check, Decision, MemoryStore, Selection, scope_key
from apigw.policy.limits.redis_store import Outcome, Pending
from apigw.proxy.headers import DROPPED, is_grpc
from apigw.proxy.held_body import HeldBody

if TYPE_CHECKING:
    from apigw.proxy.pipeline import Exchange

Stage = Callable[["Exchange"], Deferred[Any] | Pending | HeldBody | None]

WITHOUT_LIMITS = DROPPED | HEADERS
"""What is taken out of the answer to a request that was counted: a service may have limits of its own."""

log = Logger(namespace="apigw.proxy.pipeline")


def route(exchange: Exchange) -> None:
    """Match method and path. Never waits."""
    request = exchange.request
    router = exchange.snapshot.router
    if exchange.snapshot.preflights and request.method == b"OPTIONS" and preflight(exchange, router):
        return
    match = router.match(request.method, request.path)
    if exchange.snapshot.log_decisions:
        log.debug("{decision}", decision=str(router.explain(request.method, request.path)))
    if match is None:
        allow = router.allow(request.path)
        if not allow:
            raise errors.NotFound("No route matches this path.")
        raise errors.MethodNotAllowed("This path has other methods.", [(b"allow", b", ".join(allow))])
    exchange.route = found = match.value
    if found.cors is not None:
        exchange.own_headers = cors_headers(found.cors, request)


def authenticate(exchange: Exchange) -> Deferred[Any] | None:
    """Find out who calls, and whether the route is for them. Waits only for a key set that is not there yet."""
    demand = exchange.route.demand
    if demand is None:
        return None
    tokens = [value for name, value in exchange.request.headers if name == b"authorization"]
    try:
        found = demand.authenticator.authenticate(tokens, exchange.now())
    except errors.Unauthorized as error:
        return _turn_away(exchange, error)
    # Deferred is an abstract class: to ask first whether it is one costs more than the answer to who calls
    if found is None or type(found) is Principal:
        return _admit(exchange, found)
    assert isinstance(found, Deferred)
    return found.addCallbacks(partial(_admit, exchange), partial(_not_verified, exchange))


def _admit(exchange: Exchange, principal: Principal | None) -> Deferred[Any] | None:
    demand = exchange.route.demand
    assert demand is not None
    if principal is None:
        return _turn_away(exchange, missing_token()) if demand.required else None
    exchange.principal = principal
    authorize(principal, demand.roles, demand.scopes)
    return None


def _not_verified(exchange: Exchange, failure: Failure) -> Deferred[Any] | Failure | None:
    error = failure.value
    return _turn_away(exchange, error) if isinstance(error, errors.Unauthorized) else failure


def _turn_away(exchange: Exchange, error: errors.Unauthorized) -> Deferred[Any] | None:
    """A 401, charged to the caller's address: whoever guesses tokens runs into a 429."""

    def charged(decision: Decision | None) -> None:
        _decided(exchange, decision)
        raise error

    checks = _checks(exchange, exchange.route.address_limits)
    charging = exchange.store.check(checks) if checks else None
    if isinstance(charging, Deferred):
        return charging.addCallback(charged)
    charged(charging)
    return None


def limit(exchange: Exchange) -> Deferred[Any] | Pending | None:
    """Count the exchange against every limit of its route, in one check. Waits only for Redis, never for memory."""
    selection = exchange.route.limits
    checks = None if selection is None else _checks(exchange, selection)
    if not checks:
        return None
    store = exchange.store
    if isinstance(store, MemoryStore):
        _decided(exchange, store.check(checks, exchange.started_at))
        return None
    decision = store.ask(checks, partial(_counted, exchange))
    if isinstance(decision, Pending):
        return decision
    _decided(exchange, decision)
    return None


def _counted(exchange: Exchange, outcome: Outcome) -> None:
    """Redis has answered, or has failed to."""
    try:
        if isinstance(outcome, errors.LimitsUnavailable):
            raise outcome
        _decided(exchange, outcome)
    except errors.GatewayError as error:
        exchange.refuse(error)
    else:
        exchange.proceed()


def _checks(exchange: Exchange, selection: Selection) -> list[Check]:
    limits = selection.of(exchange.request.path)
    if not limits:
        return []
    address = exchange.client_address
    provider = user = None
    if exchange.principal is not None:
        provider, user = exchange.principal.provider, exchange.principal.id
    return [(limit, scope_key(limit.scope, provider, user, address)) for limit in limits]


def _decided(exchange: Exchange, decision: Decision | None) -> None:
    if decision is None:
        return
    exchange.dropped = WITHOUT_LIMITS
    headers = decision.headers()
    exchange.own_headers = [*exchange.own_headers, *headers] if exchange.own_headers else headers
    if not decision.allowed:
        exchange.violated = decision.limit
        raise errors.RateLimited("Too many requests; see Retry-After.")


def hold_body(exchange: Exchange) -> HeldBody | None:
    """Wait for a small body, or the first piece of another, so that no slow client holds a connection to the service.

    gRPC does not wait: its services may answer before the client says anything.
    """
    request, route = exchange.request, exchange.route
    length = request.content_length
    allowed = route.max_body_size
    if allowed is not None and length is not None and length > allowed:
        raise errors.BodyTooLarge(f"The body may have up to {allowed} bytes.")
    small = route.buffer_body
    if request.body_complete or not small or is_grpc(request.headers):
        return None
    if route.upstream.circuit is not None:
        route.upstream.circuit.check(exchange.clock())
    return exchange.hold_body(1 if length is None or length > small else length + 1)  # more than comes: to its end


def forward(exchange: Exchange) -> None:
    """Find a connection to a target and send the request; the answer comes to the exchange."""
    upstream = exchange.route.upstream
    if upstream.circuit is not None:
        exchange.permit = upstream.circuit.admit(exchange.clock())
    target = upstream.pick()
    connection = target.pool.take(careful=exchange.request.content_length != 0)
    if connection is not None:
        exchange.send((target, connection))
    else:
        exchange.connect(target)


STAGES: tuple[Stage, ...] = (route, authenticate, limit, hold_body, forward)
"""The way of every request."""
