"""Every way in which an exchange can end, each as one action of a client, and what is to be noted of it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from attrs import frozen

from support.client import HANDSHAKE, Truncated, encode
from support.daemon import Daemon, Document, gateway
from support.h2_client import H2Client
from support.services import SWITCH, Received, Service, echo, port_nobody_listens_on
from support.waiting import eventually

SECRET = "a secret of at least thirty-two bytes"
WIRE = "-"
"""The target of what the wire refused and did not begin as a request of HTTP/1.1 does."""


@frozen
class Ending:
    """``path``: the label. ``target``: as logged. Tunnels, event streams and what is no request are not timed."""

    act: Callable[[Daemon], Any]
    method: str
    target: str
    path: str
    status: int
    code: str | None = None
    made_by: str = "gateway"
    protocol: str = "HTTP/1.1"
    timed: bool = True

    def __str__(self) -> str:
        return f"{self.method} {self.target} {self.status} {self.protocol}"


class Behaviour:
    """A service that does what the path says. ``arrived`` is released for each request that it lets hang."""

    def __init__(self) -> None:
        self.arrived = threading.Semaphore(0)

    def __call__(self, received: Received) -> None:
        conversation = received.conversation
        name = received.target.partition("?")[0].rpartition("/")[2]
        if name == "upload":
            received.unread = 0
            self.arrived.release()
            conversation.wait_for_end()
            return
        received.body()
        if name == "slow":
            self.arrived.release()
            conversation.wait_for_end()
        elif name == "half":
            conversation.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nbegun")
            conversation.wait_for_end()
        elif name == "cut":
            conversation.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nbegun")
            conversation.close()
        elif name == "nonsense":
            conversation.send(b"What?\r\n\r\n")
            conversation.close()
        elif name == "events":
            conversation.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n")
            conversation.close()
        elif name == "socket":
            conversation.send(SWITCH)
            conversation.send(conversation.some())
            conversation.close()
        elif name == "fails":
            conversation.answer(503)
        else:
            echo(received)


def document(service: Service, **settings: Any) -> Document:
    services = {
        "main": service.url,
        "hasty": {"targets": [service.url], "timeout": "300ms"},
        "gone": {"targets": [f"http://127.0.0.1:{port_nobody_listens_on()}"], "critical": True},
        "fragile": {
            "targets": [service.url],
            "circuit_breaker": {"error_rate": 0.01, "min_requests": 1, "open_for": "1h"},
        },
    }
    routes: list[Document] = [{"path": f"/{name}/:what", "service": name, "auth": "none"} for name in services]
    routes += [
        {"path": "/get/only", "service": "main", "methods": ["GET"], "auth": "none"},
        {"path": "/small/:what", "service": "main", "max_body_size": 10, "auth": "none"},
        {"path": "/limited", "service": "main", "auth": "none"},
        {"path": "/closed", "service": "main"},
        {"path": "/roles", "service": "main", "roles": ["admin"]},
        {"path": "/shared", "service": "main", "auth": "none", "cors": {"origins": ["https://app.example"]}},
    ]
    return gateway(services=services, routes=routes, client_body_timeout="500ms", **settings) | {
        "auth": {"jwt": [{"name": "main", "algorithm": "HS256", "secret": SECRET}]},
        "rate_limits": [{"endpoint": "/limited", "limit": 1, "window": "1h", "scope": "endpoint"}],
    }


def plain(method: str, target: str, *headers: str, body: bytes = b"") -> Callable[[Daemon], Any]:
    return lambda daemon: daemon.request(method, target, *headers, body=body)


def raw(data: str | bytes) -> Callable[[Daemon], Any]:
    """Bytes as they are, until the gateway closes."""

    def act(daemon: Daemon) -> None:
        with daemon.connect() as client:
            client.send(data)
            while client.more():
                pass

    return act


def over_http2(method: str, target: str, *headers: tuple[str, str], body: bytes = b"") -> Callable[[Daemon], Any]:
    def act(daemon: Daemon) -> None:
        with H2Client(daemon.address) as client:
            client.request(method, target, *headers, body=body)

    return act


def truncated(target: str) -> Callable[[Daemon], Any]:
    def act(daemon: Daemon) -> None:
        try:
            daemon.get(target)
        except Truncated:
            return
        raise AssertionError("the answer was whole")

    return act


def endings(behaviour: Behaviour) -> list[Ending]:
    """They are to be done in this order, once."""

    def leave_while_waiting(daemon: Daemon) -> None:
        with daemon.connect() as client:
            client.send(encode("GET", "/main/slow?left=waiting"))
            assert behaviour.arrived.acquire(timeout=10)
            client.reset()  # at once: whoever has only ended its side may be waiting for its answer

    def leave_while_reading(daemon: Daemon) -> None:
        with daemon.connect() as client:
            client.send(encode("GET", "/main/half?left=reading"))
            client.head()
            client.reset()

    def leave_while_sending(daemon: Daemon) -> None:
        with daemon.connect() as client:
            client.send("POST /main/upload?left=sending HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\nbegun")
            assert behaviour.arrived.acquire(timeout=10)
            client.reset()

    def stall_while_sending(daemon: Daemon) -> None:
        with daemon.connect() as client:
            client.send("POST /main/ok?stalled HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nbegun")
            assert client.answer().status == 408

    def cancel(daemon: Daemon) -> None:
        with H2Client(daemon.address) as client:
            number = client.begin("GET", "/main/slow?left=stream")
            assert behaviour.arrived.acquire(timeout=10)
            client.cancel(number)
            eventually(daemon.is_quiet)

    def tunnel(daemon: Daemon) -> None:
        with daemon.connect() as client:
            client.send(encode("GET", "/main/socket", *HANDSHAKE))
            assert client.head().status == 101
            client.send(b"there and back")
            while client.more():
                pass
            assert client.unread == b"there and back"

    def pipelined(daemon: Daemon) -> None:
        with daemon.connect() as client:
            client.send(encode("GET", "/main/ok?pipelined=1") + encode("GET", "/main/ok?pipelined=2"))
            assert [client.answer().status, client.answer().status] == [200, 200]

    def stream_refused(daemon: Daemon) -> None:
        with H2Client(daemon.address) as client:
            assert client.request("GET", "/main//ok").status == 400

    bearer = f"Authorization: Bearer {'x' * 20}"
    origin = ("Origin: https://app.example", "Access-Control-Request-Method: GET")
    return [
        Ending(plain("GET", "/main/ok?a=1"), "GET", "/main/ok?a=1", "/main/:what", 200, None, "upstream"),
        Ending(plain("HEAD", "/main/ok?head"), "HEAD", "/main/ok?head", "/main/:what", 200, None, "upstream"),
        Ending(plain("POST", "/main/ok?p", body=b"x"), "POST", "/main/ok?p", "/main/:what", 200, None, "upstream"),
        Ending(plain("PROPFIND", "/main/ok?dav"), "PROPFIND", "/main/ok?dav", "/main/:what", 200, None, "upstream"),
        Ending(pipelined, "GET", "/main/ok?pipelined=1", "/main/:what", 200, None, "upstream"),
        Ending(lambda _: None, "GET", "/main/ok?pipelined=2", "/main/:what", 200, None, "upstream"),
        Ending(plain("GET", "/nothing"), "GET", "/nothing", "unmatched", 404, "not_found"),
        Ending(plain("DELETE", "/get/only"), "DELETE", "/get/only", "unmatched", 405, "method_not_allowed"),
        Ending(plain("GET", "/closed"), "GET", "/closed", "/closed", 401, "unauthorized"),
        Ending(plain("GET", "/closed?bad", bearer), "GET", "/closed?bad", "/closed", 401, "unauthorized"),
        Ending(plain("GET", "/limited?1"), "GET", "/limited?1", "/limited", 200, None, "upstream"),
        Ending(plain("GET", "/limited?2"), "GET", "/limited?2", "/limited", 429, "rate_limited"),
        Ending(plain("OPTIONS", "/shared", *origin), "OPTIONS", "/shared", "/shared", 204),
        Ending(plain("POST", "/small/a", body=b"x" * 11), "POST", "/small/a", "/small/:what", 413, "body_too_large"),
        Ending(plain("GET", "/fragile/fails?1"), "GET", "/fragile/fails?1", "/fragile/:what", 503, None, "upstream"),
        Ending(plain("GET", "/fragile/ok?2"), "GET", "/fragile/ok?2", "/fragile/:what", 503, "circuit_open"),
        Ending(plain("GET", "/hasty/slow"), "GET", "/hasty/slow", "/hasty/:what", 504, "upstream_timeout"),
        Ending(plain("GET", "/gone/a"), "GET", "/gone/a", "/gone/:what", 502, "upstream_unreachable"),
        Ending(plain("GET", "/main/nonsense"), "GET", "/main/nonsense", "/main/:what", 502, "upstream_protocol_error"),
        Ending(truncated("/main/cut"), "GET", "/main/cut", "/main/:what", 200, "upstream_protocol_error"),
        Ending(truncated("/hasty/half"), "GET", "/hasty/half", "/hasty/:what", 200, "upstream_timeout"),
        Ending(leave_while_waiting, "GET", "/main/slow?left=waiting", "/main/:what", 499),
        Ending(leave_while_reading, "GET", "/main/half?left=reading", "/main/:what", 499, None, "upstream"),
        Ending(leave_while_sending, "POST", "/main/upload?left=sending", "/main/:what", 499),
        Ending(stall_while_sending, "POST", "/main/ok?stalled", "/main/:what", 408, "client_timeout"),
        Ending(tunnel, "GET", "/main/socket", "/main/:what", 101, None, "upstream", timed=False),
        Ending(plain("GET", "/main/events"), "GET", "/main/events", "/main/:what", 200, None, "upstream", timed=False),
        Ending(raw("GET /a HTTP/1.1\r\n\r\n"), "GET", "/a", "unmatched", 400, "bad_request", timed=False),
        Ending(raw(b"\x16\x03\x01\x02\x00\x01"), "-", WIRE, "unmatched", 400, "bad_request", timed=False),
        Ending(
            raw("BREW / HTTP/1.1\r\nHost: a\r\n\r\n"), "BREW", "/", "unmatched", 501, "not_implemented", timed=False
        ),
        Ending(plain("GET", "/health"), "GET", "/health", "/health", 200),
        Ending(plain("GET", "/ready"), "GET", "/ready", "/ready", 503),
        Ending(plain("DELETE", "/health"), "DELETE", "/health", "/health", 405, "method_not_allowed"),
        Ending(over_http2("GET", "/main/ok?2"), "GET", "/main/ok?2", "/main/:what", 200, None, "upstream", "HTTP/2"),
        Ending(over_http2("GET", "/nothing?2"), "GET", "/nothing?2", "unmatched", 404, "not_found", protocol="HTTP/2"),
        Ending(over_http2("GET", "/health?2"), "GET", "/health?2", "/health", 200, protocol="HTTP/2"),
        Ending(cancel, "GET", "/main/slow?left=stream", "/main/:what", 499, protocol="HTTP/2"),
        Ending(stream_refused, "-", WIRE, "unmatched", 400, "bad_request", protocol="HTTP/2", timed=False),
    ]


def all_done(daemon: Daemon, behaviour: Behaviour) -> list[Ending]:
    """Let every exchange end in its way, and wait until none is in flight."""
    done = endings(behaviour)
    for ending in done:
        ending.act(daemon)
    eventually(daemon.is_quiet)
    return done
