# Compiled: see docs/decisions/compiled.md
"""One request's way: find its route, walk the route's stages, and end exactly once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, cast

from twisted.internet.defer import CancelledError
from twisted.logger import Logger
from twisted.python.failure import Failure

from apigw import errors
from apigw.contract.exchange import Answer, Call, Driver, Exchange, Outcome, Route, Stage, Waiting
from apigw.contract.peers import Peers
from apigw.errors import GatewayError
from apigw.proxy.grpc import call_of, head_of, status_of, takes_trailers, trailers_of
from apigw.proxy.hooks import hooked
from apigw.proxy.refusals import refused
from apigw.proxy.relay import Relay
from apigw.routing.router import Router
from apigw.shared.tally import Tally
from apigw.wire.errors import ClientLost, Refused
from apigw.wire.headers import Headers
from apigw.wire.request import Request

CLIENT_LEFT: Final = 499
"""The status in logs and metrics for an exchange whose client has left, as in nginx."""
SWITCHED: Final = 101

log = Logger(namespace=__name__)


class Table:
    """The routes of one configuration. A reload replaces it.

    Routes of ``own`` are answered by policies, and are tried after ``router``. ``unmatched`` is the route of requests
    that neither matches. ``most`` is the maximum number of concurrent exchanges.
    """

    def __init__(
        self,
        router: Router[Route],
        own: Router[Route] | None,
        unmatched: Route,
        peers: Peers,
        most: int,
        log_decisions: bool,
    ) -> None:
        self.router = router
        self.own = own
        self.unmatched = unmatched
        self.peers = peers
        self.most = most
        self.log_decisions = log_decisions

    def otherwise(self, request: Request) -> Route:
        """The route of a request that ``router`` does not match."""
        match = None if self.own is None else self.own.match(request.method, request.path, request.authority)
        return self.unmatched if match is None else match.value


class NoRoute(Stage):
    """404, or 405 where the path has routes for other methods."""

    def __init__(self, router: Router[Route]) -> None:
        self._router = router

    def run(self, exchange: Exchange) -> Outcome:
        request = exchange.request
        allow = self._router.allow(request.path, request.authority, request.headers, request.query)
        if not allow:
            raise errors.NotFound("No route matches this path.")
        raise errors.MethodNotAllowed(
            "This path does not allow this method; see Allow.", [(b"allow", b", ".join(allow))]
        )


class Pipeline(Driver):
    """The proxy. Exchanges in flight keep their route when ``table`` is replaced.

    Requests for the paths in ``reserved`` go to ``resources``, if no route names their host. ``on_shed`` is called for
    each request that is refused because there is too much, with the reason: ``full`` or ``late``.
    """

    def __init__(
        self,
        table: Table,
        seconds: Callable[[], float],
        account: Callable[[Exchange], None],
        resources: Callable[[Request], None],
        on_shed: Callable[[str], object] = lambda reason: None,
        tally: Tally | None = None,
    ) -> None:
        """``tally`` counts the exchanges of all processes, where others serve too."""
        self.table = table
        self.reserved: frozenset[bytes] = frozenset()
        self._seconds = seconds
        self._account = account
        self._resources = resources
        self._on_shed = on_shed
        self._tally = Tally() if tally is None else tally
        self._late = False
        self._most = table.most
        """The maximum of exchanges: that of the table, or 0 while the reactor is late."""
        self.guard: Stage | None = None
        """Runs before each stage of every exchange, where there is one; it sees who calls as soon as that is known."""
        self.cut = False
        """Whether the gateway is closing the connections in flight, because ``drain_timeout`` has passed."""

    @property
    def in_flight(self) -> int:
        """The exchanges of this process that have begun and not ended."""
        return self._tally.own

    def use(self, table: Table) -> None:
        """Use ``table`` for new exchanges."""
        self.table = table
        self.late(self._late)

    def late(self, late: bool) -> None:
        """Refuse every new exchange from now on, because the reactor is late; or no longer."""
        self._late = late
        self._most = 0 if late else self.table.most

    def on_request(self, request: Request) -> None:
        """Called when the headers are complete. The body has not been read."""
        if request.path in self.reserved and not self.table.router.names(request.authority):
            self._resources(request)
        else:
            self._walk(request, None, None)

    def resume(self, exchange: Exchange, outcome: Outcome) -> None:
        if exchange.refusal is not None:
            self._refuse_unless(exchange)
        else:
            self._walk(exchange.request, exchange, outcome)

    def _walk(self, request: Request, exchange: Exchange | None, outcome: Outcome) -> None:
        """One request's way: find its route, then run the route's stages, until one answers, refuses, or waits.

        After a stage that waited, the walk resumes at the position of ``exchange``, with the ``outcome``. After the
        last stage, the exchange belongs to the relay.
        """
        if exchange is None:
            table = self.table
            exchange = Exchange(self, request, table.peers, self._seconds())
            match = table.router.match(request.method, request.path, request.authority, request.headers, request.query)
            exchange.route = match.value if match is not None else table.otherwise(request)
            if table.log_decisions:
                explained = table.router.explain(
                    request.method, request.path, request.authority, request.headers, request.query
                )
                log.debug("{decision}", decision=str(explained))
            if self._tally.one_more(self._most, exchange.started_at):
                self._shed(exchange)
                return
            if request.odd and (match is None or request.odd & ~match.keeps):
                exchange.route = table.unmatched
                self.refuse(exchange, errors.BadRequest("The path contains an encoded slash, or an empty segment."))
                return
        stages = exchange.route.stages
        guard = self.guard
        try:
            while outcome is None and not exchange.ended:
                if guard is not None:
                    guard.run(exchange)
                at = exchange.at
                if at == len(stages):
                    if stages is exchange.route.stages:
                        return
                    stages = exchange.route.stages  # those of the service that was chosen
                exchange.at = at + 1
                outcome = stages[at].run(exchange)
        except Exception as error:
            self.fail(exchange, error)
            return
        if isinstance(outcome, Waiting):
            if exchange.refusal is None and not exchange.ended:  # by what it had to wait for, which failed at once
                exchange.waiting = outcome
        elif outcome is not None:
            self.respond(exchange, outcome)

    def _shed(self, exchange: Exchange) -> None:
        """Refuse before any work is done for it."""
        self._on_shed("late" if self._late else "full")
        why = "The gateway is late with its work." if self._late else "The gateway has too many requests in flight."
        self.refuse(exchange, errors.Overloaded(why, [(b"retry-after", b"1")]))

    def fail(self, exchange: Exchange, error: BaseException) -> None:
        """A stage has raised ``error``, or what it waited for has failed with it."""
        if exchange.ended or isinstance(error, CancelledError):
            return
        if not isinstance(error, GatewayError):
            log.failure("{id}: a stage failed", failure=Failure(error), id=exchange.id.decode("ascii"))
            error = GatewayError("An error in the gateway; its log has the details.")
        exchange.refusal = error
        self._refuse_unless(exchange)

    def _refuse_unless(self, exchange: Exchange) -> None:
        """Run each ``on_refusal`` of the route once, then refuse. One that waits delays the refusal."""
        asked = exchange.route.on_refusal
        while exchange.asked < len(asked):
            at = exchange.asked
            exchange.asked = at + 1
            assert exchange.refusal is not None
            try:
                waiting = asked[at].run(exchange, exchange.refusal)
            except GatewayError as instead:
                exchange.refusal = instead
                continue
            except Exception:
                log.failure("{id}: on_refusal of a policy failed", id=exchange.id.decode("ascii"))
                continue
            if waiting is not None:
                if exchange.asked == at + 1 and not exchange.ended:  # by what it had to wait for, as above
                    exchange.waiting = waiting
                return
        assert exchange.refusal is not None
        self.refuse(exchange, exchange.refusal)

    def refuse(self, exchange: Exchange, error: GatewayError) -> None:
        """Answer with ``error``. If an answer has begun, abort it, so that it cannot look complete."""
        if exchange.ended:
            return
        self._abandon(exchange)
        exchange.refusal = error
        request = exchange.request
        call = call_of(exchange)
        if call is not None:
            self._end_call(exchange, call, error)
        elif request.started:
            request.abort()
        else:
            status, headers, body = errors.render(error, exchange.id.decode("latin-1"))
            self._send(exchange, status, headers, body)
        self.end(exchange)

    def _end_call(self, exchange: Exchange, call: Call, error: GatewayError) -> None:
        """Refuse a gRPC call: by the service's reset, by trailers, or where nothing was sent, by a head alone."""
        request = exchange.request
        call.status = status_of(error)
        begun = request.started
        if error.reset is not None and request.clientproto == b"HTTP/2":
            request.abort(error.reset)
        elif not begun:
            self._send(exchange, 200, head_of(error, request), b"")
        elif takes_trailers(request):
            request.finish(trailers_of(error))
        else:
            request.abort()
        if not begun:
            exchange.status = error.status

    def respond(self, exchange: Exchange, answer: Answer) -> None:
        if exchange.ended:
            return
        self._send(exchange, answer.status, answer.headers, answer.body)
        self.end(exchange)

    def client_failed(self, exchange: Exchange, error: Refused | ClientLost) -> None:
        if isinstance(error, Refused):
            self.refuse(exchange, refused(error))
            return
        self._abandon(exchange)
        if self.cut:
            exchange.refusal = errors.DrainTimeout()
            if not exchange.request.started:
                exchange.status = errors.DrainTimeout.status
        elif exchange.status != SWITCHED:
            exchange.status = CLIENT_LEFT
        self.end(exchange)

    def end(self, exchange: Exchange) -> None:
        """End the exchange, and account for it exactly once."""
        if not exchange.ended:
            exchange.ended = True
            exchange.request.listener = None
            relay = None if exchange.relay is None else cast(Relay, exchange.relay)
            if relay is not None and (
                relay.held is not None or relay.permit is not None or relay.repeatable is not None
            ):
                relay.close()
            self._tally.one_less()
            exchange.ended_at = self._seconds()
            for each in exchange.at_end:
                each.run(exchange)
            self._account(exchange)
            exchange.relay = exchange.view = None  # breaks reference cycles, for the garbage collector's sake

    def _abandon(self, exchange: Exchange) -> None:
        """Cancel what the exchange waits for, and its request to the service."""
        waiting, exchange.waiting = exchange.waiting, None
        if waiting is not None:
            waiting.cancel()
        if exchange.relay is not None:
            exchange.relay.abandon()

    def _send(self, exchange: Exchange, status: int, headers: Headers, body: bytes) -> None:
        exchange.status = status
        headers = [*headers, *exchange.added, (b"x-request-id", exchange.id)]
        if exchange.route.hooks and not exchange.hooks_failed:
            seen = hooked(exchange, status, headers, own=True)
            if seen is None:
                return
            headers = seen
        exchange.request.respond(status, headers, body)
