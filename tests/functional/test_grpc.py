"""gRPC through the gateway, with the servers and clients of grpcio."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
from support.certificates import Authority
from support.daemon import Daemon, gateway
from support.grpc_service import NOT_SERVING, SERVING, GrpcClient, GrpcService, code_of
from support.waiting import eventually

from .conftest import Start

os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"
os.environ["GRPC_VERBOSITY"] = "NONE"
OK = grpc.StatusCode.OK
LATE = 8
"""Calls that end one after the other: a server of gRPC ends a connection after the fourth PING (gRFC A8)."""


@pytest.fixture(scope="module")
def module_grpc() -> Iterator[GrpcService]:
    service = GrpcService()
    yield service
    service.stop()


@pytest.fixture
def service(module_grpc: GrpcService) -> GrpcService:
    module_grpc.seen.clear()
    module_grpc.hangs.clear()
    module_grpc.cancelled.clear()
    module_grpc.sent = 0
    return module_grpc


@pytest.fixture(scope="module")
def daemon(in_front: Start, module_grpc: GrpcService) -> Daemon:
    main = {"targets": [module_grpc.url()], "protocol": "grpc"}
    routes = [
        {"path": "/test.Service/*", "service": "main", "max_body_size": None},
        {"path": "/test.Small/*", "service": "main", "max_body_size": "64KiB"},
        {"path": "/test.Hasty/*", "service": "main", "timeout": "500ms"},
        *(
            {"path": f"/test.Late{number}/*", "service": "main", "timeout": f"{300 + 150 * number}ms"}
            for number in range(LATE)
        ),
    ]
    return in_front(gateway(services={"main": main}, routes=routes))


@pytest.fixture(scope="module")
def client(daemon: Daemon) -> Iterator[GrpcClient]:
    with GrpcClient(daemon.address) as client:
        yield client


def test_a_unary_call(client: GrpcClient, service: GrpcService) -> None:
    """With metadata in both directions, before and behind the message, and no forged identity."""
    sent = (("x-mine", "1"), ("x-user-id", "root"), ("x-data-bin", b"\0\xff"))
    answer, call = client.of("Unary").with_call(b"hello", metadata=sent, timeout=20)
    assert answer == b"hello"
    assert dict(call.initial_metadata())["x-initial"] == "first"
    assert {("x-trailing", "last"), ("x-binary-bin", b"\0\xff")} <= set(call.trailing_metadata())
    (seen,) = service.seen
    assert {("x-mine", "1"), ("x-data-bin", b"\0\xff")} <= seen.items()
    assert "x-user-id" not in seen


def test_streams(client: GrpcClient) -> None:
    """Of the client, of the server, and of both at once."""
    assert client.upload(iter([b"x" * 100_000] * 10)) == b"1000000"
    assert [len(message) for message in client.download(100_000, 10)] == [100_000] * 10
    turn = threading.Semaphore(1)

    def requests() -> Iterator[bytes]:
        for word in (b"one", b"two", b"three"):
            assert turn.acquire(timeout=20)
            yield word

    heard = []
    for message in client.chat(requests()):
        heard.append(message)
        turn.release()
    assert heard == [b"ONE", b"TWO", b"THREE"]


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code is not OK])
def test_the_status_of_the_service_is_the_client_s(client: GrpcClient, code: grpc.StatusCode) -> None:
    """With its message, whatever characters that has."""
    with pytest.raises(grpc.RpcError) as caught:
        client.unary("Fail", b"%d" % code.value[0])
    assert (caught.value.code(), caught.value.details()) == (code, "as wished: 100 % – ä")


def test_a_stream_that_fails_half_way(client: GrpcClient) -> None:
    """The client has what came before, and the status."""
    stream = client.chat(iter([b"one", b"fail"]))
    assert next(stream) == b"ONE"
    assert code_of(lambda: next(stream)) is grpc.StatusCode.ABORTED


def test_a_refusal_while_the_client_still_sends(daemon: Daemon, service: GrpcService) -> None:
    """The client learns the status, whether or not it has an end of its own; before the service, and half-way."""
    over = threading.Event()

    def endless() -> Iterator[bytes]:
        while not over.wait(0.001):
            yield b"x" * 1000

    with GrpcClient(daemon.address, "/test.Nowhere") as client:
        assert code_of(lambda: client.upload(endless())) is grpc.StatusCode.UNIMPLEMENTED
    with GrpcClient(daemon.address, "/test.Small") as client:
        assert code_of(lambda: client.upload(endless())) is grpc.StatusCode.RESOURCE_EXHAUSTED
        stream = client.chat(endless())
        assert code_of(lambda: list(stream)) is grpc.StatusCode.RESOURCE_EXHAUSTED
    over.set()


def test_the_deadline_goes_on_reduced(client: GrpcClient) -> None:
    """A call without one has none there either. grpcio adds a little to what it sends."""
    remaining = float(client.unary("Remaining", timeout=15))
    assert 14 < remaining < 15.2
    assert client.of("Remaining")(b"") == b"none"


def test_a_deadline_ends_the_call_at_the_service(client: GrpcClient, service: GrpcService) -> None:
    """The client's comes first; the service learns of it."""
    assert code_of(lambda: client.unary("Hang", timeout=0.3)) is grpc.StatusCode.DEADLINE_EXCEEDED
    assert service.cancelled.wait(10)


def test_the_timeout_of_the_route_is_a_deadline_too(daemon: Daemon, service: GrpcService) -> None:
    """Where it is shorter."""
    with GrpcClient(daemon.address, "/test.Hasty") as client:
        assert code_of(lambda: client.unary("Hang", timeout=15)) is grpc.StatusCode.DEADLINE_EXCEEDED
    assert service.cancelled.wait(10)


def test_calls_that_are_late_end_no_other(daemon: Daemon, service: GrpcService) -> None:
    """A service that is silent is not asked so often whether it is there that it ends the connection of all."""
    with GrpcClient(daemon.address) as other, GrpcClient(daemon.address) as client:
        waits = other.of("Hang").future(b"")
        methods: list[Any] = [client.channel.unary_unary(f"/test.Late{number}/Hang") for number in range(LATE)]
        late = [method.future(b"") for method in methods]
        assert [call.code() for call in late] == [grpc.StatusCode.DEADLINE_EXCEEDED] * LATE
        assert not waits.done()
        waits.cancel()


def test_a_client_that_cancels(client: GrpcClient, service: GrpcService) -> None:
    """The service learns of it."""
    call = client.of("Hang").future(b"")
    assert service.hangs.wait(10)
    call.cancel()
    assert service.cancelled.wait(10)


def test_a_client_that_does_not_read_slows_the_service_down(
    daemon: Daemon, client: GrpcClient, service: GrpcService
) -> None:
    """And what passes through takes no memory: 128 MiB, while the client pauses behind the first message."""
    assert len(list(client.download(1024 * 1024, 16))) == 16
    before, service.sent = daemon.resident, 0
    stream = client.download(1024 * 1024, 128)
    next(stream)
    held = 0
    while held != service.sent:  # until nothing moves
        held = service.sent
        threading.Event().wait(0.3)
    assert held < 32
    assert len(list(stream)) == 127
    assert daemon.resident - before < 16 * 1024 * 1024


def test_over_tls(start: Start, tmp_path: Path) -> None:
    """On both sides."""
    authority = Authority(tmp_path)
    pair = authority.issue("localhost")
    key, certificate = Path(pair.key).read_bytes(), Path(pair.certificate).read_bytes()
    service = GrpcService(credentials=grpc.ssl_server_credentials([(key, certificate)]))
    main = {"targets": [service.url("https", "localhost")], "protocol": "grpc", "tls": {"ca_file": authority.file}}
    pem = {"cert_file": pair.certificate, "key_file": pair.key}
    listen = [{"endpoint": "tcp:0:interface=127.0.0.1", "tls": {"certificates": [pem]}}]
    daemon = start(gateway(services={"main": main}, routes=[{"path": "/*", "service": "main"}], listen=listen))
    trusted = grpc.ssl_channel_credentials(Path(authority.file).read_bytes())
    with GrpcClient(daemon.address, credentials=trusted) as client:
        assert client.unary() == b"hello"
        assert b"".join(client.chat(iter([b"a", b"b"]))) == b"AB"
    service.stop()


def test_health_checks(start: Start) -> None:
    """By grpc.health.v1, for the whole server or one of its services; ``/ready`` and the balancing follow."""
    with ExitStack() as stack:
        services = [GrpcService(), GrpcService()]
        for number, service in enumerate(services):
            service.name = str(number)
            stack.callback(service.stop)
        check = {"interval": "100ms", "unhealthy_after": 1, "healthy_after": 1, "grpc_service": "test.Service"}
        targets = [service.url() for service in services]
        main = {"targets": targets, "protocol": "grpc", "critical": True, "health_check": check}
        daemon = start(gateway(services={"main": main}, routes=[{"path": "/*", "service": "main"}]))
        first, second = services
        eventually(lambda: first.health_checks and second.health_checks)
        assert {*first.health_checks, *second.health_checks} == {b"\x0a\x0ctest.Service"}
        assert daemon.get("/ready").status == 200
        first.health = NOT_SERVING
        with GrpcClient(daemon.address) as client:
            eventually(lambda: {client.unary() for _ in range(4)} == {b"hello from 1"})
            second.health = b"\x08\x03"
            eventually(lambda: daemon.get("/ready").status == 503)
            first.health = SERVING
            eventually(lambda: daemon.get("/ready").status == 200)
            eventually(lambda: {client.unary() for _ in range(4)} == {b"hello from 0"})


def test_calls_in_flight_survive_the_stop_of_their_server(start: Start) -> None:
    """Its GOAWAY ends no stream: those that it has begun are answered within its grace period."""
    service = GrpcService()
    main = {"targets": [service.url()], "protocol": "grpc"}
    daemon = start(gateway(services={"main": main}, routes=[{"path": "/*", "service": "main"}]))
    with GrpcClient(daemon.address) as client:
        calls = [client.of("Slow").future(b"late", timeout=20) for _ in range(5)]
        eventually(lambda: service.slow == 5)
        stopping = threading.Thread(target=service.stop, args=(10,))
        stopping.start()
        eventually(lambda: code_of(client.unary) is grpc.StatusCode.UNAVAILABLE)
        service.release.set()
        assert [call.result() for call in calls] == [b"late"] * 5
        stopping.join()


def test_a_rolling_restart_loses_no_call(start: Start) -> None:
    """Two servers say that they are not serving, are stopped, and are started again, one after the other, under load.

    Without the first step, a server of grpcio that is stopped cancels calls that it has accepted and not begun.
    """
    services = [GrpcService(), GrpcService()]
    check = {"interval": "100ms", "unhealthy_after": 1, "healthy_after": 1}
    main = {"targets": [service.url() for service in services], "protocol": "grpc", "health_check": check}
    daemon = start(gateway(services={"main": main}, routes=[{"path": "/*", "service": "main"}]))
    over = threading.Event()

    def call() -> list[grpc.StatusCode]:
        codes = []
        with GrpcClient(daemon.address) as client:
            while not over.is_set():
                codes.append(code_of(client.unary))
        return codes

    with ThreadPoolExecutor() as pool:
        calling = [pool.submit(call) for _ in range(4)]
        try:
            for number in (0, 1, 0, 1):
                service = services[number]
                eventually(lambda: all(len(each.seen) > 20 for each in services))
                service.health = NOT_SERVING
                eventually(lambda service=service: service.rests())  # type: ignore[misc]
                service.stop(grace=5)
                services[number] = GrpcService(service.port)
        finally:
            over.set()
        codes = [code for called in calling for code in called.result()]
    assert len(codes) > 200
    assert set(codes) == {OK}
    for service in services:
        service.stop()
