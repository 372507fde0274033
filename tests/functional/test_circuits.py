"""Circuit breakers: services that die, hang, fail, flap and recover, behind a gateway that runs on."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from support.asking import admin_of, asked, circuit, command, metrics, post
from support.client import Answer, Client, encode
from support.daemon import Daemon, Document, gateway
from support.services import Received, Service, port_nobody_listens_on
from support.traffic import Traffic
from support.waiting import eventually

from .conftest import Start

BREAKER = {"error_rate": 0.4, "window": "2s", "min_requests": 6, "open_for": "300ms", "half_open_requests": 2}
LONG = {**BREAKER, "error_rate": 0.5, "window": "10s", "open_for": "10m"}
CHECK = {"path": "/health", "interval": "100ms", "timeout": "500ms", "unhealthy_after": 100, "healthy_after": 1}
ROUTES = [{"path": "/other/*", "service": "other"}, {"path": "/*", "service": "main"}]


def answer(status: int) -> Callable[[Received], None]:
    def behave(received: Received) -> None:
        received.body()
        received.conversation.answer(status, body=b"{}")

    return behave


def hang(received: Received) -> None:
    received.conversation.wait_for_end()


@pytest.fixture
def main() -> Iterator[Service]:
    service = Service(answer(200))
    yield service
    service.close()


@pytest.fixture
def other() -> Iterator[Service]:
    service = Service(answer(200))
    yield service
    service.close()
    assert service.failures == []


def one(target: Service | int, breaker: Document = BREAKER, **more: Any) -> Document:
    url = f"http://127.0.0.1:{target}" if isinstance(target, int) else target.url
    return {"targets": [url], "timeout": "400ms", "circuit_breaker": breaker, **more}


def protected(main: Service, other: Service, breaker: Document = BREAKER, **more: Any) -> Document:
    return gateway(services={"main": one(main, breaker, **more), "other": other.url}, routes=ROUTES)


FAULTS = ["killed", "hanging", "half-fails", "cut-off", "no-HTTP"]


class Scene:
    """One daemon, in which each test has a service of its own, below its name; ``other`` is everybody's."""

    def __init__(self) -> None:
        self.other = Service(answer(200))
        self.at: dict[str, Service] = {}
        self.killed = port_nobody_listens_on()
        self.daemon: Daemon

    def document(self) -> Document:
        eager = {**BREAKER, "error_rate": 0.01, "min_requests": 1}
        more: dict[str, Document] = {
            "told": {"breaker": LONG},
            "open": {"breaker": LONG, "keepalive_timeout": "100ms"},
            "rate": {"breaker": LONG},
            "probed": {"breaker": {**BREAKER, "open_for": "200ms"}, "timeout": "10s"},
            "checked": {"health_check": CHECK},
            "dying": {"breaker": eager},
            "slow-clients": {"breaker": eager, "timeout": "10s"},
            **{fault: {} for fault in FAULTS},
        }
        self.at = {name: Service(answer(200)) for name in more}
        services: Document = {name: one(self.at[name], **settings) for name, settings in more.items()}
        services["killed"]["targets"] = [f"http://127.0.0.1:{self.killed}"]
        services["dying"]["targets"].append(self.other.url)
        services["other"] = self.other.url
        routes = [{"path": f"/{name}/*", "service": name, "strip_prefix": f"/{name}"} for name in services]
        return gateway(services=services, routes=routes, client_body_timeout="200ms")

    def get(self, name: str) -> Answer:
        return self.daemon.get(f"/{name}/a")

    def circuit(self, name: str) -> Any:
        return circuit(self.daemon, name)

    def state(self, name: str) -> str:
        found: str = self.circuit(name)["state"]
        return found

    def open_it(self, name: str) -> None:
        eventually(lambda: self.get(name).status == 503)
        assert self.state(name) == "open"

    def close(self) -> None:
        for service in (self.other, *self.at.values()):
            service.close()
        assert self.other.failures == []


@pytest.fixture(scope="module")
def scene(in_front: Start) -> Iterator[Scene]:
    scene = Scene()
    scene.daemon = in_front(scene.document())
    yield scene
    scene.close()


def open_it(daemon: Daemon, target: str = "/a") -> None:
    eventually(lambda: daemon.get(target).status == 503)
    assert circuit(daemon)["state"] == "open"


def test_what_a_caller_is_told(scene: Scene) -> None:
    """A client learns that a service is left alone, and when to come back."""
    main = scene.at["told"]
    main.behave = answer(503)
    assert [scene.get("told").get("via") for _ in range(6)] == ["1.1 apigw"] * 6
    refused = scene.get("told")
    assert (refused.status, refused.code) == (503, "circuit_open")
    assert 595 <= int(refused.get("retry-after") or 0) <= 600
    assert scene.daemon.get("/other/a").status == 200
    eventually(lambda: "circuit of told opened: 6 of 6 failed in 10 s" in scene.daemon.log)
    shown = scene.circuit("told")
    assert (shown["state"], shown["opened"], shown["forced"]) == ("open", 1, False)
    assert 590 < shown["retry_in"] <= 600
    text = metrics(scene.daemon)
    assert 'gateway_circuit_breaker_state{service="told"} 1.0' in text
    assert 'gateway_circuit_breaker_state{service="other"} 0.0' in text
    assert 'gateway_circuit_breaker_transitions_total{service="told",to="open"} 1.0' in text


def test_an_open_circuit_touches_no_socket(scene: Scene) -> None:
    """A service whose circuit is open is asked nothing."""
    main = scene.at["open"]
    main.behave = answer(500)
    scene.open_it("open")
    eventually(lambda: main.connections == 0)
    accepted, requests = main.accepted, len(main.requests)
    for _ in range(30):
        assert scene.get("open").code == "circuit_open"
    assert (main.accepted, len(main.requests), main.connections) == (accepted, requests, 0)


def test_error_rate(scene: Scene) -> None:
    """What callers do wrong is no failure, and half of the requests must fail where the rate is 0.5."""
    main = scene.at["rate"]
    main.behave = answer(404)
    assert [scene.get("rate").status for _ in range(6)] == [404] * 6
    main.behave = answer(500)
    assert [scene.get("rate").status for _ in range(6)] == [500] * 6
    assert scene.get("rate").code == "circuit_open"
    eventually(lambda: "circuit of rate opened: 6 of 12 failed in 10 s" in scene.daemon.log)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_service_breaks_and_recovers(scene: Scene, fault: str) -> None:
    """Whatever the fault, the service is left alone, tried again, and used when it is well; others never notice."""
    main = Service(answer(200), port=scene.killed) if fault == "killed" else scene.at[fault]
    turn = iter(range(10**9))

    def truncated(received: Received) -> None:
        received.conversation.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nx")
        received.conversation.close()

    def nonsense(received: Received) -> None:
        received.conversation.send(b"hello\r\n\r\n")
        received.conversation.close()

    faults = {
        "hanging": hang,
        "half-fails": lambda received: answer(500 if next(turn) % 2 else 200)(received),
        "cut-off": truncated,
        "no-HTTP": nonsense,
    }
    with (
        Traffic(scene.daemon.address, "/other/a") as others,
        Traffic(scene.daemon.address, f"/{fault}/a", 4) as traffic,
    ):
        traffic.go_on()
        if fault == "killed":
            main.close()
        else:
            main.behave = faults[fault]
        eventually(lambda: traffic.statuses[503] > 50)
        eventually(lambda: scene.circuit(fault)["opened"] >= 2)  # it was tried again, and found broken
        others.go_on()
        main.behave = answer(200)
        if fault == "killed":
            main = Service(answer(200), port=scene.killed)
        eventually(lambda: scene.state(fault) == "closed")
        before = traffic.statuses[200]
        eventually(lambda: traffic.statuses[200] > before + 100)
    assert set(others.statuses) == {200}
    assert not others.tally.failures
    allowed = {200, 500, 503} if fault == "half-fails" else {200, 502, 503, 504}
    assert set(traffic.statuses) <= allowed
    if fault != "cut-off":  # which its client must notice
        assert not traffic.surprises
    text = metrics(scene.daemon)
    assert text.count(f'gateway_circuit_breaker_state{{service="{fault}"}}') == 1
    main.close()


def test_probes_are_few(scene: Scene) -> None:
    """A service that has just got up is asked by as many as ``half_open_requests`` at a time."""
    main = scene.at["probed"]
    main.behave = answer(500)
    scene.open_it("probed")
    go, seen = threading.Event(), len(main.requests)

    def behave(received: Received) -> None:
        go.wait(10)
        answer(200)(received)

    main.behave = behave
    with ExitStack() as stack:
        clients = [stack.enter_context(scene.daemon.connect()) for _ in range(2)]

        def arrives(client: Client, number: int) -> None:
            """Refused until the time has come; then it is a probe, and waits."""

            def admitted() -> bool:
                client.send(encode("GET", "/probed/a"))
                client.socket.settimeout(0.2)
                try:
                    return client.answer().status != 503
                except TimeoutError:
                    return len(main.requests) == seen + number
                finally:
                    client.socket.settimeout(15)

            eventually(admitted)

        for number, client in enumerate(clients, 1):
            arrives(client, number)
        assert scene.state("probed") == "half-open"
        assert 'gateway_circuit_breaker_state{service="probed"} 2.0' in eventually(
            lambda: (text := metrics(scene.daemon)) and '="half-open"} 1.0' in text and text
        )
        for _ in range(5):
            refused = scene.get("probed")
            assert (refused.code, refused.get("retry-after")) == ("circuit_open", "1")
        assert len(main.requests) == seen + 2
        # One leaves, and another gets its place.
        clients[0].reset()
        third = stack.enter_context(scene.daemon.connect())
        arrives(third, 3)
        assert scene.state("probed") == "half-open"
        go.set()
        assert [client.answer().status for client in (clients[1], third)] == [200, 200]
    assert scene.state("probed") == "closed"
    eventually(lambda: "closed: 2 of 2 probes succeeded" in scene.daemon.log)


def test_a_health_check_decides(scene: Scene) -> None:
    """Where there is a health check it finds out whether a service is up, and no caller does."""
    main = scene.at["checked"]
    main.behave = answer(500)
    scene.open_it("checked")
    asked_by_callers = sum(received.target == "/a" for received in main.requests)
    eventually(lambda: scene.circuit("checked")["opened"] >= 3)
    assert scene.get("checked").code == "circuit_open"
    assert sum(received.target == "/a" for received in main.requests) == asked_by_callers
    main.behave = answer(200)
    eventually(lambda: scene.state("checked") == "closed")
    eventually(lambda: "closed: a health check passed" in scene.daemon.log)
    assert scene.get("checked").status == 200


def test_one_of_two_targets_killed(start: Start) -> None:
    """A machine that dies costs no request, and does not open the circuit."""
    with ExitStack() as stack:

        def origin() -> tuple[subprocess.Popen[bytes], int]:
            port = port_nobody_listens_on()
            contrib = Path(__file__).resolve().parents[2] / "contrib"
            started = subprocess.Popen([sys.executable, "-m", "bench.origin", str(port)], cwd=contrib)
            stack.callback(started.wait)
            stack.callback(started.kill)
            eventually(lambda: socket.create_connection(("127.0.0.1", port)).close() is None)
            return started, port

        (first, first_port), (_, second_port) = origin(), origin()
        document = gateway(
            services={"main": one(first_port, {**BREAKER, "error_rate": 0.01, "min_requests": 1})}, routes=ROUTES[1:]
        )
        document["services"]["main"]["targets"] = [f"http://127.0.0.1:{port}" for port in (first_port, second_port)]
        daemon = start(document)
        # One client: what goes over a connection that has never been answered is not sent again.
        with Traffic(daemon.address, "/a", 1) as traffic:
            traffic.go_on()
            first.kill()
            traffic.go_on(200)
        assert not traffic.tally.failures, daemon.log
        assert circuit(daemon)["state"] == "closed"


def test_a_target_that_dies_as_it_takes_the_call(scene: Scene) -> None:
    """Of two targets the other gets what the first took and dropped, unless it may have been done."""
    main = scene.at["dying"]
    main.behave = lambda received: received.conversation.close()
    assert [scene.get("dying").status for _ in range(4)] == [200] * 4
    assert scene.state("dying") == "closed"
    main.requests.clear()
    assert [scene.daemon.request("POST", "/dying/a").status for _ in range(2)].count(502) == 1, (
        "which may have been done"
    )


def test_clients_that_stall_or_leave(scene: Scene) -> None:
    """What clients do is no failure of their service."""
    main = scene.at["slow-clients"]

    def behave(received: Received) -> None:
        for _ in received.pieces():
            pass
        if received.target == "/large":
            received.conversation.answer(200, body=b"x" * 30_000_000)
        elif received.target == "/wait":
            received.conversation.wait_for_end()
        else:
            answer(200)(received)

    main.behave = behave
    with ExitStack() as stack:
        sending = [stack.enter_context(scene.daemon.connect()) for _ in range(4)]
        for client in sending:
            client.send("POST /slow-clients/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nbeginning")
        reading = [stack.enter_context(scene.daemon.connect()) for _ in range(4)]
        for client in reading:
            client.send(encode("GET", "/slow-clients/large"))
        leaving = [stack.enter_context(scene.daemon.connect()) for _ in range(4)]
        for client in leaving:
            client.send(encode("GET", "/slow-clients/wait"))
        eventually(lambda: sum(received.target == "/wait" for received in main.requests) == 4)
        for client in leaving:
            client.reset()
        assert [client.answer().status for client in sending] == [408] * 4
        eventually(scene.daemon.is_quiet)
    shown = scene.circuit("slow-clients")
    assert (shown["state"], shown["failures"], shown["opened"]) == ("closed", 0, 0)
    assert scene.get("slow-clients").status == 200


def test_a_reload_keeps_a_circuit_and_a_change_resets_it(start: Start, main: Service, other: Service) -> None:
    """A circuit outlives a reload that leaves it as it is, and its metrics tell of the one in force."""
    daemon = start(protected(main, other, LONG))
    main.behave = answer(500)
    open_it(daemon)
    document = protected(main, other, LONG)
    document["routes"] = [{"path": "/new", "service": "other"}, *ROUTES]
    assert daemon.reload(document)
    assert daemon.get("/new").status == 200
    assert daemon.get("/a").code == "circuit_open"
    assert circuit(daemon)["opened"] == 1
    assert daemon.reload(protected(main, other, {**LONG, "open_for": "5m"}))
    assert circuit(daemon)["state"] == "closed"
    eventually(lambda: 'gateway_circuit_breaker_state{service="main"} 0.0' in metrics(daemon))
    assert daemon.get("/a").status == 500
    without = protected(main, other, LONG)
    open_it(daemon)
    without["services"]["main"]["circuit_breaker"] = None
    assert daemon.reload(without)
    assert circuit(daemon)["state"] is None
    eventually(lambda: 'gateway_circuit_breaker_state{service="main"} 0.0' in metrics(daemon))


def test_what_a_circuit_that_was_replaced_still_hears(start: Start, main: Service, other: Service) -> None:
    """Requests that began before a reload change nothing in the circuit after it."""
    daemon = start(protected(main, other, LONG, timeout="10s"))
    go = threading.Event()

    def behave(received: Received) -> None:
        if received.target == "/slow":
            go.wait(10)
            answer(500)(received)
        else:
            answer(200)(received)

    main.behave = behave
    with ExitStack() as stack:
        clients = [stack.enter_context(daemon.connect()) for _ in range(8)]
        for client in clients:
            client.send(encode("GET", "/slow"))
        eventually(lambda: len(main.requests) == 8)
        assert daemon.reload(protected(main, other, {**LONG, "open_for": "5m"}, timeout="10s"))
        go.set()
        assert [client.answer().status for client in clients] == [500] * 8
    assert daemon.get("/a").status == 200
    assert "circuit of main" not in daemon.log
    assert 'gateway_circuit_breaker_state{service="main"} 0.0' in metrics(daemon)
    assert 'transitions_total{service="main",to="open"} 0.0' in metrics(daemon)


TOKEN = "token-of-the-operators"
BEARER = f"Authorization: Bearer {TOKEN}"
JSON = "Content-Type: application/json"
OPEN = {"service": "main", "action": "open"}


@pytest.fixture
def held(start: Start, main: Service, other: Service, tmp_path: Path) -> Daemon:
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    document = protected(main, other, LONG)
    document["gateway"]["admin_token_file"] = str(file)
    return start(document)


def test_by_hand(held: Daemon, main: Service) -> None:
    """An operator opens, closes and frees a circuit, and sees each."""
    configured = ("--config", str(held.directory), "--admin", admin_of(held))
    done = command("circuits", "open", "main", *configured)
    assert (done.returncode, done.stderr) == (0, "")
    assert "open (by hand)" in done.stdout
    assert held.get("/a").code == "circuit_open"
    assert circuit(held)["retry_in"] is None
    assert command("circuits", "close", "main", *configured).returncode == 0
    main.behave = answer(500)
    assert [held.get("/a").status for _ in range(10)] == [500] * 10, "held closed, whatever comes of it"
    freed = command("circuits", "free", "main", *configured, "--json")
    assert json.loads(freed.stdout)["forced"] is False
    open_it(held)
    eventually(lambda: "circuit of main: open by hand, from 127.0.0.1" in held.log)
    listed = command("circuits", *configured)
    lines = listed.stdout.splitlines()
    assert lines[0].split() == ["SERVICE", "STATE", "SINCE", "FAILED", "RETRY", "IN", "OPENED", "WHY"]
    assert lines[1].startswith("main")
    assert "of 10 failed in 10 s" in lines[1] or "failed in 10 s" in lines[1]
    assert lines[2].split()[:3] == [main.url, "in", "use"]
    assert lines[3].split()[:4] == ["other", "no", "circuit", "breaker"]
    assert command("circuits", "open", "nobody", *configured).returncode == 1
    assert command("circuits", "open", *configured).returncode == 2


@pytest.mark.parametrize(
    ("headers", "host", "body", "status"),
    [
        ((BEARER, JSON), "localhost", OPEN, 200),
        ((BEARER, JSON), "[::1]:9090", OPEN, 200),
        ((BEARER, "Content-Type: Application/JSON; charset=utf-8"), "127.0.0.1:80", OPEN, 200),
        ((BEARER, JSON), "rebound.example", OPEN, 421),
        ((BEARER, JSON), "192.0.2.1", OPEN, 421),
        ((BEARER, JSON), "localhost.evil.example", OPEN, 421),
        ((BEARER,), "localhost", OPEN, 415),
        ((BEARER, "Content-Type: text/plain"), "localhost", OPEN, 415),
        ((BEARER, JSON, JSON), "localhost", OPEN, 415),
        ((JSON,), "localhost", OPEN, 401),
        ((BEARER + "x", JSON), "localhost", OPEN, 401),
        (("Authorization: Bearer", JSON), "localhost", OPEN, 401),
        ((BEARER, BEARER, JSON), "localhost", OPEN, 401),
        ((f"Authorization: Basic {TOKEN}", JSON), "localhost", OPEN, 401),
        ((BEARER, JSON), "localhost", {"service": "nobody", "action": "open"}, 404),
        ((BEARER, JSON), "localhost", {"service": "other", "action": "open"}, 404),
        ((BEARER, JSON), "localhost", {"service": ["main"], "action": "open"}, 404),
        ((BEARER, JSON), "localhost", {"service": "main", "action": "burn"}, 400),
        ((BEARER, JSON), "localhost", {"service": "main", "action": ["open"]}, 400),
        ((BEARER, JSON), "localhost", {"service": "main"}, 400),
        ((BEARER, JSON), "localhost", [], 400),
        ((BEARER, JSON), "localhost", b"[" * 60_000, 400),
        ((BEARER, JSON), "localhost", b"\xff", 400),
        ((BEARER, JSON), "localhost", b"x" * 70_000, 413),
    ],
)
def test_who_may_write(in_front_held: Daemon, headers: tuple[str, ...], host: str, body: Any, status: int) -> None:
    """Only a JSON request with the token, for a loopback host, changes a circuit."""
    daemon = in_front_held
    found = post(daemon, "/circuits", body, *headers, host=host)
    assert found.status == status
    if status == 401:
        assert (found.get("www-authenticate") or "").startswith('Bearer realm="apigw admin"')
    if status == 200:
        assert found.json["state"] == "open"
        assert post(daemon, "/circuits", {"service": "main", "action": "close"}, BEARER, JSON).status == 200
    assert circuit(daemon)["state"] == "closed"


@pytest.fixture(scope="module")
def in_front_held(in_front: Start, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    file = tmp_path_factory.mktemp("token") / "token"
    file.write_text(TOKEN)
    service = Service(answer(200))
    document = protected(service, service, LONG)
    document["gateway"]["admin_token_file"] = str(file)
    yield in_front(document)
    service.close()


def test_other_methods(in_front_held: Daemon) -> None:
    """What a link or an image in a web page can ask changes nothing."""
    with Client(in_front_held.admin) as client:
        for method in ("PUT", "DELETE", "PATCH"):
            refused = client.request(method, "/circuits", BEARER, JSON)
            assert (refused.status, refused.get("allow")) == (405, "GET, HEAD, POST")
        assert client.request("POST", "/limits", BEARER, JSON).status == 405
    assert in_front_held.get("/circuits").status == 200, "on the public port the path is the service's"
    assert "circuits" not in in_front_held.get("/circuits").json


def test_without_a_token_nothing_can_be_changed(start: Start, main: Service, other: Service, tmp_path: Path) -> None:
    """An admin listener takes orders only once it has a token, which a reload reads."""
    daemon = start(protected(main, other, LONG))
    wanted = {"service": "main", "action": "open"}
    refused = post(daemon, "/circuits", wanted, BEARER, JSON)
    assert (refused.status, refused.code) == (403, "read_only")
    file = tmp_path / "token"
    document = protected(main, other, LONG)
    document["gateway"]["admin_token_file"] = str(file)
    file.write_text("short")
    assert not daemon.reload(document)
    file.write_text("the-first-token-there-is")
    assert daemon.reload(document)
    assert post(daemon, "/circuits", wanted, BEARER, JSON).status == 401
    file.write_text(TOKEN)
    assert daemon.reload()
    assert post(daemon, "/circuits", wanted, BEARER, JSON).status == 200
    assert TOKEN not in daemon.log


def test_over_a_unix_socket(start: Start, main: Service, other: Service, tmp_path: Path) -> None:
    """Commands reach an admin listener that is a socket in the file system."""
    file, path = tmp_path / "token", tmp_path / "admin.sock"
    file.write_text(TOKEN)
    document = protected(main, other, LONG)
    document["gateway"] |= {"admin_token_file": str(file), "admin": f"unix:{path}"}
    daemon = start(document)
    for admin in ((), ("--admin", f"unix:{path}")):
        assert command("circuits", "open", "main", "--config", str(daemon.directory), *admin).returncode == 0
    assert '"open"' in command("circuits", "--json", "--admin", f"unix:{path}").stdout
    assert command("limits", "--admin", f"unix:{path}").returncode == 0
    gone = command("limits", "--admin", f"unix:{tmp_path}/nothing.sock")
    assert gone.returncode == 1
    assert "no answer" in gone.stderr


def test_a_client_that_asks_nobody(tmp_path: Path) -> None:
    """A command that finds no gateway says so in one line, and exits with 1."""
    nobody = f"127.0.0.1:{port_nobody_listens_on()}"
    for arguments in (("--admin", "nonsense"), ("--admin", nobody), ("--config", "/nowhere")):
        failed = command("circuits", *arguments)
        assert failed.returncode == 1
        assert "Traceback" not in failed.stderr
        assert failed.stderr.splitlines()[-1].startswith("apigw: ")


def test_reads_are_open(in_front_held: Daemon) -> None:
    """Reading needs no token."""
    assert [one["service"] for one in asked(in_front_held, "/circuits")["circuits"]] == ["main", "other"]
