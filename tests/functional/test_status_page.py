"""The status page of the admin listener, through a real browser and under load."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from support.chromium import Chromium, needs_chromium
from support.client import Client
from support.daemon import Daemon, gateway
from support.services import Received, Service
from support.waiting import eventually

from .conftest import Start

SPITEFUL_PATH = "/\"onload=document.title=1/'&lt;img/src=x&gt;onerror=document.title=2/:id"
"""Patterns are what a configuration may put markup into: names of services are letters and digits."""
SPITEFUL_TARGET = "/%22onload=document.title=1/%27%26lt;img/src=x%26gt;onerror=document.title=2/1"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    with Chromium(tmp_path_factory.mktemp("chromium")) as browser:
        yield browser


def configured(service: Service) -> dict[str, object]:
    breaker = {"error_rate": 0.5, "min_requests": 20, "open_for": "30s"}
    return gateway(
        services={
            "orders": {"targets": [service.url], "circuit_breaker": breaker},
            "others": service.url,
        },
        routes=[
            {"path": "/orders/:id", "service": "orders", "methods": ["GET", "POST"]},
            {"path": "/orders/:id", "service": "others", "methods": ["DELETE"]},
            {"path": SPITEFUL_PATH, "service": "others"},
        ],
    ) | {"rate_limits": [{"endpoint": SPITEFUL_PATH, "limit": 1, "window": "1h", "scope": "ip"}]}


@contextmanager
def load(daemon: Daemon, target: str) -> Iterator[None]:
    """Some hundred requests a second for as long as this lasts."""
    ended = threading.Event()

    def ask() -> None:
        with daemon.connect() as client:
            while not ended.wait(0.005):
                client.get(target)

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        for thread in threads:
            thread.join()


def admin_url(daemon: Daemon) -> str:
    host, port = daemon.admin
    return f"http://{host}:{port}/"


def test_the_page_is_self_contained_and_strict(start: Start, service: Service) -> None:
    """A page of an operator's tool can be made to run somebody else's script, or needs the Internet to be seen."""
    daemon = start(configured(service))
    with Client(daemon.admin) as client:
        for path, kind in (("/", "text/html"), ("/status.js", "text/javascript"), ("/status.css", "text/css")):
            answer = client.get(path)
            assert (answer.status, (answer.get("content-type") or "").partition(";")[0]) == (200, kind)
            policy = answer.get("content-security-policy") or ""
            assert "default-src 'none'" in policy
            assert "unsafe" not in policy
            assert "http" not in policy
            assert answer.get("x-content-type-options") == "nosniff"
            assert b"https:" not in answer.body
            assert b"innerHTML" not in answer.body
            assert client.request("HEAD", path).body == b""
            assert client.request("POST", path).status == 405
    for path in ("/", "/status.json", "/status.js"):
        assert daemon.get(path).status == 404  # not on the public port


def test_the_json_says_what_was_sent(start: Start, service: Service) -> None:
    """The numbers on the page are not those of the traffic."""
    daemon = start(configured(service))
    with Client(daemon.admin) as client:
        explained = client.get("/explain?target=/orders/7&method=POST").json
        assert explained["found"] is True
        assert explained["lines"][0] == "POST /orders/7: route /orders/:id (GET, POST)"
        assert "  service: orders" in explained["lines"]
        assert client.get("/explain?target=/nowhere").json["found"] is False
        assert client.get("/explain?target=/x&header=odd").status == 400
        assert client.get("/explain?" + "&".join(["header=a:b"] * 101)).status == 400

    def behave(received: Received) -> None:
        received.body()
        received.conversation.answer(500 if received.target.endswith("bad") else 200)

    service.behave = behave
    for target in ("/orders/1", "/orders/2", "/orders/bad", SPITEFUL_TARGET):
        assert daemon.get(target).status in (200, 500)
    assert daemon.get(SPITEFUL_TARGET).status == 429
    assert daemon.request("DELETE", "/orders/1").status == 200

    def document() -> dict[str, Any]:
        with Client(daemon.admin) as client:
            found: dict[str, Any] = client.get("/status.json").json
        return found

    def rows() -> list[tuple[object, ...]]:
        found = document()
        with Client(daemon.admin) as client:
            known = client.get("/routes.json").json["routes"]
        counts = [dict(zip(found["columns"], values, strict=True)) for values in found["routes"]]
        return [
            (
                *(known[row["number"]][key] for key in ("path", "methods", "service")),
                *(row[key] for key in ("requests", "failed", "refused", "limited")),
            )
            for row in counts
        ]

    expected = [
        ("/orders/:id", ["GET", "POST"], "orders", 3, 1, 0, 0),
        ("/orders/:id", ["DELETE"], "others", 1, 0, 0, 0),
        (SPITEFUL_PATH, ["all"], "others", 2, 0, 1, 1),
    ]
    eventually(lambda: rows() == expected)
    shown = document()
    assert shown["last_reload"] is None
    orders, others = shown["services"]
    assert (orders["requests"], orders["failed"], others["requests"]) == (3, 1, 3)
    assert orders["targets"] == [{"url": service.url, "state": "healthy"}]
    assert (orders["circuit"]["state"], orders["circuit"]["failures"], orders["circuit"]["total"]) == ("closed", 1, 3)
    assert others["circuit"] is None
    history = shown["history"]
    assert len(history["requests"]) == len(history["p95"]) <= history["length"] == 300
    assert daemon.reload()
    reloaded = eventually(lambda: document()["last_reload"])  # a document is handed out for half a second
    assert reloaded["result"] == "succeeded"


def test_many_routes_take_little_of_the_line(start: Start, service: Service) -> None:
    """1,500 routes, all of them busy: at most 50 KB each second."""
    routes: list[dict[str, object]] = [
        {"path": f"/products/v{number}/:id", "service": "main"} for number in range(1500)
    ]
    daemon = start(gateway(services={"main": service.url}, routes=routes))
    with daemon.connect() as client:
        for number in range(1500):
            assert client.get(f"/products/v{number}/1").status == 200

    def size() -> int | None:
        with Client(daemon.admin) as client:
            all_busy = len(client.get("/status.json").json["routes"]) == 1500
            return len(client.get("/status.json", "Accept-Encoding: gzip").body) if all_busy else None

    assert eventually(size) < 50_000


@needs_chromium
def test_the_page_under_load(start: Start, service: Service, browser: Chromium) -> None:
    """The person on call sees an empty or frozen page, or a circuit that opened long ago as closed."""
    daemon = start(configured(service))
    daemon.get(SPITEFUL_TARGET)
    with load(daemon, "/orders/7"):
        browser.open(admin_url(daemon))
        eventually(lambda: "orders" in browser.text("#services"))
        refreshed = "Number(document.documentElement.dataset.refreshed)"
        first = browser.evaluate(refreshed)
        eventually(lambda: browser.evaluate(refreshed) >= first + 3)
        assert "closed" in browser.text("#services tr:first-child")
        assert "/orders/:id" in browser.text("#routes")
        eventually(lambda: float(browser.text("#routes tr:first-child td:nth-child(4)")) > 10)
        eventually(lambda: browser.evaluate("document.querySelector('#requests path').getAttribute('d').length") > 30)
        assert "ms" in browser.text("#latency-now")

        def fail(received: Received) -> None:
            received.body()
            received.conversation.answer(503)

        service.behave = fail
        eventually(lambda: any(each["state"] == "open" for each in circuits(daemon)), interval=0.02)
        opened = time.monotonic()
        eventually(lambda: "open" in browser.text("#services tr:first-child .bad"), interval=0.02)
        assert time.monotonic() - opened < 2
        eventually(lambda: "5xx" in browser.text("#requests-now"))
        assert "%" in browser.text("#services tr:first-child td:last-child")
    browser.evaluate("document.querySelector('#routes button').click()")
    eventually(lambda: "circuit breaker: opens when" in browser.text("#explanation"))
    browser.evaluate("filter.value = 'onload'; filter.dispatchEvent(new Event('input'))")
    assert browser.evaluate("document.querySelectorAll('#routes tr').length") == 1
    browser.evaluate("filter.value = ''; filter.dispatchEvent(new Event('input'))")
    # Names are shown as they are, and are no markup.
    assert SPITEFUL_PATH in browser.text("#routes")
    assert browser.evaluate("document.querySelectorAll('main img, td img, td svg').length") == 0
    assert browser.evaluate("document.title") == "API gateway"
    assert browser.complaints == []
    assert browser.dialogs == []
    assert {url for url in browser.asked if not url.startswith((admin_url(daemon), "data:,", "about:"))} == set()
    assert browser.text("#trouble") == ""


@needs_chromium
def test_a_gateway_that_is_gone_is_said(start: Start, service: Service, browser: Chromium) -> None:
    """A page that stands still looks like a gateway without trouble."""
    daemon = start(configured(service))
    browser.open(admin_url(daemon))
    eventually(lambda: "orders" in browser.text("#services"))
    daemon.terminate()
    daemon.wait()
    eventually(lambda: "cannot be asked" in browser.text("#trouble"))
    assert "orders" in browser.text("#services")


@needs_chromium
def test_what_could_not_be_changed_is_on_the_page(start: Start, service: Service, browser: Chromium) -> None:
    """A reload that was refused, and an upgrade that has failed, each with its reason."""
    daemon = start(gateway(services={"main": service.url}, routes=[], workers=2), executed=True)
    daemon.directory.joinpath("gateway.yaml").write_text("routes: 7\n")
    daemon.process.send_signal(signal.SIGUSR2)
    eventually(lambda: daemon.status()["upgrade_problem"])
    browser.open(admin_url(daemon))
    eventually(lambda: "gateway.yaml:1:9: routes: must be a list" in browser.text("#upgrade-problems li"))
    assert browser.evaluate("document.getElementById('problems').hidden") is True
    assert not daemon.reload()
    eventually(lambda: "gateway.yaml:1:9: routes: must be a list" in browser.text("#problems li"))


def circuits(daemon: Daemon) -> list[dict[str, object]]:
    with Client(daemon.admin) as client:
        found: list[dict[str, object]] = client.get("/circuits").json["circuits"]
    return found
