"""``apigw routes``: show which route a request would take, and what the route demands."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from attrs import evolve

from apigw.cli.outcome import FOUND, REFUSED, loaded
from apigw.config.effective import effective
from apigw.config.model import Config, Retry, Route
from apigw.config.units import duration_text, size_text
from apigw.policy.split.model import services_of
from apigw.policy.transform.told import sent_as
from apigw.process.rules import RULES
from apigw.routing.configured import entry_of
from apigw.routing.router import Router
from apigw.wire.errors import Refused
from apigw.wire.methods import METHODS
from apigw.wire.target import check_target


def routes(options: argparse.Namespace) -> int:
    config = loaded(options.directory)
    if config is None:
        return REFUSED
    method = options.method.encode("utf-8", "surrogateescape")
    try:
        path, query = check_target(options.path.encode("utf-8", "surrogateescape"))
    except Refused as refusal:
        print(f"{options.method} {options.path}: {refusal.status}, refused before routing: {refusal.reason}")
        return REFUSED
    asked = f"{options.method} {options.path}"
    if method not in METHODS:
        print(f"{asked}: 501, unknown method (methods are case-sensitive: GET, not get)")
        return REFUSED
    if method == b"CONNECT":
        print(f"{asked}: 405, CONNECT is not supported")
        return REFUSED
    if path.decode("ascii") in config.reserved:
        print(f"{asked}: a reserved path, answered by the gateway itself")
        return FOUND
    router = Router(entry_of(route, (index, route)) for index, route in enumerate(config.routes))
    explanation = router.explain(method, path)
    print(explanation)
    if explanation.match is None:
        for told in RULES.told_unmatched:
            for name, value in told(config):
                print(f"  {name}: {value}")
        return REFUSED
    index, route = explanation.match.value
    for name, value in _demands(config, index, route, path, query):
        print(f"  {name}: {value}")
    return FOUND


def _demands(config: Config, index: int, route: Route, path: bytes, query: bytes) -> Iterator[tuple[str, str]]:
    """What a request meets on its route, in the order in which it meets it."""
    if route.name != route.path:
        yield "name", route.name
    origin = config.origins.get(("routes", index, "path"))
    if origin is not None:
        yield "written in", str(origin)
    for told in RULES.told:
        yield from told(config, route, path)
    if route.access_log is None:
        yield "access log", "none"
    for name in services_of(route):
        yield from _demands_of(config, evolve(route, service=name), path, query)


def _demands_of(config: Config, route: Route, path: bytes, query: bytes) -> Iterator[tuple[str, str]]:
    """What it meets from when its service is known, or chosen."""
    service = next(service for service in config.services if service.name == route.service)
    holds = effective(config, route, service)
    largest = holds.max_body_size
    yield "body", "of any size" if largest is None else f"up to {size_text(largest)}"
    yield "service", service.name
    if service.circuit_breaker is not None:
        breaker = service.circuit_breaker
        at_least = f"of at least {breaker.min_requests} requests in {duration_text(breaker.window)}"
        yield "circuit breaker", f"opens when {breaker.error_rate:.0%} {at_least} have failed"
    if service.retry is not None:
        yield "retry", _retry(service.retry)
    for target in service.targets:
        host = f"[{target.host}]" if ":" in target.host else target.host
        weight = f", weight {target.weight}" if target.weight != 1 else ""
        yield "target", f"{target.scheme}://{host}:{target.port}{weight}"
    yield "sent as", sent_as(route, path, query)
    yield "timeout", duration_text(holds.timeout)


def _retry(retry: Retry) -> str:
    methods, reasons = ", ".join(retry.methods), ", ".join(map(str, retry.on))
    within = "" if retry.per_try_timeout is None else f", {duration_text(retry.per_try_timeout)} each"
    return f"up to {retry.tries} tries{within}, after {reasons}; methods: {methods}; budget {100 * retry.budget:g}%"
