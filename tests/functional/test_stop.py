"""SIGTERM: who was being served is served, and then the process is gone."""

from __future__ import annotations

import json
import os
import re
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.client import HANDSHAKE, Client, Truncated, encode
from support.daemon import Daemon, gateway
from support.services import SWITCH, Received, Service, echo
from support.waiting import eventually

from .conftest import Start

ALL = [{"path": "/*", "service": "main"}]


@pytest.fixture
def slow(service: Service) -> Iterator[threading.Event]:
    """The service answers when this is set."""
    go_on = threading.Event()

    def behave(received: Received) -> None:
        body = received.body()
        go_on.wait(20)
        received.conversation.answer(200, body=body or b"done")

    service.behave = behave
    yield go_on
    go_on.set()


def serve(start: Start, service: Service, **settings: object) -> Daemon:
    return start(gateway(services={"main": service.url}, routes=ALL, **settings))


def is_deaf(daemon: Daemon) -> bool:
    """Whether new connections are refused."""
    try:
        daemon.connect().close()
    except ConnectionRefusedError:
        return True
    return False


def test_what_is_in_flight_is_finished(start: Start, service: Service, slow: threading.Event) -> None:
    """Users see errors whenever the gateway is updated."""
    daemon = serve(start, service)
    idle, fresh, waiting, uploading = (daemon.connect() for _ in range(4))
    slow.set()
    assert idle.get("/a").get("connection") is None
    slow.clear()
    waiting.send(encode("GET", "/a"))
    uploading.send(encode("PUT", "/b", "Content-Length: 10") + b"hello")
    eventually(lambda: len(service.requests) == 2)
    eventually(lambda: daemon.status()["connections"] == 4)
    daemon.terminate()
    assert idle.is_closed()
    assert fresh.is_closed()
    eventually(lambda: is_deaf(daemon))
    with Client(daemon.admin) as operator:
        assert operator.get("/ready").status == 503
        assert operator.get("/status").json["in_flight"] == 2
        uploading.send(b"world")
        slow.set()
        for client, body in ((waiting, b"done"), (uploading, b"helloworld")):
            answer = client.answer()
            assert (answer.status, answer.body, answer.get("connection")) == (200, body, "close")
            assert client.is_closed()
    assert daemon.wait() == 0


def test_who_could_not_be_told_may_ask_once_more(start: Start, service: Service) -> None:
    """The head of the answer went out before the signal, without a word of the end: the next request is answered."""
    go_on = threading.Event()

    def behave(received: Received) -> None:
        received.conversation.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n")
        assert go_on.wait(20)
        received.conversation.send(b"done")

    service.behave = behave
    daemon = serve(start, service)
    client = daemon.connect().send(encode("GET", "/a"))
    head = client.head()
    assert (head.status, head.get("connection")) == (200, None)
    daemon.terminate()
    eventually(lambda: "draining: 1 exchange" in daemon.log)
    go_on.set()
    assert client.take(4, b"") == b"done"
    answer = client.get("/b")
    assert (answer.status, answer.get("connection")) == (200, "close")
    assert client.is_closed()
    assert daemon.wait() == 0


def test_what_had_arrived_whole_is_answered(start: Start, service: Service) -> None:
    """Requests that were in a queue of the kernel's when the signal came are lost."""
    daemon = serve(start, service)
    kept = [daemon.connect() for _ in range(10)]
    for client in kept:
        assert client.get("/warm").status == 200
    # While the process stands still, what comes before the signal is a fact and no matter of timing.
    daemon.signal(signal.SIGSTOP)
    stat = Path(f"/proc/{daemon.process.pid}/stat")
    eventually(lambda: stat.read_text().rpartition(") ")[2][0] == "T")
    queued = [daemon.connect() for _ in range(30)]
    for number, client in enumerate(kept + queued):
        client.send(encode("POST", f"/{number}", body=b"x" * number))
    daemon.terminate()
    daemon.signal(signal.SIGCONT)
    for number, client in enumerate(kept + queued):
        answer = client.answer()
        assert (answer.status, answer.json["target"], answer.json["body"]) == (200, f"/{number}", "x" * number)
        assert client.is_closed()
    assert daemon.wait() == 0


def test_not_ready_first_and_deaf_later(start: Start, service: Service) -> None:
    """The load balancer still sends requests to a port that is closed already."""
    daemon = serve(start, service, drain_delay="60s")
    daemon.terminate()
    eventually(lambda: daemon.get("/ready").status == 503)
    assert daemon.get("/a").status == 200
    with daemon.connect() as client:
        assert client.get("/a").status == 200
        assert client.get("/a").status == 200
    daemon.terminate()  # the second one cuts the delay too
    assert daemon.wait() == 0


def test_the_delay_ends_by_itself(start: Start, service: Service) -> None:
    """The process waits for a second signal."""
    daemon = serve(start, service, drain_delay="200ms")
    daemon.terminate()
    assert daemon.wait() == 0


def test_what_is_cut_has_its_own_code(start: Start, service: Service, tmp_path: Path) -> None:
    """The log tells it from clients that left; the client of a WebSocket is told by a close frame."""

    def behave(received: Received) -> None:
        conversation = received.conversation
        if received.target == "/socket":
            conversation.send(SWITCH + b"\x81\x02hi")
        elif received.target == "/events":
            conversation.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\nfirst")
        conversation.some()

    service.behave = behave
    log = {"file": str(tmp_path / "access.log"), "format": "json"}
    daemon = serve(start, service, drain_timeout="200ms", access_log=log)
    waiting, events, socket = (daemon.connect() for _ in range(3))
    waiting.send(encode("GET", "/waiting"))
    assert events.send(encode("GET", "/events")).head().status == 200
    assert socket.send(encode("GET", "/socket", *HANDSHAKE)).head().status == 101
    assert socket.take(4, b"") == b"\x81\x02hi"
    eventually(lambda: len(service.requests) == 3)
    daemon.terminate()
    assert socket.take(4, b"") == b"\x88\x02\x03\xe9"
    socket.close()
    assert daemon.wait() == 0
    with pytest.raises(Truncated):
        waiting.answer()
    eventually(lambda: service.connections == 0)
    lines = [json.loads(line) for line in (tmp_path / "access.log").read_text().splitlines()]
    logged = {line["path"]: (line["status"], line["code"], line["made_by"]) for line in lines}
    assert logged["/waiting"] == (503, "drain_timeout", "gateway")
    assert logged["/events"] == (200, "drain_timeout", "gateway")
    assert logged["/socket"] == (101, "drain_timeout", "gateway")


def test_a_second_signal_cuts_at_once(start: Start, service: Service, slow: threading.Event) -> None:
    """An operator in a hurry must kill the process."""
    daemon = serve(start, service, drain_timeout="1h")
    client = daemon.connect().send(encode("GET", "/a"))
    eventually(lambda: service.requests)
    daemon.terminate()
    eventually(lambda: "draining: 1 exchange" in daemon.log)
    daemon.terminate()
    assert daemon.wait() == 0
    with pytest.raises(Truncated):
        client.answer()


def test_ctrl_c_is_a_sigterm(start: Start, service: Service) -> None:
    """Ctrl-C ends in a traceback, or in an exit code that says it failed."""
    daemon = serve(start, service)
    daemon.signal(signal.SIGINT)
    assert daemon.wait() == 0


def test_sighup_while_stopping_does_no_harm(start: Start, service: Service, slow: threading.Event) -> None:
    """A reload that comes too late kills the process, and with it what is in flight."""
    daemon = serve(start, service)
    client = daemon.connect().send(encode("GET", "/a"))
    eventually(lambda: service.requests)
    daemon.terminate()
    eventually(lambda: is_deaf(daemon))
    for _ in range(5):
        daemon.signal(signal.SIGHUP)
    slow.set()
    assert client.answer().status == 200
    assert daemon.wait() == 0


def test_an_event_stream_and_a_socket_are_in_flight_too(start: Start, service: Service) -> None:
    """Everyone in a chat is thrown out at once, at the beginning of the drain and not at its end."""

    def behave(received: Received) -> None:
        conversation = received.conversation
        if received.target == "/events":
            conversation.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\nfirst")
            assert draining.wait(20)
            conversation.send(b"last")
            conversation.close()
        else:
            conversation.send(SWITCH)
            while True:
                conversation.send(conversation.some())

    draining = threading.Event()
    service.behave = behave
    daemon = serve(start, service)
    events, socket = daemon.connect(), daemon.connect()
    assert events.send(encode("GET", "/events")).head().status == 200
    assert events.chunk() == b"first"
    assert socket.send(encode("GET", "/socket", *HANDSHAKE)).head().status == 101
    daemon.terminate()
    eventually(lambda: sum(map(int, re.findall(r"draining: (\d+) exchange", daemon.log))) == 2)
    assert socket.send(b"hello").take(5, b"") == b"hello"
    draining.set()
    assert events.chunk() == b"last"
    assert events.chunk() is None
    assert daemon.process.poll() is None
    socket.close()
    assert daemon.wait() == 0


def test_nothing_is_left_behind(start: Start, service: Service) -> None:
    """After a stop the port stays taken, or threads go on."""
    daemon = serve(start, service)
    assert daemon.get("/a").status == 200
    service.behave = echo
    daemon.terminate()
    assert daemon.wait() == 0
    assert is_deaf(daemon)
    with pytest.raises(ProcessLookupError):
        os.kill(daemon.process.pid, 0)
    eventually(lambda: service.connections == 0)
    assert "did not stop" not in daemon.log
