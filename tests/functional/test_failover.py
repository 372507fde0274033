"""Several targets of a service: who gets the requests, and who notices when one is gone."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from support.asking import circuit
from support.client import Client
from support.daemon import Daemon, Document, gateway
from support.services import Received, Service, echo, port_nobody_listens_on
from support.waiting import eventually

from apigw.upstream.retries import LEAST

from .conftest import Start

ALL = [{"path": "/*", "service": "main"}]
LARGE = b"x" * 65_537
"""More than the gateway buffers."""


@pytest.fixture
def pair() -> Iterator[tuple[Service, Service]]:
    with ExitStack() as stack:
        one, other = Service(), Service()
        stack.callback(one.close)
        stack.callback(other.close)
        yield one, other


def of(*targets: object, **more: object) -> Document:
    return gateway(services={"main": {"targets": list(targets), **more}}, routes=ALL)


CHECK = {"path": "/well", "interval": "100ms", "timeout": "1s", "unhealthy_after": 2, "healthy_after": 2}


class Scene:
    """One daemon, in which each test has a service of its own, with targets of its own, below the service's name."""

    def __init__(self) -> None:
        self.one: dict[str, Service] = {}
        self.other: dict[str, Service] = {}
        self.nobody: dict[str, int] = {}
        self.daemon: Daemon

    def document(self) -> Document:
        services: Document = {}
        for name in ("weights", "checked", "again"):
            self.one[name], self.other[name] = Service(), Service()
        for name in ("down", "aside", "named", "closed", "died", "small", "done", "once", "failing"):
            self.one[name] = Service()
            services[name] = [self.one[name].url]
        for name in ("down", "aside", "outage"):
            self.nobody[name] = port_nobody_listens_on()
            services[name] = [f"http://127.0.0.1:{self.nobody[name]}", *services.get(name, [])]
        services["weights"] = [{"url": self.one["weights"].url, "weight": 3}, self.other["weights"].url]
        services["named"] = {"targets": [f"http://localhost:{self.one['named'].port}"], "health_check": CHECK}
        services["closed"] = {"targets": services["closed"], "keepalive_timeout": "500ms"}
        services["checked"] = {"targets": [self.one["checked"].url, self.other["checked"].url], "health_check": CHECK}
        retry = {"circuit_breaker": None, "retry": {"methods": ["idempotent", "POST"]}}
        services["again"] = {"targets": [self.one["again"].url, self.other["again"].url], **retry}
        services["failing"] = {"targets": services["failing"], **retry}
        routes: list[Document] = [
            {"path": f"/{name}/*", "service": name, "strip_prefix": f"/{name}"} for name in services
        ]
        routes.append({"path": "/split/*", "split": {"weights": 1, "again": 1}, "split_by": {"cookie": "stick"}})
        return gateway(services=services, routes=routes, cookie_secret="0123456789abcdef" * 2)

    def close(self) -> None:
        for service in (*self.one.values(), *self.other.values()):
            service.close()


@pytest.fixture(scope="module")
def scene(in_front: Start) -> Iterator[Scene]:
    scene = Scene()
    scene.daemon = in_front(scene.document())
    yield scene
    scene.close()


def test_targets_take_turns_by_weight(scene: Scene) -> None:
    """A target gets its share of the requests, and never many at once."""
    one, other = scene.one["weights"], scene.other["weights"]
    with scene.daemon.connect() as client:
        for _ in range(40):
            assert client.get("/weights/a").status == 200
            assert abs(len(one.requests) - 3 * len(other.requests)) <= 3
    assert (len(one.requests), len(other.requests)) == (30, 10)


def test_a_target_that_is_down_costs_nobody_an_error(scene: Scene) -> None:
    """While one of two machines is replaced, the other answers every request."""
    for method in ("GET", "POST") * 10:
        answer = scene.daemon.request(method, "/down/a", body=b"x" if method == "POST" else b"")
        assert answer.status == 200
    assert len(scene.one["down"].requests) == 20


def test_three_failed_connects_set_a_target_aside(scene: Scene) -> None:
    """A machine that is known to be down is left out for ten seconds, which is said once."""
    for _ in range(8):
        assert scene.daemon.get("/aside/a").status == 200
    eventually(lambda: scene.daemon.log.count(f"aside: http://127.0.0.1:{scene.nobody['aside']} ejected for 10 s") == 1)
    assert [target["available"] for target in circuit(scene.daemon, "aside")["targets"]] == [False, True]


def test_an_outage_is_one_line_in_the_log(scene: Scene) -> None:
    """However many requests fail for it."""
    for _ in range(5):
        assert scene.daemon.get("/outage/a").code == "upstream_unreachable"
    eventually(lambda: scene.daemon.log.count(f"no connection to http://127.0.0.1:{scene.nobody['outage']}") == 1)


def dies_silently(times: int) -> Callable[[Received], None]:
    """Answers, and the so many next requests that come over a connection in use it closes without a word."""
    left = [times]

    def behave(received: Received) -> None:
        received.body()
        if received.conversation.answered and left[0]:
            left[0] -= 1
            received.conversation.close()
        else:
            received.conversation.answer(200)

    return behave


@pytest.mark.parametrize(("name", "body"), [("died", b""), ("small", b"and buffered whole")])
def test_a_kept_connection_that_died_is_replaced(scene: Scene, name: str, body: bytes) -> None:
    """An idempotent request that meets a connection which the service has just closed is sent again."""
    one = scene.one[name]
    one.behave = dies_silently(1)
    with scene.daemon.connect() as client:  # one worker has all its requests, and keeps its own idle connections
        assert client.get(f"/{name}/a").status == 200
        assert client.request("PUT", f"/{name}/b", body=body).status == 200
    assert [received.target for received in one.requests] == ["/a", "/b", "/b"]


def test_what_may_have_been_done_is_not_done_again(scene: Scene) -> None:
    """A request that is not idempotent, or whose body is gone, is sent once."""
    one = scene.one["done"]
    for method, body in (("POST", b""), ("POST", b"x"), ("PATCH", b"x"), ("PUT", LARGE)):
        one.requests.clear()
        one.behave = dies_silently(1)
        with scene.daemon.connect() as client:
            assert client.get("/done/a").status == 200
            assert client.request(method, "/done/b", body=body).code == "upstream_protocol_error"
        assert [received.target for received in one.requests] == ["/a", "/b"]


def test_a_retry_is_made_once(scene: Scene) -> None:
    """A request that crashes its service is sent twice at the most."""
    one = scene.one["once"]
    with scene.daemon.connect() as client:
        assert client.get("/once/a").status == 200
        one.behave = lambda received: received.conversation.close()
        assert client.get("/once/b").code == "upstream_protocol_error"
    assert [received.target for received in one.requests] == ["/a", "/b", "/b"]
    one.requests.clear()
    assert scene.daemon.get("/once/fresh").code == "upstream_protocol_error"
    assert len(one.requests) == 1


def test_a_failed_answer_is_asked_for_elsewhere(scene: Scene) -> None:
    """While one of two targets answers 503, clients see the answers of the other, whatever the request."""
    one, other = scene.one["again"], scene.other["again"]
    one.behave = fails
    for method in ("GET", "POST", "PUT") * 2:
        body = b"" if method == "GET" else b"sent twice"
        answer = scene.daemon.request(method, "/again/a", body=body)
        assert (answer.status, answer.json["body"]) == (200, body.decode())
    assert (bool(one.requests), len(other.requests), one.failures) == (True, 6, [])
    counted = f'gateway_upstream_retries_total{{reason="503",service="again"}} {len(one.requests)}.0'
    eventually(lambda: counted in metrics(scene.daemon))  # which several workers tell the master once a second


def metrics(daemon: Daemon) -> str:
    with Client(daemon.admin) as client:
        return client.get("/metrics").body.decode()


def fails(received: Received) -> None:
    received.body()
    received.conversation.answer(503)


def test_clients_of_a_split_stay_with_their_service(scene: Scene) -> None:
    """Each gets a cookie with its first answer, which its service does not see; both services get clients."""
    services = {name: (scene.one[name], scene.other[name]) for name in ("weights", "again")}
    for service in (*services["weights"], *services["again"]):
        service.behave = echo

    def who() -> str:
        """The service that has got the requests since this was last called."""
        (name,) = [name for name, targets in services.items() if any(target.requests for target in targets)]
        for targets in services.values():
            for target in targets:
                assert all(received.get("cookie") in (None, "a=1") for received in target.requests)
                target.requests.clear()
        return name

    who_has = set()
    for targets in services.values():
        for target in targets:
            target.requests.clear()
    for _ in range(16):
        cookie = (scene.daemon.get("/split/a").get("set-cookie") or "").partition(";")[0]
        name = who()
        who_has.add(name)
        for _ in range(3):
            assert scene.daemon.get("/split/a", f"Cookie: a=1; {cookie}").get("set-cookie") is None
            assert who() == name
    assert who_has == {"weights", "again"}

    def counted() -> int:
        with Client(scene.daemon.admin) as client:
            text = client.get("/metrics").body.decode()
        return sum(int(number) for number in re.findall(r"gateway_split_requests_total{.*} ([0-9]+)", text))

    eventually(lambda: counted() == 64)


def test_an_outage_is_not_made_worse(scene: Scene) -> None:
    """When all fails, with 64 requests in flight, the service sees at most 1.25 times what its clients ask, and three
    more each time that few of these are left."""
    failing = scene.one["failing"]
    failing.behave = fails
    rounds = 8
    with ExitStack() as stack:
        clients = [stack.enter_context(scene.daemon.connect()) for _ in range(64)]
        for _ in range(rounds):
            for client in clients:
                client.send(b"GET /failing/a HTTP/1.1\r\nHost: x\r\n\r\n")
            assert {client.answer().status for client in clients} == {503}
    assert 64 * rounds < len(failing.requests) <= (1.25 * 64 + LEAST) * rounds


def test_a_sick_target_gets_no_requests_until_it_is_well(scene: Scene) -> None:
    """A machine that fails its health check is left out, and has its share again when it passes."""
    daemon, one = scene.daemon, scene.one["checked"]
    sick = threading.Event()

    def behave(received: Received) -> None:
        if received.target == "/well":
            assert received.get("user-agent") == "apigw-health"
            received.conversation.answer(503 if sick.is_set() else 200, body=b"so so")
        else:
            echo(received)

    one.behave = behave

    def share() -> int:
        one.requests.clear()
        with daemon.connect() as client:  # one worker's turns
            for _ in range(6):
                assert client.get("/checked/a").status == 200
        return sum(received.target == "/a" for received in one.requests)

    assert share() == 3
    sick.set()
    eventually(lambda: share() == 0)
    eventually(lambda: f"{one.url} is unhealthy" in daemon.log)
    sick.clear()
    eventually(lambda: share() == 3)
    eventually(lambda: f"{one.url} is healthy again" in daemon.log)
    assert one.failures == []


def test_a_target_by_name_is_found(scene: Scene) -> None:
    """A service that is configured by its name is reached, and sees that name for its host."""
    one = scene.one["named"]
    assert scene.daemon.get("/named/a").status == 200
    eventually(lambda: {received.target for received in one.requests} == {"/well", "/a"})
    assert {received.get("host") for received in one.requests} == {f"localhost:{one.port}"}


def test_connections_to_a_service_are_kept_and_then_closed(scene: Scene) -> None:
    """Requests share a connection, which is closed when nothing has come over it for ``keepalive_timeout``."""
    one = scene.one["closed"]
    with scene.daemon.connect() as client:
        for _ in range(5):
            assert client.get("/closed/a").status == 200
    assert one.accepted == 1
    eventually(lambda: one.connections == 0)
    assert scene.daemon.get("/closed/a").status == 200


def ask(daemon: Daemon, path: str) -> tuple[int, Document]:
    with Client(daemon.admin) as client:
        answer = client.get(path)
        return answer.status, json.loads(answer.body)


def test_ready_says_whether_a_request_would_find_its_service(start: Start, pair: tuple[Service, Service]) -> None:
    """It is 503 while a service that is critical has no target that answers; no other service counts."""
    one, other = pair
    services = {
        "dialled": {"targets": [one.url], "critical": True},
        "checked": {
            "targets": [other.url],
            "critical": True,
            "health_check": {"path": "/x", "interval": "500ms"},
        },
        "optional": [f"http://127.0.0.1:{port_nobody_listens_on()}"],
    }
    daemon = start(gateway(services=services, routes=[{"path": f"/{name}", "service": name} for name in services]))
    assert (daemon.get("/ready").status, daemon.get("/ready").json) == (200, {"status": "ready"})
    assert ask(daemon, "/ready") == (200, {"status": "ready", "checks": {"dialled": "ok", "checked": "ok"}})
    assert ask(daemon, "/health") == (200, {"status": "ok"})

    port = one.port
    one.close()
    with daemon.connect() as client:  # each worker asks for itself, and remembers the answer for a second
        eventually(lambda: client.get("/ready").status == 503)
        assert client.get("/ready").json == {"status": "not ready"}
    eventually(lambda: ask(daemon, "/ready")[0] == 503)
    status, document = ask(daemon, "/ready")
    assert (status, document["status"], document["checks"]["checked"]) == (503, "not ready", "ok")
    assert "refused" in document["checks"]["dialled"]
    assert daemon.get("/health").status == 200

    again = Service(port=port)
    try:
        eventually(lambda: ask(daemon, "/ready")[0] == 200)
        other.behave = lambda received: received.conversation.answer(500)
        eventually(lambda: ask(daemon, "/ready")[0] == 503)
        assert ask(daemon, "/ready")[1]["checks"]["checked"] == "answered its health check with 500"
    finally:
        again.close()


def test_ready_is_not_confused_by_load(start: Start, pair: tuple[Service, Service]) -> None:
    """A gateway whose service is busy is ready."""
    one, _ = pair
    go_on = threading.Event()

    def behave(received: Received) -> None:
        go_on.wait(20)
        received.conversation.answer(200)

    one.behave = behave
    daemon = start(of(one.url, max_connections=1, max_pending=1))
    with daemon.connect() as client:
        client.send(b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n")
        eventually(lambda: one.requests)
        assert daemon.get("/ready").status == 200
        go_on.set()
        assert client.answer().status == 200
