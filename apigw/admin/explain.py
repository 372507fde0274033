"""Which route a request would take, and what the route demands: for ``apigw routes`` and the status page."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar
from urllib.parse import parse_qs

from attrs import evolve, frozen

from apigw.config.effective import effective
from apigw.config.model import Balance, Config, Retry, Route
from apigw.config.secrecy import masked_in_url
from apigw.config.units import duration_text, size_text
from apigw.contract.resource import Leaf, answer
from apigw.errors import BadRequest
from apigw.policy.split.model import services_of
from apigw.policy.transform.told import sent_as
from apigw.process.rules import RULES
from apigw.process.snapshot import Snapshot
from apigw.routing.configured import conditions_of
from apigw.routing.router import Router
from apigw.wire.errors import Refused
from apigw.wire.methods import METHODS
from apigw.wire.target import check_authority, check_target, oddities
from apigw.wire.web_request import WebRequest

T = TypeVar("T")

MOST_FIELDS = 100
"""Of a query. Requests have some twenty headers."""


@frozen
class Asked:
    """A request: ``target`` is the path as a client would send it, perhaps with a query. The host may be empty."""

    method: str
    target: str
    host: bytes
    headers: list[tuple[bytes, bytes]]

    def __str__(self) -> str:
        return f"{self.method} {self.target}"


@frozen
class Explained:
    """``found``: whether there is a route, or the gateway answers by itself."""

    found: bool
    lines: list[str]


def explain(config: Config, router: Router[T], index_of: Callable[[T], int], asked: Asked) -> Explained:
    """``index_of``: which of ``config.routes`` a value of the router is."""
    method = asked.method.encode("utf-8", "surrogateescape")
    try:
        path, query = check_target(asked.target.encode("utf-8", "surrogateescape"), router.keeps)
        if asked.host:
            check_authority(asked.host)
    except Refused as refusal:
        return Explained(False, [f"{asked}: {refusal.status}, refused before routing: {refusal.reason}"])
    if method not in METHODS:
        return Explained(False, [f"{asked}: 501, unknown method (methods are case-sensitive: GET, not get)"])
    if method == b"CONNECT":
        return Explained(False, [f"{asked}: 405, CONNECT is not supported"])
    if path.decode("ascii") in config.reserved and not router.names(asked.host):
        return Explained(True, [f"{asked}: a reserved path, answered by the gateway itself"])
    explanation = router.explain(method, path, asked.host, asked.headers, query)
    match = explanation.match
    odd = oddities(path)
    if odd and (match is None or odd & ~match.keeps):
        return Explained(False, [f"{asked}: 400, the route does not keep encoded slashes, or empty segments"])
    lines = str(explanation).split("\n")
    if match is None:
        if not asked.host and any(route.hosts for route in config.routes):
            lines.append("  no host was given, and there are routes with hosts")
        lines += [f"  {name}: {value}" for told in RULES.told_unmatched for name, value in told(config)]
        return Explained(False, lines)
    index = index_of(match.value)
    return Explained(
        True,
        lines + [f"  {name}: {value}" for name, value in _demands(config, index, config.routes[index], path, query)],
    )


class Explain(Leaf):
    """``GET /explain?method=GET&target=/users/7``, perhaps with ``host`` and several ``header=Name: value``.

    Answers with JSON: ``found``, and ``lines`` of text.
    """

    def __init__(self, snapshot: Callable[[], Snapshot]) -> None:
        super().__init__()
        self._snapshot = snapshot

    def render_GET(self, request: WebRequest) -> int:
        snapshot = self._snapshot()
        try:
            query = request.request.query[1:].decode("latin-1")
            given = parse_qs(query, keep_blank_values=True, max_num_fields=MOST_FIELDS)
            headers = [header(text) for text in given.get("header", ())]
        except ValueError as error:
            raise BadRequest(str(error)) from None
        (method, *_), (target, *_), (host, *_) = (given.get(name, [""]) for name in ("method", "target", "host"))
        asked = Asked(method or "GET", target, host.encode("utf-8", "surrogateescape"), headers)
        indexes = {id(route): index for index, route in enumerate(snapshot.routes)}
        explained = explain(snapshot.config, snapshot.table.router, lambda route: indexes[id(route)], asked)
        return answer(request, 200, {"found": explained.found, "lines": explained.lines})


def header(text: str) -> tuple[bytes, bytes]:
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
    conditions = conditions_of(route)
    if conditions is not None:
        yield "if", str(conditions)
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
    yield "sent as", masked_in_url(sent_as(route, path, query))
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
