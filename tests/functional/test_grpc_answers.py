"""What the gateway itself says to a gRPC client, and does with the calls of a service that fails: frame by frame."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from support.asking import circuit
from support.client import Answer
from support.daemon import Daemon, Document, gateway
from support.h2_client import Exchange, H2Client
from support.h2_service import H2Service, Received
from support.samples import counted
from support.services import port_nobody_listens_on
from support.waiting import eventually

from .conftest import Start

GRPC = ("content-type", "application/grpc+proto")
INTERNAL_ERROR, FLOW_CONTROL_ERROR, REFUSED_STREAM, CANCEL, CALM = 2, 3, 7, 8, 11
MESSAGE = b"\0\0\0\0\2hi"
SECRET = "a secret for tests that is long enough"
BREAKER = {"error_rate": 0.5, "window": "10s", "min_requests": 4, "open_for": "10m"}


@pytest.fixture(scope="module")
def module_h2() -> Iterator[H2Service]:
    with closing(H2Service()) as service:
        yield service


@pytest.fixture
def service(module_h2: H2Service) -> Iterator[H2Service]:
    module_h2.behave = answer
    module_h2.behave_on_data = False
    module_h2.requests.clear()
    yield module_h2
    assert module_h2.failures == []


def document(service: H2Service, log: Path) -> Document:
    main = {"targets": [service.url], "protocol": "grpc", "timeout": "500ms"}
    unreachable = f"http://127.0.0.1:{port_nobody_listens_on()}"
    services = {
        "main": main,
        "patient": {**main, "timeout": "10s"},
        "gone": {"targets": [unreachable], "protocol": "grpc"},
        **{f"circuit{number}": {**main, "circuit_breaker": BREAKER} for number in range(5)},
    }
    routes: list[Document] = [
        {"path": "/main/*", "service": "main"},
        {"path": "/patient/*", "service": "patient"},
        {"path": "/gone/*", "service": "gone"},
        {"path": "/guarded/*", "service": "main", "auth": "required"},
        {"path": "/limited/*", "service": "main"},
        {"path": "/small/*", "service": "main", "max_body_size": 10},
        {"path": "/get/*", "service": "main", "methods": ["GET"]},
        *({"path": f"/circuit{number}/*", "service": f"circuit{number}"} for number in range(5)),
    ]
    open_ones: list[Document] = [{"auth": "none", **route} for route in routes]
    settings = gateway(services=services, routes=open_ones, access_log={"file": str(log), "format": "json"})
    settings["auth"] = {"jwt": [{"name": "main", "algorithm": "HS256", "secret": SECRET, "issuer": "https://a"}]}
    settings["rate_limits"] = [{"endpoint": "/limited/*", "limit": 1, "window": "1h", "scope": "ip"}]
    return settings


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("log") / "access.log"


@pytest.fixture(scope="module")
def daemon(in_front: Start, module_h2: H2Service, log: Path) -> Daemon:
    return in_front(document(module_h2, log))


@pytest.fixture
def client(daemon: Daemon) -> Iterator[H2Client]:
    with H2Client(daemon.address) as client:
        yield client


def answer(received: Received, status: str = "0") -> None:
    if received.ended:
        received.start(200, GRPC)
        received.send(bytes(received.body))
        received.end(("grpc-status", status))


def call(client: H2Client, path: str, *fields: tuple[str, str], body: bytes = MESSAGE) -> Exchange:
    """A whole call, to its end of any kind."""
    number = client.begin("POST", path, GRPC, ("te", "trailers"), *fields, end=False)
    client.send(number, body, end=True)
    return ended(client, number)


def ended(client: H2Client, number: int) -> Exchange:
    stream = client.streams[number]
    client.until(lambda: stream.ended or stream.reset is not None)
    return stream


def refused(stream: Exchange) -> int:
    """The status of an answer that is a head alone."""
    assert stream.answer is not None
    assert stream.answer.status == 200
    assert not stream.body
    assert not stream.trailers
    assert stream.reset is None
    assert stream.answer.get("content-type") == GRPC[1]
    assert stream.answer.get("grpc-message")
    assert stream.answer.get("x-request-id")
    return int(stream.answer.get("grpc-status") or "-1")


def test_a_call_passes(client: H2Client, service: H2Service) -> None:
    """With its trailers, and with ``te`` for the service."""
    stream = call(client, "/main/a")
    assert (bytes(stream.body), stream.trailers) == (MESSAGE, [("grpc-status", "0")])
    assert (service.last.get("te"), service.last.get("content-type")) == ("trailers", GRPC[1])
    assert service.last.get("content-length") is None


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/nowhere", MESSAGE, 12),
        ("/get/a", MESSAGE, 12),
        ("/guarded/a", MESSAGE, 16),
        ("/gone/a", MESSAGE, 14),
        ("/small/a", MESSAGE * 2, 8),
    ],
)
def test_a_refusal_is_a_grpc_status(client: H2Client, service: H2Service, path: str, body: bytes, status: int) -> None:
    """In an answer of 200 that is a head alone; whoever is no gRPC client gets a problem document as ever."""
    service.behave = lambda received: None
    assert refused(call(client, path, body=body)) == status
    problem: Answer = client.request("POST", path, ("content-length", str(len(body))), body=body)
    assert problem.status >= 400
    assert problem.code


def test_a_limit_refuses_calls(client: H2Client, service: H2Service) -> None:
    """With UNAVAILABLE, as gRPC maps 429, and what a limit tells besides."""
    assert call(client, "/limited/a").trailers == [("grpc-status", "0")]
    stream = call(client, "/limited/a")
    assert refused(stream) == 14
    assert stream.answer is not None
    assert stream.answer.get("retry-after")


def test_the_metrics_count_the_status_of_calls(start: Start, service: H2Service) -> None:
    """By the service's name, and whoever has answered."""
    main = {"targets": [service.url], "protocol": "grpc"}
    daemon = start(gateway(services={"main": main}, routes=[{"path": "/*", "service": "main", "max_body_size": 10}]))
    with H2Client(daemon.address) as client:
        for body in (MESSAGE, MESSAGE, MESSAGE * 2):
            call(client, "/a", body=body)
    eventually(lambda: counted(daemon, "gateway_grpc_calls_total", "grpc_status") == {("0",): 2, ("8",): 1})


def test_the_log_has_the_status_of_calls(client: H2Client, service: H2Service, log: Path) -> None:
    """Of the service's answer, and of the gateway's, beside the status that this has for others."""
    call(client, "/main/a", ("x-request-id", "passed"))
    service.behave = lambda received: answer(received, "5")
    call(client, "/main/a", ("x-request-id", "failed"))
    call(client, "/gone/a", ("x-request-id", "refused"))
    client.request("GET", "/main/a", ("x-request-id", "other"))

    def lines() -> dict[str, Document]:
        return {line["request_id"]: line for line in map(json.loads, log.read_text().splitlines())}

    eventually(lambda: "other" in lines())
    found = {name: (lines()[name]["status"], lines()[name].get("grpc_status")) for name in ("passed", "failed")}
    assert found == {"passed": (200, 0), "failed": (200, 5)}
    line = lines()["refused"]
    assert (line["status"], line["grpc_status"], line["code"]) == (502, 14, "upstream_unreachable")
    assert "grpc_status" not in lines()["other"]


def test_the_deadline_of_a_call(client: H2Client, service: H2Service) -> None:
    """It goes on reduced; when it has passed, client and service are told."""
    service.behave = lambda received: None
    assert refused(call(client, "/patient/a", ("grpc-timeout", "1S"))) == 4
    sent = service.last.get("grpc-timeout") or ""
    assert sent.endswith("u")
    assert 100_000 < int(sent[:-1]) < 1_000_000
    eventually(lambda: service.last.reset == CANCEL)


def test_the_deadline_of_a_call_without_a_message(client: H2Client, service: H2Service) -> None:
    """A client's stream may end with its head. The route's timeout is longer."""
    service.behave = lambda received: None
    client.socket.settimeout(5)
    number = client.begin("POST", "/patient/a", GRPC, ("te", "trailers"), ("grpc-timeout", "200m"))
    assert refused(ended(client, number)) == 4


def test_the_deadline_of_an_answer_that_has_begun(client: H2Client, service: H2Service) -> None:
    """The client has what came, and the status behind it."""

    def behave(received: Received) -> None:
        if received.ended:
            received.start(200, GRPC)
            received.send(MESSAGE)

    service.behave = behave
    stream = call(client, "/patient/a", ("grpc-timeout", "300m"))
    assert (bytes(stream.body), stream.reset) == (MESSAGE, None)
    assert dict(stream.trailers)["grpc-status"] == "4"
    eventually(lambda: service.last.reset == CANCEL)


def test_the_timeout_of_the_route_is_a_deadline_exceeded(client: H2Client, service: H2Service) -> None:
    """As where the client has one that is longer."""
    service.behave = lambda received: None
    for fields in ([], [("grpc-timeout", "10S")]):
        assert refused(call(client, "/main/a", *fields)) == 4


def test_a_deadline_that_no_one_can_read_is_the_service_s(client: H2Client, service: H2Service) -> None:
    """It passes as it is."""
    assert call(client, "/main/a", ("grpc-timeout", "soon")).trailers == [("grpc-status", "0")]
    assert service.last.get("grpc-timeout") == "soon"


@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize(
    ("code", "passed"), [(CANCEL, CANCEL), (CALM, CALM), (INTERNAL_ERROR, 2), (FLOW_CONTROL_ERROR, 2)]
)
def test_a_reset_of_the_service_passes(
    client: H2Client, service: H2Service, code: int, passed: int, begun: bool
) -> None:
    """Before its answer, and within it."""

    def behave(received: Received) -> None:
        if received.ended:
            if begun:
                received.start(200, GRPC)
            received.refuse(code)

    service.behave = behave
    assert call(client, "/main/a").reset == passed


def test_a_client_s_reset_passes(client: H2Client, service: H2Service) -> None:
    """As CANCEL."""
    service.behave = lambda received: None
    number = client.begin("POST", "/patient/a", GRPC, end=False)
    eventually(lambda: service.requests)
    client.cancel(number)
    eventually(lambda: service.last.reset == CANCEL)


def test_what_the_service_has_not_begun_is_repeated(client: H2Client, service: H2Service) -> None:
    """With all that was sent of the call; what follows goes to the new stream alone. Once, and then it fails."""

    def behave(received: Received) -> None:
        if len(service.requests) == 1:
            if received.body == MESSAGE:
                received.refuse(REFUSED_STREAM)
        else:
            answer(received)

    service.behave_on_data = True
    service.behave = behave
    number = client.begin("POST", "/main/a", GRPC, end=False)
    client.send(number, MESSAGE)
    eventually(lambda: len(service.requests) == 2)
    client.send(number, MESSAGE, end=True)
    stream = ended(client, number)
    assert (bytes(stream.body), stream.trailers) == (MESSAGE * 2, [("grpc-status", "0")])
    service.requests.clear()
    service.behave = lambda received: received.refuse(REFUSED_STREAM) if received.ended else None
    assert refused(call(client, "/main/a")) == 14
    assert len(service.requests) == 2


def test_a_goodbye_of_the_service_loses_no_call(client: H2Client, service: H2Service) -> None:
    """What its GOAWAY does not name is sent once more, on a new connection."""

    def behave(received: Received) -> None:
        if received.ended and len(service.requests) == 1:
            received.connection.say_goodbye(received.stream - 2)
        elif received.ended:
            answer(received)

    service.behave = behave
    stream = call(client, "/main/a")
    assert (bytes(stream.body), stream.trailers) == (MESSAGE, [("grpc-status", "0")])
    assert service.requests[0].connection is not service.requests[1].connection


def test_a_long_call_is_not_repeated(client: H2Client, service: H2Service) -> None:
    """Of more than ``buffer_body``, nothing is remembered."""
    refusals: list[Received] = []

    def behave(received: Received) -> None:
        if len(received.body) == 70_000 and not refusals:
            refusals.append(received)
            received.refuse(REFUSED_STREAM)

    service.behave_on_data = True
    service.behave = behave
    assert refused(call(client, "/main/a", body=b"x" * 70_000)) == 14
    assert len(service.requests) == 1


@pytest.mark.parametrize(
    ("number", "status", "fields", "opens"),
    [
        (0, "14", [], True),
        (1, "13", [], False),
        (2, "4", [("grpc-timeout", "100m")], False),
        (3, "silence", [("grpc-timeout", "100m")], False),
        (4, "silence", [], True),
    ],
)
def test_what_counts_for_the_circuit(
    daemon: Daemon,
    client: H2Client,
    service: H2Service,
    number: int,
    status: str,
    fields: list[tuple[str, str]],
    opens: bool,
) -> None:
    """UNAVAILABLE, and the route's own timeout; not another status, and not the client's deadline."""
    service.behave = lambda received: None if status == "silence" else answer(received, status)
    for _ in range(4):
        call(client, f"/circuit{number}/a", *fields)
    state = circuit(daemon, f"circuit{number}")["state"]
    assert state == ("open" if opens else "closed")
    if opens:
        stream = call(client, f"/circuit{number}/a")
        assert refused(stream) == 14
        assert stream.answer is not None
        assert stream.answer.get("retry-after")
