"""``apigw routes``: show which route a request would take, and what the route demands."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator

from attrs import evolve

from apigw.cli.listing import listed
from apigw.cli.outcome import FOUND, MISUSE, REFUSED, loaded
from apigw.config.effective import effective
from apigw.config.model import Balance, Config, Retry, Route
from apigw.config.units import duration_text, size_text
from apigw.policy.split.model import services_of
from apigw.policy.transform.told import sent_as
from apigw.process.rules import RULES
from apigw.routing.configured import entry_of
from apigw.routing.router import Router
from apigw.wire.errors import Refused
from apigw.wire.methods import METHODS
from apigw.wire.target import check_authority, check_target, oddities


def routes(options: argparse.Namespace) -> int:
    config = loaded(options.directory)
    if config is None:
        return REFUSED
    if options.method is None:
        for line in listed(config):
            print(line)
        return FOUND
    try:
        headers = [_header(text) for text in options.header]
    except ValueError as error:
        print(error, file=sys.stderr)
        return MISUSE
    hosts = [value for name, value in headers if name == b"host"]
    host = hosts[0] if hosts and not options.host else options.host.encode("utf-8", "surrogateescape")
    asked = f"{options.method} {options.path}"
    router = Router(entry_of(route, (index, route)) for index, route in enumerate(config.routes))
    method = options.method.encode("utf-8", "surrogateescape")
    try:
        path, query = check_target(options.path.encode("utf-8", "surrogateescape"), router.keeps)
        if host:
            check_authority(host)
    except Refused as refusal:
        print(f"{asked}: {refusal.status}, refused before routing: {refusal.reason}")
        return REFUSED
    if method not in METHODS:
        print(f"{asked}: 501, unknown method (methods are case-sensitive: GET, not get)")
        return REFUSED
    if method == b"CONNECT":
        print(f"{asked}: 405, CONNECT is not supported")
        return REFUSED
    if path.decode("ascii") in config.reserved and not router.names(host):
        print(f"{asked}: a reserved path, answered by the gateway itself")
        return FOUND
    explanation = router.explain(method, path, host, headers, query)
    match = explanation.match
    odd = oddities(path)
    if odd and (match is None or odd & ~match.keeps):
        print(f"{asked}: 400, the route does not keep encoded slashes, or empty segments")
        return REFUSED
    print(explanation)
    if explanation.match is None:
        if not host and any(route.hosts for route in config.routes):
            print("  --host says which host is asked for")
        for told in RULES.told_unmatched:
            for name, value in told(config):
                print(f"  {name}: {value}")
        return REFUSED
    index, route = explanation.match.value
    for name, value in _demands(config, index, route, path, query):
        print(f"  {name}: {value}")
    return FOUND


def _header(text: str) -> tuple[bytes, bytes]:
    """Raises ``ValueError`` for what is no header."""
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise ValueError(f"{text!r} is not a header: write 'Name: value'")
    return name.strip().lower().encode("utf-8", "surrogateescape"), value.strip().encode("utf-8", "surrogateescape")


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
        port = "" if target.lookup == "srv" else f":{target.port}"
        lookup = {"dns": ", each address of this name", "srv": ", each of its SRV records"}.get(target.lookup, "")
        yield "target", f"{target.scheme}://{host}{port}{weight}{lookup}"
    if len(service.targets) > 1 or service.targets[0].lookup:
        yield "balance", _balance(service.balance)
    if service.max_requests is not None:
        yield "at a time", f"up to {service.max_requests} requests"
    yield "sent as", sent_as(route, path, query)
    yield "timeout", duration_text(holds.timeout)


def _balance(balance: Balance) -> str:
    by = balance.hash
    if by is None:
        return balance.algorithm
    return f"hash by {by.by} {by.name}".rstrip()


def _retry(retry: Retry) -> str:
    methods, reasons = ", ".join(retry.methods), ", ".join(map(str, retry.on))
    within = "" if retry.per_try_timeout is None else f", {duration_text(retry.per_try_timeout)} each"
    return f"up to {retry.tries} tries{within}, after {reasons}; methods: {methods}; budget {100 * retry.budget:g}%"
