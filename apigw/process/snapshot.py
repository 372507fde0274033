"""The snapshot: one compiled, immutable generation of the configuration."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from hashlib import blake2b
from itertools import chain

from attrs import evolve, field, frozen

from apigw.config.effective import effective
from apigw.config.errors import ConfigError, Problem, problem_in
from apigw.config.files import read
from apigw.config.model import Config, Service
from apigw.config.model import Route as RouteConfig
from apigw.contract.exchange import Route, Stage
from apigw.contract.peers import Peers, came_from
from apigw.contract.policy import POSITIONS, Part, Policy, Prepared
from apigw.ops.metrics import UNMATCHED
from apigw.ops.series import RouteSeries
from apigw.process import admin_token
from apigw.process.pieces import at_once
from apigw.proxy import forward
from apigw.proxy.destination import Destination
from apigw.proxy.headers import CopyRules, Memory
from apigw.proxy.held_body import Buffers
from apigw.proxy.keys import key_of
from apigw.proxy.pipeline import NoRoute, Table
from apigw.routing.configured import entry_of
from apigw.routing.router import Router
from apigw.routing.trie import Entry
from apigw.upstream.upstream import Upstream
from apigw.wire.channel import Settings
from apigw.wire.deadlines import Deadlines
from apigw.wire.tls import reason
from apigw.wire.web_request import WebRequest

UpstreamKey = tuple[Service, bytes]
"""A service's configuration, and a digest of its TLS files. Snapshots share upstreams with equal keys."""


@frozen(eq=False)
class Snapshot:
    config: Config
    routes: tuple[Route, ...]
    """In the order of the configuration."""
    table: Table
    may_scrape: Callable[[WebRequest], bool]
    """Whether a request may read ``/metrics`` on a public port."""
    settings: Settings
    upstreams: Mapping[UpstreamKey, Upstream]
    prepared: Mapping[str, Prepared]
    """What each policy has prepared, by its name."""
    admin_token: bytes | None = field(repr=False)
    """The token for writes on the admin listener; None if writes are refused."""

    @property
    def authorities(self) -> list[str]:
        """Files with the authorities of clients' certificates, for listeners that name none themselves."""
        return [file for each in self.prepared.values() for file in each.authorities()]


@frozen(eq=False)
class Parts:
    """What a snapshot is made with, and what outlives it: how to build an upstream, where exchanges are counted, the
    policies, and what bodies and deadlines are kept in."""

    build: Callable[[Service], Upstream]
    series: Callable[..., RouteSeries]
    policies: Sequence[Policy]
    deadlines: Deadlines
    buffers: Buffers
    log_decisions: bool = False


def compile(config: Config, previous: Snapshot | None, parts: Parts) -> Snapshot:
    """Compile ``config`` at once. Reuses upstreams of ``previous`` whose keys are equal, and does not change it.

    Raises ``ConfigError`` for problems that checks of the files did not find, such as an unusable certificate.
    """
    return at_once(compiling(config, previous, parts))


def compiling(config: Config, previous: Snapshot | None, parts: Parts) -> Generator[None, None, Snapshot]:
    """As ``compile``, in steps of less than a millisecond each."""
    upstreams, named = yield from _upstreams(config, previous, parts)
    prepared: dict[str, Prepared] = {}
    for policy in parts.policies:
        before = None if previous is None else previous.prepared[policy.name]
        made = policy.prepare(config, before, prepared)
        prepared[policy.name] = made if isinstance(made, Prepared) else (yield from made)
        yield
    gateway = config.gateway
    routes: list[Route] = []

    def entries() -> Iterator[Entry[Route]]:
        rules: dict[frozenset[bytes], CopyRules] = {}
        memory = Memory()

        def last(route: RouteConfig, added: Sequence[Part]) -> tuple[Stage, ...]:
            if route.service is None:
                return tuple(part.answer for part in added if part.answer is not None)
            stripped = frozenset(chain.from_iterable(part.stripped for part in added))
            copied = rules.get(stripped) or rules.setdefault(stripped, CopyRules(stripped, memory))
            destination = _destination(config, route, named[route.service], copied, parts)
            return forward.stages(destination, parts.buffers)

        for route in config.routes:
            added = [each.part(route) for each in prepared.values()]
            choice = next((part.choice for part in added if part.choice is not None), None)
            series = parts.series(route.path, route.name)
            if choice is None:
                compiled = _route(route, series, added, (*_stages(added), *last(route, added)))
            else:
                choose = forward.ChooseService(choice)
                before = (*_stages(added), choose)
                compiled = _route(evolve(route, service=", ".join(choice.services)), series, added, before)
                chosen: list[Route] = []
                for service in choice.services:
                    one = evolve(route, service=service)
                    its = [each.part(one) for each in prepared.values()]
                    stages = (*before, *_stages(its, added), *last(one, its))
                    chosen.append(_route(one, series, its, stages, chosen=True))
                choose.routes = tuple(chosen)
            routes.append(compiled)
            yield entry_of(route, compiled)

    router: Router[Route] = Router()
    yield from router.build(entries())
    no_route = (NoRoute(router),)
    unmatched_series = parts.series(UNMATCHED)
    added = [each.unmatched() for each in prepared.values()]
    access = _stages(added, positions=POSITIONS[:1])

    def own_entries() -> Iterator[Entry[Route]]:
        for each in prepared.values():
            for own in each.own_routes():
                stages = (*access, *_stages([own.part]), *no_route)
                compiled = _route(_unnamed(own.pattern), unmatched_series, [own.part], stages)
                yield Entry(own.pattern, own.methods, compiled, own.hosts)

    own_router: Router[Route] = Router()
    yield from own_router.build(own_entries())
    unmatched = _route(_unnamed(UNMATCHED), unmatched_series, added, (*_stages(added), *no_route))
    peers, allowed = Peers(gateway.trusted_proxies), Peers(gateway.metrics_allow)
    most = 2 * gateway.max_connections if gateway.max_requests is None else gateway.max_requests
    for each in prepared.values():
        each.routed(router)
    return Snapshot(
        config=config,
        routes=tuple(routes),
        table=Table(router, own_router or None, unmatched, peers, most, parts.log_decisions),
        may_scrape=lambda request: came_from(allowed, peers, request.request),
        settings=Settings(
            client_header_timeout=gateway.client_header_timeout,
            client_body_timeout=gateway.client_body_timeout,
            client_least_rate=gateway.client_least_rate,
            client_request_timeout=gateway.client_request_timeout,
            stream_idle_timeout=gateway.stream_idle_timeout,
            keepalive_timeout=gateway.keepalive_timeout,
            max_header_size=gateway.max_header_size,
            max_header_count=gateway.max_header_count,
            max_connections=gateway.max_connections,
            max_connections_per_address=gateway.max_connections_per_address,
            kept_oddities=router.keeps,
            trusted=peers.trusts,
        ),
        upstreams=upstreams,
        prepared=prepared,
        admin_token=_admin_token(config),
    )


def letting_go(snapshot: Snapshot) -> Generator[None, None, None]:
    """Free a snapshot that is not used any more in steps; at once, 10,000 routes take 40 ms.

    What is still used, as the route of an exchange, stays whole. Whoever calls this keeps no reference.
    """
    config, table = snapshot.config, snapshot.table
    routers = [table.router] if table.own is None else [table.router, table.own]
    kept: deque[object] = deque()
    # Each node before those below it, so that it is freed alone. Then what they have led to.
    for every in (*(router.nodes() for router in routers), snapshot.routes, config.routes, config.origins.items()):
        for each in every:
            kept.append(each)
            yield
    del snapshot, config, table, routers, every, each
    yield
    while kept:
        kept.popleft()
        yield


def _upstreams(
    config: Config, previous: Snapshot | None, parts: Parts
) -> Generator[None, None, tuple[Mapping[UpstreamKey, Upstream], Mapping[str, Upstream]]]:
    """By key, and by name. Raises ``ConfigError`` for TLS that cannot be set up."""
    upstreams: dict[UpstreamKey, Upstream] = {}
    named: dict[str, Upstream] = {}
    problems: list[Problem] = []
    for service in config.services:
        path = ("services", service.name)
        bare = evolve(service, added=()) if service.added else service  # what policies have added changes no connection
        try:
            key = (bare, _digest(bare))
            kept = previous.upstreams.get(key) if previous is not None else None
            named[service.name] = upstreams[key] = kept or parts.build(bare)
        except Exception as error:
            problems.append(problem_in(config, path, f"cannot be set up: {reason(error)}"))
        yield
    if problems:
        raise ConfigError(problems)
    return upstreams, named


def _destination(
    config: Config, route: RouteConfig, upstream: Upstream, copied: CopyRules, parts: Parts
) -> Destination:
    service = upstream.service
    holds = effective(config, route, service)
    hashed = service.balance.hash
    return Destination(
        upstream=upstream,
        copied=copied,
        deadlines=parts.deadlines,
        timeout=holds.timeout,
        stream_timeout=holds.stream_timeout,
        tunnel_idle_timeout=config.gateway.tunnel_idle_timeout,
        max_body_size=holds.max_body_size,
        buffer_body=holds.buffer_body,
        preserve_host=service.preserve_host,
        log_decisions=parts.log_decisions,
        key_of=None if hashed is None else key_of(hashed.by, hashed.name),
    )


def _stages(added: Sequence[Part], before: Sequence[Part] = (), positions: Sequence[str] = POSITIONS) -> list[Stage]:
    """The stages of the policies, each at its position, without those that are in ``before`` too."""
    found: list[Stage] = []
    for at in positions:
        for number, part in enumerate(added):
            held, earlier = part.stages.get(at), before[number].stages.get(at) if before else None
            if isinstance(held, tuple):
                found += [stage for stage in held if not (isinstance(earlier, tuple) and stage in earlier)]
            elif held is not None and earlier is None:
                found.append(held)
    return found


def _unnamed(pattern: str) -> RouteConfig:
    """A route that is not in the configuration."""
    return RouteConfig(pattern, name="")


def _route(
    route: RouteConfig, series: RouteSeries, added: Sequence[Part], stages: Sequence[Stage], chosen: bool = False
) -> Route:
    """A route with what the policies add to it. ``stages`` are all of them."""
    hooks = tuple(chain.from_iterable(part.hooks for part in added))
    on_refusal = tuple(chain.from_iterable(part.on_refusal for part in added))
    screens = tuple(chain.from_iterable(part.screens for part in added))
    on_lasting = tuple(chain.from_iterable(part.on_lasting for part in added))
    hooked = hooks, on_refusal, screens, on_lasting
    bodies = (
        tuple(chain.from_iterable(part.on_request_body for part in added)),
        tuple(chain.from_iterable(part.on_answer_body for part in added)),
        tuple(chain.from_iterable(part.choosers for part in added)),
    )
    logged = route.access_log is not None
    which = route.path, route.methods, route.service, series
    return Route(*which, tuple(stages), *hooked, route.name, logged, chosen, *bodies)


def _admin_token(config: Config) -> bytes | None:
    """Raises ``ConfigError`` for one that cannot be used."""
    file = config.gateway.admin_token_file
    if file is None:
        return None
    path = ("gateway", "admin_token_file")
    try:
        return admin_token.parse(read(file))
    except ValueError as error:
        raise ConfigError([problem_in(config, path, f"{file!r} {error}")]) from None


def _digest(service: Service) -> bytes:
    digest = blake2b(digest_size=16)
    for file in (service.tls.ca_file, service.tls.client_cert_file, service.tls.client_key_file):
        if file is not None:
            with open(file, "rb") as content:
                digest.update(blake2b(content.read()).digest())
    return digest.digest()
