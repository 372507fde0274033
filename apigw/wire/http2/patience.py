# Compiled: see docs/decisions/compiled.md
"""The deadlines of an HTTP/2 stream of a client, and the least rate of its body."""

from __future__ import annotations

from apigw.wire.deadlines import NEVER
from apigw.wire.http2.connection import Connection
from apigw.wire.pace import Pace
from apigw.wire.request import Request, Stream


class Patience(Stream):
    """The base of ``HTTP2Stream``. Provides ``wire.deadlines.Timed`` while it waits for the client."""

    def __init__(self, channel: Connection) -> None:
        super().__init__(channel.peer, channel.secure)
        self.transport = channel.transport
        self.channel = channel
        self.request: Request | None = None
        self.deadline: float = NEVER
        self._remaining: int | None = None  # bytes left of a body with a Content-Length
        self._body_due: float = NEVER  # the next piece of the body
        self._whole_due: float = NEVER  # all of it
        self._window_due: float = NEVER
        self._pace: Pace | None = None

    @property
    def closed(self) -> bool:
        raise NotImplementedError

    def _is_slow(self, size: int) -> bool:
        channel = self.channel
        least = channel.factory.settings.client_least_rate
        if least is None or self._remaining is None:
            return False
        now = channel.seconds()
        if self._pace is None:
            self._pace = Pace(least, now)
        return self._pace.is_slow(size, now)

    def _await_body(self) -> None:
        settings = self.channel.factory.settings
        is_stream = self.request is not None and self.request.is_stream
        self._body_due = self.channel.seconds() + (
            settings.stream_idle_timeout if is_stream else settings.client_body_timeout
        )
        self._set_deadline()

    def _await_whole_body(self) -> None:
        most = self.channel.factory.settings.client_request_timeout
        if most is not None:
            self._whole_due = self.channel.seconds() + most
            self._set_deadline()

    def _await_window(self) -> None:
        self._window_due = self.channel.seconds() + self.channel.factory.settings.client_body_timeout
        self._set_deadline()

    def _body_came(self) -> None:
        """Nothing more of the body is waited for."""
        if self._body_due != NEVER or self._whole_due != NEVER:
            self._body_due = self._whole_due = NEVER
            self._set_deadline()

    def _set_deadline(self) -> None:
        deadline = self._body_due if self._body_due < self._window_due else self._window_due
        if self._whole_due < deadline:
            deadline = self._whole_due
        if deadline != self.deadline:
            self.deadline = deadline
            deadlines = self.channel.factory.deadlines
            if deadline == NEVER or self.closed:
                deadlines.forget(self)
            else:
                deadlines.watch(self)

    def deadline_passed(self) -> None:
        raise NotImplementedError
