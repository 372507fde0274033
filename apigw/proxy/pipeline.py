# Compiled: see docs/decisions/compiled.md
"""One request's way: ``Gateway.proceed`` walks its stages, ``Exchange`` is what it carries along."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IPushProducer
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import classImplements

from apigw import errors
from apigw.errors import GatewayError
from apigw.policy.cors.cors import without_cors
from apigw.policy.limits.redis_store import Pending, RedisStore
from apigw.proxy.headers import DROPPED, client_headers, request_id, upstream_fields
from apigw.proxy.held_body import Buffers, HeldBody
from apigw.proxy.stages import STAGES
from apigw.upstream.failover import Taken, again, connect
from apigw.wire.deadlines import Deadlines
from apigw.wire.errors import (
    ClientLost,
    ConnectFailed,
    PoolExhausted,
    Refused,
    UpstreamError,
    UpstreamLost,
    UpstreamTimedOut,
)
from apigw.wire.headers import Header, Headers
from apigw.wire.interfaces import Message
from apigw.wire.request import Request
from apigw.wire.tunnel import join

if TYPE_CHECKING:
    from apigw.policy.auth.principal import Principal
    from apigw.policy.limits.limits import Limit, MemoryStore
    from apigw.process.snapshot import Route, Snapshot
    from apigw.upstream.target import Target

    LimitStore = MemoryStore | RedisStore

CLIENT_LEFT = 499
FAILURES = frozenset({500, 502, 503, 504})
"""Answers of a service that say that it, and not the request, is at fault."""

log = Logger(namespace=__name__)


class Gateway:
    """The proxy. ``snapshot`` is replaced by a reload; an exchange keeps the one that it began with."""

    def __init__(
        self,
        snapshot: Snapshot,
        deadlines: Deadlines,
        store: LimitStore,
        account: Callable[[Exchange], None],
        buffers: Buffers,
    ) -> None:
        self.snapshot = snapshot
        self.clock: Callable[[], float] = deadlines.seconds
        self.deadlines = deadlines
        self.buffers = buffers
        self.store = store
        self.account = account
        self.in_flight = 0

    def render(self, request: Request) -> None:
        """Runs when the headers are complete; the body has not been read."""
        exchange = Exchange(self, request)
        self.in_flight += 1
        self.proceed(exchange)

    def proceed(self, exchange: Exchange) -> None:
        """Walk route → authenticate → limit → forward; then the exchange relays the answer, and is accounted for.

        Each stage is done at once, unless it must wait.
        """
        try:
            for stage in exchange.stages:
                waiting = stage(exchange)
                if waiting is not None:
                    exchange.waiting = waiting
                    if not isinstance(waiting, (Pending, HeldBody)):  # which know how to go on
                        waiting.addCallbacks(exchange.proceed, exchange.stage_failed)
                    return
                if exchange.ended:
                    return
        except GatewayError as error:
            exchange.refuse(error)
        except Exception:
            exchange.stage_failed(Failure())

    def ended(self, exchange: Exchange) -> None:
        self.in_flight -= 1
        self.account(exchange)


class Exchange:
    """One request and its response: listens to the client, receives from the upstream, and relays between them."""

    route: Route = None  # type: ignore[assignment]  # until the first stage has found it
    target: Target | None = None
    principal: Principal | None = None
    own_headers: Sequence[Header] = ()
    """What the gateway adds to any answer to this request."""
    dropped: frozenset[bytes]
    """The fields of a service's response that do not reach the client."""
    violated: Limit | None = None
    """The limit that refused it."""
    permit: int | None = None
    """The circuit's leave, until the circuit has been told how it went."""
    waiting: Deferred[Any] | Pending | HeldBody | None
    held: HeldBody | None = None
    """What of the body came before there was a connection."""
    taken: Taken | None = None
    """The connection on which the target is spoken to."""
    status = 0
    refusal: GatewayError | None = None
    """Why the answer is the gateway's own."""
    sent_at = 0.0
    upstream_ended_at = 0.0
    event_stream = False
    tunnelled = False
    ended = False
    _repeated = False

    def __init__(self, gateway: Gateway, request: Request) -> None:
        self._gateway = gateway
        self.dropped = DROPPED
        self.waiting = None
        self.request = request
        self.snapshot = gateway.snapshot
        self.clock = gateway.clock
        self.store = gateway.store
        self.started_at = gateway.clock()
        self.stages = iter(STAGES)
        self.id = request_id(request.headers)
        request.listener = self

    @property
    def client_address(self) -> str:
        return self.snapshot.peers.client_address(self.request).decode("ascii")

    def proceed(self, _: object = None) -> None:
        """What a stage waited for is there."""
        self.waiting = None
        self._gateway.proceed(self)

    # Towards the upstream.

    def connect(self, target: Target) -> None:
        """No connection is idle: wait for one."""
        connecting: Deferred[Any] = connect(self.route.upstream, target)
        self.waiting = connecting.addCallbacks(self.send, self._connect_failed).addErrback(self.stage_failed)

    def send(self, taken: Taken) -> None:
        self.waiting = None
        self.taken = taken
        self.target = target = taken.target
        connection = taken.connection
        request, route = self.request, self.route
        host = request.authority if route.preserve_host and request.authority else target.authority
        uri = request.uri if not route.strip else _strip(request, route.strip)
        own = () if self.principal is None else self.principal.fields
        fields = upstream_fields(request, self.snapshot.peers, self.id, own, not route.forward_token)
        length, upgrade = request.content_length, request.upgrade
        self.sent_at = self.clock()
        connection.send(Message(request.method, uri, host, fields, length, upgrade, route.timeout), self)
        held = self.held
        if held is None:
            if request.body_complete and not request.bytes_received:
                connection.finish()
            else:
                connection.flush()
                request.read_body()
            return
        connection.write(held.read())
        if request.body_complete:
            connection.finish()
        else:
            self._release_body()
            request.resume_body()

    def _connect_failed(self, failure: Failure) -> None:
        self.waiting = None
        if failure.check(CancelledError):
            return
        if failure.check(ConnectFailed):
            self._settle(failed=True)
            self.refuse(errors.UpstreamUnreachable("The service cannot be reached."))
        elif failure.check(PoolExhausted):
            self.route.upstream.series.error("overloaded")
            self.refuse(errors.Overloaded("The service has too many requests waiting.", [(b"retry-after", b"1")]))
        else:
            self.stage_failed(failure)

    # wire.request.Listener: the client's body, and its end.

    def body_received(self, data: bytes) -> None:
        limit = self.route.max_body_size
        if limit is not None and self.request.bytes_received > limit:
            self.refuse(errors.BodyTooLarge(f"The body may have up to {limit} bytes."))
        elif self.taken is not None:
            self.taken.connection.write(data)
        elif self.held is not None and self.held.add(data):
            self.request.pause_body()
            self._body_held()

    def body_finished(self) -> None:
        if self.taken is not None:
            self.taken.connection.finish()
        else:
            self._body_held()

    def hold_body(self, wanted: int) -> HeldBody | None:
        """Read the body until ``wanted`` bytes are there. Returns what is waited for, if anything."""
        self.held = held = HeldBody(self._gateway.buffers, wanted)
        self.request.read_body()
        return held if held.waiting and not self.ended else None

    def _body_held(self) -> None:
        """Enough of it is there, or all."""
        if self.held is not None and self.held.waiting:
            self.held.waiting = False
            if self.waiting is self.held:
                self.proceed()

    def _release_body(self) -> None:
        held, self.held = self.held, None
        if held is not None:
            held.release()

    def client_failed(self, error: Refused | ClientLost) -> None:
        if isinstance(error, Refused):
            self.refuse(refused(error))
            return
        self._give_up()
        if not self.tunnelled:
            self.status = CLIENT_LEFT
        self._end()

    # wire.interfaces.Receiver: the response.

    def pause_body(self) -> None:
        self.request.pause_body()

    def resume_body(self) -> None:
        self.request.resume_body()

    def response_started(self, status: int, reason: bytes, headers: Headers) -> None:
        self._release_body()
        request = self.request
        self.status = status
        if self.route.cors is not None:
            headers = without_cors(headers)
        out = client_headers(headers, status, self.id, self.own_headers, self.dropped)
        assert self.taken is not None
        if status == 101:
            self._start_tunnel(out)
            return
        if self.taken.connection.event_stream:
            self.event_stream = True
            self._settle(failed=False)  # which otherwise would hold its place in a half-open circuit for ever
        request.start(status, out, reason)

    def response_received(self, data: bytes) -> None:
        self.request.write(data)

    def response_paused(self) -> None:
        self.request.flush()
        self.request.stream.set_producer(self)

    def response_finished(self) -> None:
        self._part()
        self.upstream_ended_at = self.clock()
        if self.permit is not None:
            self._settle(self.status in FAILURES)
        self.request.finish()
        self._end()

    def response_failed(self, error: UpstreamError) -> None:
        taken = self._part()
        assert taken is not None
        upstream, request = self.route.upstream, self.request
        upstream.series.error(_KINDS.get(type(error), "protocol"))
        kept = request.content_length == 0 or (self.held is not None and request.body_complete)
        target = again(upstream, taken, error, request.method, kept, self._repeated)
        if target is not None:
            self._repeated = True
            self.connect(target)
            return
        self._settle(failed=True)
        if isinstance(error, UpstreamTimedOut):
            self.refuse(errors.UpstreamTimeout("The service did not answer in time."))
        else:
            if self.snapshot.log_decisions:
                log.debug("{id}: {target}: {error}", id=self.id.decode("ascii"), target=taken.target.name, error=error)
            self.refuse(errors.UpstreamProtocolError("The service gave no valid answer."))

    # IPushProducer: the client reads slower than the upstream sends.

    def pauseProducing(self) -> None:
        if self.taken is not None:
            self.taken.connection.pause_response()

    def resumeProducing(self) -> None:
        if self.taken is not None:
            self.taken.connection.resume_response()

    def stopProducing(self) -> None:
        """The client is gone; ``client_failed`` follows."""

    # Endings.

    def refuse(self, error: GatewayError) -> None:
        """The gateway's own answer, or where an answer has begun, its end in a way that cannot look complete."""
        if self.ended:
            return
        self._give_up()
        self.refusal = error
        if self.request.started:
            self.request.abort()
        else:
            self.status, headers, body = errors.render(error, self.id.decode("latin-1"))
            self.request.respond(self.status, [*headers, *self.own_headers, (b"x-request-id", self.id)], body)
        self._end()

    def respond(self, status: int, headers: Headers, body: bytes = b"") -> None:
        """A whole answer that is not the upstream's, and no error."""
        self.status = status
        self.request.respond(status, [*headers, *self.own_headers, (b"x-request-id", self.id)], body)
        self._end()

    def stage_failed(self, failure: Failure) -> None:
        if self.ended or failure.check(CancelledError):
            return
        error = failure.value
        if isinstance(error, GatewayError):
            self.refuse(error)
            return
        log.failure("{id}: a stage failed", failure=failure, id=self.id.decode("ascii"))
        self.refuse(GatewayError("The gateway failed."))

    def _give_up(self) -> None:
        """Stop waiting, and let go of the upstream."""
        waiting, self.waiting = self.waiting, None
        if waiting is not None:
            waiting.cancel()
        taken = self._part()
        if taken is not None:
            taken.connection.abandon()

    def _part(self) -> Taken | None:
        """The exchange with the target is over."""
        taken, self.taken = self.taken, None
        if taken is not None:
            taken.end()
        return taken

    def _start_tunnel(self, out: Headers) -> None:
        taken = self._part()
        assert taken is not None
        upstream = taken.connection.give_up()
        out += ((b"connection", b"upgrade"), (b"upgrade", b"websocket"))
        client = self.request.start_tunnel(out)
        self.tunnelled = True
        self._settle(failed=False)
        gateway = self._gateway
        idle_timeout = self.snapshot.config.gateway.tunnel_idle_timeout
        join(client, upstream, gateway.deadlines, idle_timeout).addCallback(lambda _: self._end())

    def _settle(self, failed: bool) -> None:
        """Tell the circuit how the service did. Exchanges that end otherwise say nothing of it."""
        permit, self.permit = self.permit, None
        if permit is not None:
            circuit = self.route.upstream.circuit
            assert circuit is not None
            (circuit.failure if failed else circuit.success)(permit, self.clock())

    def _end(self) -> None:
        """Account for the exchange, exactly once."""
        if not self.ended:
            self.ended = True
            self.request.listener = None
            self._release_body()
            if self.permit is not None:
                assert self.route.upstream.circuit is not None
                self.route.upstream.circuit.cancel(self.permit, self.clock())
            self._gateway.ended(self)


classImplements(Exchange, IPushProducer)


def refused(error: Refused) -> GatewayError:
    """A refusal of the wire as the gateway puts it."""
    kind = _REFUSALS.get(error.status, errors.BadRequest)
    return kind(error.reason)


_KINDS: dict[type[UpstreamError], str] = {UpstreamTimedOut: "timeout", UpstreamLost: "lost"}

_REFUSALS: dict[int, type[GatewayError]] = {
    405: errors.MethodNotAllowed,
    408: errors.ClientTimeout,
    413: errors.BodyTooLarge,
    414: errors.TargetTooLong,
    431: errors.HeadersTooLarge,
    501: errors.NotImplementedMethod,
}


def _strip(request: Request, segments: int) -> bytes:
    """The target without its first raw segments."""
    rest = request.path.split(b"/", segments + 1)[segments + 1 :]
    return b"/" + (rest[0] if rest else b"") + request.query
