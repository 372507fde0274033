# Compiled: see docs/decisions/compiled.md
"""Relays an exchange whose bodies go through hooks of its route, which see them, and may change them."""

from __future__ import annotations

from typing import final

from apigw.contract.bodies import BodyHook
from apigw.contract.exchange import Exchange
from apigw.proxy.destination import Destination
from apigw.proxy.pieces import Pieces, Sink
from apigw.proxy.relay import Relay
from apigw.wire.headers import Headers, first
from apigw.wire.request import BODYLESS_STATUS


@final
class HookedRelay(Relay):
    """A relay with hooks between its two sides."""

    def __init__(self, exchange: Exchange, destination: Destination) -> None:
        super().__init__(exchange, destination)
        self._asked: Pieces | None = None
        """The request's body, if hooks see it."""
        self._asked_ended = False
        """Whether all of it has passed the hooks."""
        self._asked_changes = False
        hooks = _seen_by(exchange.route.on_request_body, exchange)
        if hooks and exchange.request.content_length != 0:
            self._asked = Pieces(exchange, hooks, ToService(self))
            self._asked_changes = _change(hooks)
        self._answered: Pieces | None = None
        """The same of the answer's."""
        self._answered_changes = False
        self._collected: list[bytes] | None = None
        """Pieces of an answer that has come whole, until all of it has passed the hooks, or one waits."""

    # The request.

    def length(self) -> int | None:
        if not self._asked_changes:
            return self.request.content_length
        held = self.held
        return len(held) if held is not None and self._asked_ended else None

    def is_complete(self) -> bool:
        return self.request.body_complete and (self._asked is None or self._asked_ended)

    def body_received(self, data: bytes) -> None:
        asked = self._asked
        if asked is None:
            super().body_received(data)
        elif not self.is_too_large():
            asked.add(data, False)

    def body_finished(self) -> None:
        if self._asked is None:
            super().body_finished()
        else:
            self._asked.add(b"", True)

    def asked_ended(self) -> None:
        self._asked_ended = True
        super().body_finished()

    def read_on(self) -> None:
        if self._asked is None or not self._asked.waiting:
            super().read_on()

    def read_on_after_wait(self) -> None:
        """A hook of the request's body has waited, and does no longer."""
        held = self.held
        if not self.full and (self.connection is not None or (held is not None and held.waiting)):
            super().read_on()

    # The answer.

    def head_of(self, status: int, headers: Headers, version: bytes) -> Headers | None:
        out = super().head_of(status, headers, version)
        exchange = self.exchange
        if out is None or status == 101 or status in BODYLESS_STATUS or first(out, b"content-length") == b"0":
            return out
        hooks = _seen_by(exchange.route.on_answer_body, exchange)
        if hooks:
            self._answered_changes = _change(hooks)
            if self._answered_changes:
                out = [header for header in out if header[0] != b"content-length"]
            if self.request.method != b"HEAD":
                self._answered = Pieces(exchange, hooks, ToClient(self))
        return out

    def response_received(self, data: bytes) -> None:
        if self._answered is None:
            super().response_received(data)
        else:
            self._answered.add(data, False)

    def response_finished(self) -> None:
        if self._answered is None:
            self._leave()
            super().response_finished()
        else:
            self.upstream_ended(self.exchange.status)
            self._answered.add(b"", True)

    def response_whole(self, status: int, reason: bytes, headers: Headers, body: bytes) -> None:
        empty = not body and status not in BODYLESS_STATUS and self.request.method != b"HEAD"
        if empty and self.exchange.call is None and first(headers, b"content-length") is None:
            headers = [*headers, (b"content-length", b"0")]  # so that hooks of the head promise nothing of a body
        out = self.head_of_whole(status, headers)
        if out is None:
            return
        answered = self._answered
        if answered is not None:
            collected = self._collected = []
            answered.add(body, True)
            if self.exchange.ended:
                return  # a hook has failed
            self._collected = None
            body = b"".join(collected)
            if answered.waiting:
                self.request.start(status, out, reason)
                if body:
                    self.request.write(body)
                    self.request.flush()
                return
            if self._answered_changes:
                out.append((b"content-length", b"%d" % len(body)))
        self._leave()
        self.request.respond(status, out, body, reason)
        self.exchange.driver.end(self.exchange)

    def answer_piece(self, data: bytes) -> None:
        collected = self._collected
        if collected is not None:
            collected.append(data)
        else:
            self.request.write(data)

    def answer_ended(self) -> None:
        if self._collected is None:
            self._leave()
            self.request.finish(self.trailers)
            self.exchange.driver.end(self.exchange)

    def _leave(self) -> None:
        """The service has answered: what it has not got of the request, it does not need."""
        if self._asked is not None:
            self._asked.cancel()

    def answer_waits(self) -> None:
        if self.connection is not None:
            self.connection.pause_response()

    def answer_goes_on(self) -> None:
        self.request.flush()
        if self.connection is not None and not self.unread:
            self.connection.resume_response()

    def resumeProducing(self) -> None:
        if self._answered is not None and self._answered.waiting:
            self.unread = False
        else:
            super().resumeProducing()

    # The end.

    def abandon(self) -> None:
        super().abandon()
        for pieces in (self._asked, self._answered):
            if pieces is not None:
                pieces.cancel()


@final
class ToService(Sink):
    """The request's body goes to the service, or is held for it."""

    def __init__(self, relay: HookedRelay) -> None:
        self._relay = relay

    def piece(self, data: bytes) -> None:
        self._relay.take_body(data)

    def ended(self) -> None:
        self._relay.asked_ended()

    def waits(self) -> None:
        self._relay.request.pause_body()

    def goes_on(self) -> None:
        self._relay.read_on_after_wait()


@final
class ToClient(Sink):
    """The answer's body goes to the client."""

    def __init__(self, relay: HookedRelay) -> None:
        self._relay = relay

    def piece(self, data: bytes) -> None:
        self._relay.answer_piece(data)

    def ended(self) -> None:
        self._relay.answer_ended()

    def waits(self) -> None:
        self._relay.answer_waits()

    def goes_on(self) -> None:
        self._relay.answer_goes_on()


def _seen_by(hooks: tuple[BodyHook, ...], exchange: Exchange) -> list[BodyHook]:
    return [hook for hook in hooks if not hook.passes(exchange)]


def _change(hooks: list[BodyHook]) -> bool:
    return any(hook.changes for hook in hooks)
