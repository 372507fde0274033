# Compiled: see docs/decisions/compiled.md
"""What a policy that a user wrote sees and does of one exchange (docs/reference/plugins.md).

It cannot break the wire: what is written is checked. It cannot reach another exchange: after the end of its own, and in
another thread than the reactor's, every use raises ``RuntimeError``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from typing import Any, Final, cast, final
from urllib.parse import parse_qs

from mypy_extensions import mypyc_attr

from apigw.contract.caller import Caller
from apigw.contract.exchange import Answer, Exchange, Head, Seen
from apigw.contract.fields import (
    checked,
    erase,
    seen_of,
    text_of,
    values_in,
    without,
    write,
    write_head,
)
from apigw.contract.media_type import MediaType
from apigw.contract.view_shared import ANSWER, ENDS, FORWARD, READS, REQUEST, Shared
from apigw.errors import BadRequest
from apigw.routing.pattern import Pattern
from apigw.wire.errors import Refused
from apigw.wire.headers import Headers
from apigw.wire.request import BODYLESS_STATUS
from apigw.wire.target import check_authority, check_target

_MOST_FIELDS: Final = 1000
"""Of a query that is taken apart; a client may send some ten thousand in a line."""


@final
@mypyc_attr(free_list_len=1)  # one is made for each exchange: its memory is used again
class View(Seen):
    """One exchange, for one plugin. The page of plugins has each method."""

    def __init__(self, exchange: Exchange, shared: Shared) -> None:
        self.next = None
        self._exchange = exchange
        self.shared = shared
        """Not for plugins, as all that follows until ``id``."""
        self.phase: int = READS
        self.head: Head | None = None
        self.answered: Answer | None = None
        self.passes = 0
        """Bodies that pass unseen: 1 for the request's, 2 for the answer's."""
        self.changed = 0
        """Bodies that the plugin has changed, likewise."""
        self.waits: Any = None
        """The call of the plugin that waits, if one does: its time does not run while ``is_reading``."""
        self.is_reading = False
        """Whether a whole body is being read."""
        self.replacement: bytes | None = None
        """What the call that runs has given to ``replace_body``. If the call fails, the body may go on as it was."""
        self._state: dict[str, Any] | None = None

    def use(self) -> Exchange:
        """The exchange. Raises ``RuntimeError`` after its end, and in another thread."""
        if not self.shared.is_here():
            raise RuntimeError("a view is for the reactor's thread: read what a thread needs before it begins")
        exchange = self._exchange
        if exchange.ended and self.phase != ENDS:
            raise RuntimeError("the exchange of this view has ended")
        return exchange

    def writes(self) -> Exchange:
        """The exchange, while its request may be changed."""
        exchange = self.use()
        if self.phase != REQUEST and self.phase != FORWARD:
            raise RuntimeError("a request can be changed in on_request and on_forward only, until they are done")
        return exchange

    @property
    def id(self) -> str:
        return self.use().id.decode("ascii")

    @property
    def method(self) -> str:
        return self.use().request.method.decode("ascii")

    @property
    def path(self) -> str:
        return text_of(self.use().request.path)

    @property
    def query_string(self) -> str:
        return text_of(self.use().request.query[1:])

    @property
    def host(self) -> str:
        return text_of(self.use().request.authority)

    @property
    def scheme(self) -> str:
        return "https" if self.use().is_https else "http"

    @property
    def parameters(self) -> Mapping[str, str]:
        exchange = self.use()
        found = Pattern.parse(exchange.route.pattern).parameters(exchange.request.path)
        return {"rest" if name == "*" else name: text_of(value) for name, value in found.items()}

    @property
    def query(self) -> Mapping[str, list[str]]:
        try:
            return parse_qs(
                self.query_string, keep_blank_values=True, errors="surrogateescape", max_num_fields=_MOST_FIELDS
            )
        except ValueError:
            raise BadRequest(f"The query has more than {_MOST_FIELDS} fields.") from None

    @property
    def client(self) -> str:
        return self.use().client_address

    @property
    def caller(self) -> Caller | None:
        principal = self.use().principal
        return None if principal is None else Caller(principal)

    @property
    def route(self) -> str:
        return self.use().route.name

    @property
    def pattern(self) -> str:
        return self.use().route.pattern

    @property
    def service(self) -> str | None:
        route = self.use().route
        return route.service

    @property
    def state(self) -> dict[str, Any]:
        self.use()
        state = self._state
        if state is None:
            state = self._state = {}
        return state

    @property
    def context(self) -> Any:
        return self.shared.context

    @property
    def log(self) -> Any:
        return self.shared.log_of(self.id)

    @property
    def request(self) -> RequestFields:
        return RequestFields(self)

    @property
    def answer(self) -> AnswerHead:
        return AnswerHead(self)

    def respond(self, status: int = 200, headers: object = (), body: object = b"") -> Answer:
        """Answer the request, in place of a service."""
        self.writes()
        if self.answered is not None:
            raise RuntimeError("respond was called before for this exchange")
        if type(status) is not int or not 200 <= status <= 599:
            raise ValueError(f"{status!r} is not a status of an answer, which are 200 to 599")
        content = body.encode("utf-8") if isinstance(body, str) else body
        if not isinstance(content, bytes):
            raise TypeError(f"a body is bytes or text, not {type(body).__name__}")
        if content and status in BODYLESS_STATUS:
            raise ValueError(f"an answer with status {status} has no body")
        fields = checked(self.shared.names, headers)
        if status not in BODYLESS_STATUS:
            fields.append((b"content-length", b"%d" % len(content)))
        answer = self.answered = Answer(status, fields, content)
        return answer

    def rewrite(self, path: str | None = None, host: str | None = None) -> None:
        """Set the path and the ``Host`` that the service gets. Raises ``ValueError`` for what cannot be sent.

        Oddities, such as an encoded slash, pass where the client's path has them, and so the route keeps them.
        """
        exchange = self.writes()
        if path is not None:
            target = path.encode("utf-8", "surrogateescape")
            if target.find(b"?") < 0:
                target += exchange.request.query
            try:
                check_target(target, exchange.request.odd)
            except Refused as refused:
                raise ValueError(f"{path!r} cannot be sent: {refused.reason}") from None
            exchange.target = target
        if host is not None:
            authority = host.encode("utf-8", "surrogateescape")
            try:
                check_authority(authority)
            except Refused:
                raise ValueError(f"{host!r} is not a host") from None
            exchange.authority = authority

    def read_body(self, limit: int = 1 << 20) -> Awaitable[bytes]:
        """The whole body of the request, before the service gets anything."""
        exchange = self.writes()
        self.put_back()
        return self.shared.bodies.read(exchange, self, limit)

    def replace_body(self, data: bytes) -> None:
        """What the service gets in place of the body that ``read_body`` has read."""
        request = self.writes().request
        if not isinstance(data, bytes):
            raise TypeError(f"a body is bytes, not {type(data).__name__}")
        if not request.body_complete or request.body_wanted:
            raise RuntimeError("a body is replaced after read_body has read it")
        self.replacement = data

    def put_back(self) -> None:
        """``replacement``, if there is one, takes the place of the body."""
        data, self.replacement = self.replacement, None
        if data is not None:
            self._exchange.request.put_back(data)

    def pass_body(self) -> None:
        """The body of the request, or in ``on_answer`` that of the answer, is not seen."""
        self.use()
        if self.phase == READS:
            raise RuntimeError("pass_body is for on_request, on_forward and on_answer")
        self.passes |= 2 if self.phase == ANSWER else 1


@final
@mypyc_attr(free_list_len=1)  # one is made for each use: its memory is used again
class RequestFields:
    """The request's header fields."""

    def __init__(self, view: View) -> None:
        self._view = view

    def get(self, name: str) -> str | None:
        view = self._view
        found = values_in(view.use(), view.shared.names.of(name))
        return text_of(found[0]) if found else None

    def all(self, name: str) -> list[str]:
        view = self._view
        return [text_of(value) for value in values_in(view.use(), view.shared.names.of(name))]

    @property
    def media_type(self) -> MediaType:
        return MediaType(self.all("Content-Type"))

    def items(self) -> list[tuple[str, str]]:
        view = self._view
        return [(text_of(name), text_of(value)) for name, value in seen_of(view.use(), view.shared.names)]

    def __contains__(self, name: str) -> bool:
        view = self._view
        return bool(values_in(view.use(), view.shared.names.of(name)))

    def set(self, name: str, value: str | bytes) -> None:
        self._write(name, value, True)

    def add(self, name: str, value: str | bytes) -> None:
        self._write(name, value, False)

    def remove(self, name: str) -> None:
        view = self._view
        exchange, known = view.writes(), view.shared.names.of(name)
        if known.refused:
            raise ValueError(known.refused)
        erase(exchange, known)

    def _write(self, name: str, value: str | bytes, replace: bool) -> None:
        view = self._view
        exchange, shared = view.writes(), view.shared
        known = shared.names.of(name)
        if known.refused:
            raise ValueError(known.refused)
        write(exchange, known, value, shared.late or view.phase == FORWARD, replace)


@final
@mypyc_attr(free_list_len=1)  # one is made for each use: its memory is used again
class AnswerHead:
    """Status and header fields of the answer."""

    def __init__(self, view: View) -> None:
        self._view = view

    @property
    def status(self) -> int:
        status = self._view.use().status
        if not status:
            raise RuntimeError("there is no answer yet")
        return status

    @property
    def own(self) -> bool:
        """Whether the answer is the gateway's own."""
        return self._head().own

    def get(self, name: str) -> str | None:
        found = self._values(name)
        return text_of(found[0]) if found else None

    def all(self, name: str) -> list[str]:
        return [text_of(value) for value in self._values(name)]

    @property
    def media_type(self) -> MediaType:
        return MediaType(self.all("Content-Type"))

    def items(self) -> list[tuple[str, str]]:
        return [(text_of(name), text_of(value)) for name, value in self._head().headers]

    def __contains__(self, name: str) -> bool:
        return bool(self._values(name))

    def set(self, name: str, value: str | bytes) -> None:
        self._write(name, value, True)

    def add(self, name: str, value: str | bytes) -> None:
        self._write(name, value, False)

    def remove(self, name: str) -> None:
        view = self._view
        head, known = self._changed(), view.shared.names.of(name)
        if known.of_answer:
            raise ValueError(known.of_answer)
        head.headers = without(head.headers, known.key)
        if not head.own:  # its trailers are still to come
            exchange = view.use()
            exchange.dropped = exchange.dropped | {known.key}

    def _write(self, name: str, value: str | bytes, replace: bool) -> None:
        head, known = self._changed(), self._view.shared.names.of(name)
        if known.of_answer:
            raise ValueError(known.of_answer)
        write_head(head, known, value, replace)

    def _values(self, name: str) -> list[bytes]:
        headers: Headers = self._head().headers
        key = self._view.shared.names.of(name).key
        return [value for each, value in headers if each == key]

    def _head(self) -> Head:
        view = self._view
        view.use()
        head = view.head
        if head is None:
            raise RuntimeError("there is no answer yet")
        return head

    def _changed(self) -> Head:
        head = self._head()
        if self._view.phase != ANSWER:
            raise RuntimeError("an answer can be changed in on_answer only")
        return head


def view_of(exchange: Exchange, shared: Shared) -> View:
    """The view that the plugin has of the exchange. One that only a single call gets is not kept for others."""
    if not shared.keeps:
        return View(exchange, shared)
    seen = exchange.view
    while seen is not None:
        view = cast(View, seen)
        if view.shared is shared:
            return view
        seen = view.next
    view = View(exchange, shared)
    view.next = exchange.view
    exchange.view = view
    return view
