# Compiled: see docs/decisions/compiled.md
"""One exchange with a service on an HTTP/2 stream, which has the role of a connection in HTTP/1.1.

Flow control: bytes of the request that the service's windows do not allow yet are held, and the body is paused beyond
``UNSENT_HIGH``. While the client is paused, at most ``STREAM_WINDOW`` bytes of the answer are held: the service gets
new window only as the client reads.
"""

from __future__ import annotations

from typing import Final, final

from apigw.wire.deadlines import NEVER, Deadlines
from apigw.wire.errors import HeadTooLarge, UpstreamError, UpstreamLost, UpstreamMalformed, UpstreamTimedOut
from apigw.wire.headers import Headers
from apigw.wire.http2.connection import ServiceConnection
from apigw.wire.http2.field import Field
from apigw.wire.http2.flow import BLOCKED, LAST, UNSENT_HIGH, UNSENT_LOW, Flow
from apigw.wire.http2.frames import Code
from apigw.wire.http2.hpack import encode_request, encode_trailers, size_of
from apigw.wire.http2.response import ResponseHead, read_head, read_trailers
from apigw.wire.interfaces import MAX_INTERIM, Receiver, UpstreamConnection
from apigw.wire.tunnel import End

PSEUDO: Final = len(b":method:scheme:authority:path") + 4 * 32
"""What the pseudo-header fields of a request count besides their values (RFC 9113 §6.5.2)."""
_WITH_BODY: Final = frozenset({b"POST", b"PUT", b"PATCH"})

# The states of either direction.
UNSENT: Final = 0
OPEN: Final = 1
ENDED: Final = 2

REQUEST = {UNSENT: {OPEN, ENDED}, OPEN: {ENDED}, ENDED: set[int]()}
"""``send`` opens it. ``finish`` or the end of the exchange ends it."""
RESPONSE = {UNSENT: {OPEN, ENDED}, OPEN: {ENDED}, ENDED: set[int]()}
"""The final head opens it. END_STREAM, a reset or the loss of the connection ends it, and the exchange."""


@final
class HTTP2Exchange(UpstreamConnection):
    """An ``UpstreamConnection`` for one exchange."""

    def __init__(self, client: ServiceConnection, deadlines: Deadlines) -> None:
        super().__init__()
        self.flow = Flow(client, 0, 0)
        """Its number is 0 until there is a stream."""
        self._client = client
        self._deadlines = deadlines
        self._request = UNSENT
        self._response = UNSENT
        self._head: bytes | None = None  # not sent yet
        self._finishing = False
        self._body_paused = False
        self._answer: ResponseHead | None = None  # not passed on yet
        self._pieces: list[bytes] = []
        self._trailers: Headers = []
        self._left: int | None = None  # bytes left of a body with a Content-Length
        self._bodyless = False
        self._interim = 0
        self._paused = False
        self._telling = False
        self.is_complete = False
        """Whether END_STREAM has arrived. The receiver may not have got all of the answer."""
        self._event_stream = False
        self.version = b"HTTP/2"

    @property
    def event_stream(self) -> bool:
        return self._event_stream

    # The exchange's side.

    def send(
        self,
        method: bytes,
        target: bytes,
        authority: bytes,
        fields: Headers,
        content_length: int | None,
        upgrade: bool,
        timeout: float,
        receiver: Receiver,
        trailers: bool = False,
    ) -> None:
        """The head is sent with the first ``write``, ``flush`` or ``finish``. ``upgrade`` has no effect."""
        if self._request != UNSENT:
            raise RuntimeError("a stream carries one exchange")
        self._request = OPEN
        self.receiver = receiver
        self.timeout = timeout
        self._bodyless = method == b"HEAD"
        if content_length is not None and (content_length or method in _WITH_BODY):
            fields = [*fields, (b"content-length", b"%d" % content_length)]
        if trailers:
            fields = [*fields, (b"te", b"trailers")]
        if self._is_too_large(fields, len(method) + len(self._client.scheme) + len(authority) + len(target) + PSEUDO):
            self._request = ENDED
            error = HeadTooLarge(f"the service takes {self._client.largest_head} bytes of headers")
            self._deadlines.clock.callLater(0, self.fail, error, None)
            return
        self._head = encode_request(method, self._client.scheme, authority, target, fields)
        self._deadlines.watch(self)

    def _is_too_large(self, fields: Headers, more: int) -> bool:
        """Whether fields, and ``more`` bytes, are more than the service has said it takes. Some end the connection for
        it, and with that the exchanges of others."""
        most = self._client.largest_head
        return most is not None and size_of(fields) + more > most

    def write(self, data: bytes) -> None:
        if self._request != OPEN or not data:
            return
        self.flow.add(data)
        self._push()

    def flush(self) -> None:
        if self._request == OPEN:
            self._push()

    def finish(self, trailers: Headers | None = None) -> None:
        if self._request != OPEN:
            return
        if trailers and not self._is_too_large(trailers, 0):  # they may be dropped (RFC 9110 §6.5.1)
            self.flow.trailers = encode_trailers(trailers)
        self._finishing = True
        self._push()
        self._wait()

    def pause_response(self) -> None:
        self._paused = True
        self._wait()

    def resume_response(self) -> None:
        if self._paused:
            self._paused = False
            self._wait()
            if not self._telling:
                self.tell()
                self._client.flush()

    def abandon(self) -> None:
        self._end(Code.CANCEL)

    def give_up(self) -> End:
        raise RuntimeError("a stream becomes no tunnel")

    # The pool's side.

    def connect_until(self, deadline: float) -> None:
        """No effect: the connection is made already."""

    def is_quiet(self) -> bool:
        return True

    def close(self) -> None:
        self._end(Code.CANCEL)

    # From the connection: frames of the service.

    def block_received(self, fields: list[Field], size: int, end: bool) -> None:
        """A head, or trailers. Raises ``UpstreamError``."""
        if self._response == OPEN:
            if not end:
                raise UpstreamMalformed("trailers that do not end the response")
            self._trailers = read_trailers(fields, size)
            self._ended()
            return
        head = read_head(fields, size)
        if head.status < 200:
            self._interim += 1
            if end or head.status == 101 or self._interim > MAX_INTERIM:
                raise UpstreamMalformed("an interim response that is none, or too many")
            return
        self._response = OPEN
        self._answer = head
        self._event_stream = head.event_stream
        if not self._bodyless and head.status != 304:
            self._left = head.content_length
        if head.status == 204 or head.status == 304:
            self._bodyless = True
        if end:
            self._ended()

    def data_received(self, data: bytes, length: int, end: bool) -> None:
        """``length``: bytes that count against the window. Raises ``StreamFault`` beyond it, and ``UpstreamError``."""
        if self._response != OPEN:
            raise UpstreamMalformed("a body without a head")
        self.flow.received(length, length - len(data))
        if data:
            if self._bodyless:
                raise UpstreamMalformed("a body where none can be")
            if self._left is not None:
                self._left -= len(data)
                if self._left < 0:
                    raise UpstreamMalformed("a body longer than its Content-Length")
            self._pieces.append(data)
        if end:
            self._ended()

    def _ended(self) -> None:
        if self._left:
            raise UpstreamMalformed("a body shorter than its Content-Length")
        self.is_complete = True

    def tell(self) -> None:
        """Pass what has arrived to the receiver, unless the client is paused."""
        receiver = self.receiver
        if receiver is None or self._paused or (self._answer is None and self._response != OPEN):
            return
        pieces, self._pieces = self._pieces, []
        answer, self._answer = self._answer, None
        if answer is not None and self.is_complete and not self._trailers:
            self._end(Code.NO_ERROR)
            receiver.response_whole(answer.status, b"", answer.headers, b"".join(pieces))
            return
        if answer is not None:
            receiver.response_started(answer.status, b"", answer.headers)
        if pieces and self.receiver is not None:
            data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
            self.flow.taken += len(data)
            self._telling = True
            receiver.response_received(data)
            self._telling = False
        if self.receiver is None:
            return
        if self.is_complete:
            trailers = self._trailers
            self._end(Code.NO_ERROR)
            if trailers:
                receiver.response_trailers(trailers)
            receiver.response_finished()
            return
        self.flow.give_back()
        receiver.response_paused()
        if pieces or answer is not None:
            self._wait()

    def window_received(self, increment: int) -> None:
        """WINDOW_UPDATE. Raises ``StreamFault``."""
        self.flow.window_received(increment)
        self.go_on()

    def widen(self, increment: int) -> None:
        """The service's window changes by a new setting. Raises ``StreamFault``."""
        self.flow.widen(increment)
        self.go_on()

    def go_on(self) -> None:
        """The windows or the transport may have room again."""
        if self._request == OPEN and (self.flow.unsent or self._body_paused):
            self._push()

    def reset_received(self, code: int) -> None:
        """RST_STREAM. After a complete answer it is no error: the rest of the request is not needed (RFC 9113 §8.1)."""
        if self.is_complete:
            self.stop_sending()
        elif code == Code.REFUSED_STREAM:
            self.lost("the service refuses the stream", unsent=True)
        else:
            self.fail(UpstreamLost(f"the service reset the stream: {code}", reset=code), None)

    def lost(self, why: str, unsent: bool) -> None:
        """The stream is lost. ``unsent``: the service has not processed the request, by GOAWAY or REFUSED_STREAM."""
        silent = self._response == UNSENT and not self._interim
        # ``used`` allows a retry, as for a kept connection: the service has not processed the request.
        self.used = unsent or self._client.used
        self.fail(UpstreamLost(why, silent=silent, unsent=unsent), None)

    def fail(self, error: UpstreamError, code: Code | None = Code.CANCEL) -> None:
        """Fail the exchange, and reset its stream with ``code``: None if the service has reset it, or it is lost."""
        receiver = self.receiver
        self._end(code)
        if receiver is not None:
            receiver.response_failed(error)

    def deadline_passed(self) -> None:
        self._client.check_alive()
        self.fail(UpstreamTimedOut("no answer in time"))

    # Sending.

    def _push(self) -> None:
        """Send what the windows and the transport allow."""
        client = self._client
        flow = self.flow
        if self._head is not None:
            client.open(self)
            ends = self._finishing and not flow.unsent and flow.trailers is None
            client.emit_head(flow.number, self._head, ends)
            self._head = None
            if ends:
                self.stop_sending()
                client.flush()
                return
        while flow.unsent or self._finishing:
            sent = flow.send(self._finishing)
            if sent == BLOCKED:
                client.waiting[self] = None
                break
            self._wait()
            if sent == LAST:
                self.stop_sending()
                break
        client.flush()
        self._pause_or_resume()

    def _pause_or_resume(self) -> None:
        receiver = self.receiver
        if receiver is None or self._request != OPEN:
            return
        left = self.flow.unsent
        if not self._body_paused and left > UNSENT_HIGH:
            self._body_paused = True
            self._wait()
            receiver.pause_body()
        elif self._body_paused and left <= UNSENT_LOW:
            self._body_paused = False
            self._wait()
            receiver.resume_body()

    def stop_sending(self) -> None:
        self._request = ENDED
        self.flow.clear()
        self._client.waiting.pop(self, None)
        self._wait()

    def _wait(self) -> None:
        """Set the deadline: only while the service has to answer, or to read more."""
        waits = (
            (self._request == ENDED or self._finishing or self._body_paused)
            and not self._paused
            and self.receiver is not None
        )
        if waits and not self._event_stream:
            self.deadline = self._deadlines.seconds() + self.timeout
        else:
            self.deadline = NEVER

    def _end(self, code: Code | None) -> None:
        """End the exchange. A stream that is still open in either direction is reset, unless ``code`` is None."""
        if self._response == ENDED:
            return
        self.receiver = None
        is_open = self._request == OPEN or not self.is_complete
        self._request = self._response = ENDED
        self._pieces.clear()
        self.flow.clear()
        self.deadline = NEVER
        self._deadlines.forget(self)
        if code == Code.NO_ERROR and is_open:
            code = Code.CANCEL
        self._client.ended(self, code if is_open else None)
