"""What operators ask on the admin listener, and the one thing that they may do there: circuits and limits, as JSON.

Reads are open to whoever reaches the listener. A write needs what no web page can send: the token, a JSON content type,
and a Host that is an address of this machine and no name that somebody else's DNS could lead here.

Each document is one list of objects named by what they are of (``service``; ``endpoint`` and ``scope``), with numbers
that a parent process can add up over its workers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from hmac import compare_digest
from ipaddress import ip_address
from json import loads
from typing import Any

from twisted.internet.interfaces import ITransport
from twisted.logger import Logger

from apigw import errors
from apigw.contract.resource import Leaf, answer
from apigw.ops.metrics import Metrics
from apigw.policy.limits.arithmetic import Limit
from apigw.policy.limits.in_redis import RedisStore
from apigw.policy.limits.memory import MemoryStore
from apigw.upstream.circuit import Circuit
from apigw.upstream.target import Target
from apigw.upstream.upstream import Upstream
from apigw.wire.web_request import WebRequest

REALM = b'Bearer realm="apigw admin"'
JSON_TYPE = b"application/json"

log = Logger()


class Limits(Leaf):
    """``GET /limits``: each limit, how it is counted, and how much of that is kept now."""

    def __init__(
        self, limits: Callable[[], Iterable[Limit]], store: MemoryStore | RedisStore, metrics: Metrics
    ) -> None:
        super().__init__()
        self._limits = limits
        self._store = store
        self._metrics = metrics

    def render_GET(self, request: WebRequest) -> int:
        store = self._store
        violations = self._metrics.violations()
        shown = [_limit(limit, store, violations.get((limit.endpoint, limit.scope), 0)) for limit in self._limits()]
        kept = {"kind": store.kind, "up": store.up, "keys": len(store), "fallbacks": self._metrics.fallbacks()}
        return answer(request, 200, {"store": kept, "limits": shown})


def _limit(limit: Limit, store: MemoryStore | RedisStore, violations: int) -> dict[str, object]:
    return {
        "endpoint": limit.endpoint,
        "scope": limit.scope,
        "limit": limit.limit,
        "window": limit.window,
        "algorithm": limit.algorithm,
        "on_store_failure": limit.on_store_failure,
        "violations": violations,
        "keys": store.keys_of(limit),
    }


class Circuits(Leaf):
    """``GET /circuits``: each service, its circuit and its targets. ``POST`` opens, closes or frees a circuit by hand.

    ``token`` gives the secret for writes, or None where there is none and writes are refused.
    """

    def __init__(self, upstreams: Callable[[], Iterable[Upstream]], token: Callable[[], bytes | None]) -> None:
        super().__init__()
        self._upstreams = upstreams
        self._token = token

    def render_GET(self, request: WebRequest) -> int:
        return answer(request, 200, {"circuits": [circuit_of(upstream) for upstream in self._upstreams()]})

    def render_POST(self, request: WebRequest) -> int:
        """A body such as ``{"service": "users", "action": "open"}``. Answers with the circuit as it is then."""
        may_write(request, self._token())
        upstream, action = self._wanted(request.content.getvalue())
        log.warn(
            "circuit of {service}: {action} by hand, from {peer}",
            service=upstream.name,
            action=action,
            peer=request.peer.decode("ascii", "replace"),
        )
        assert upstream.circuit is not None
        ACTIONS[action](upstream.circuit)
        return answer(request, 200, circuit_of(upstream))

    def _wanted(self, body: bytes) -> tuple[Upstream, str]:
        try:
            document = loads(body)
        except (ValueError, RecursionError):
            document = None
        if not isinstance(document, dict) or document.keys() != {"service", "action"}:
            raise errors.BadRequest('The body must be JSON such as {"service": "users", "action": "open"}.')
        service, action = document["service"], document["action"]
        if not isinstance(action, str) or action not in ACTIONS:
            raise errors.BadRequest(f"The action must be one of {', '.join(ACTIONS)}.")
        for upstream in self._upstreams():
            if upstream.name == service and upstream.circuit is not None:
                return upstream, action
        raise errors.NotFound("No service of that name has a circuit breaker.")


ACTIONS: Mapping[str, Callable[[Circuit], None]] = {"open": Circuit.open, "close": Circuit.close, "free": Circuit.free}


def circuit_of(upstream: Upstream) -> dict[str, object]:
    """A service as operators see it. Times are seconds; ``state`` is null where there is no circuit breaker."""
    shown: dict[str, object] = {"service": upstream.name, "state": None}
    if upstream.circuit is not None:
        status = upstream.circuit.status()
        shown |= {
            "state": str(status.state),
            "why": status.why,
            "since": _rounded(status.since),
            "retry_in": _rounded(status.retry_in),
            "failures": status.failures,
            "total": status.total,
            "forced": status.forced,
            "opened": status.opened,
        }
    return {**shown, "targets": [_target(target) for target in upstream.targets]}


def _target(target: Target) -> dict[str, object]:
    return {
        "target": target.name,
        "healthy": target.healthy,
        "available": target.available,
        "connections": target.pool.connections,
    }


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)


def may_write(request: WebRequest, token: bytes | None) -> None:
    """Raises what a request is refused with that must not change anything."""
    if not _is_here(request.authority, request.transport):
        raise errors.Misdirected("A write must be sent to an address of this listener, not to a name.")
    given = [value for name, value in request.headers if name == b"content-type"]
    if len(given) != 1 or given[0].partition(b";")[0].strip(b" \t").lower() != JSON_TYPE:
        raise errors.UnsupportedMediaType("A write must be application/json.")
    if token is None:
        raise errors.ReadOnly("Without gateway.admin_token_file nothing can be changed here.")
    credentials = [value for name, value in request.headers if name == b"authorization"]
    if not credentials:
        raise errors.Unauthorized("A token is required.", [(b"www-authenticate", REALM)])
    scheme, _, sent = credentials[0].partition(b" ")
    if len(credentials) != 1 or scheme.lower() != b"bearer" or not compare_digest(sent.strip(b" "), token):
        challenge = REALM + b', error="invalid_token"'
        raise errors.Unauthorized("The token is not the right one.", [(b"www-authenticate", challenge)], "invalid")


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
