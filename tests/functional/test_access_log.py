"""The access log of a real daemon: one line per exchange, whatever happened, and whatever a client sends."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import endings
from support.client import encode
from support.daemon import Daemon, Document, gateway
from support.endings import Behaviour, Ending
from support.h2_client import H2Client
from support.services import Service
from support.waiting import eventually

from .conftest import Start

Line = dict[str, Any]


@pytest.fixture
def behaviour(service: Service) -> Iterator[Behaviour]:
    service.behave = behaviour = Behaviour()
    yield behaviour


def everything(service: Service, file: Path | str, **settings: Any) -> Document:
    return gateway(
        services={"main": service.url},
        routes=[{"path": "/*", "service": "main"}],
        access_log={"file": str(file), "format": "json"},
        **settings,
    )


def lines(file: Path) -> list[Line]:
    """Every line, each a JSON object."""
    text = file.read_bytes()
    assert text.endswith(b"\n") or not text
    return [json.loads(line) for line in text.splitlines()]


def written(file: Path, count: int) -> list[Line]:
    """Wait until there are so many lines; there must be no more."""
    eventually(lambda: file.exists() and len(file.read_bytes().splitlines()) >= count)
    found = lines(file)
    assert len(found) == count
    return found


def as_noted(line: Line) -> tuple[object, ...]:
    return tuple(line[name] for name in ("method", "path", "route", "status", "code", "made_by", "protocol"))


def as_expected(ending: Ending) -> tuple[object, ...]:
    route = None if ending.path == "unmatched" else ending.path
    return ending.method, ending.target, route, ending.status, ending.code, ending.made_by, ending.protocol


def by_text(found: object) -> str:
    return str(found)


def test_every_ending_has_its_line(start: Start, service: Service, behaviour: Behaviour, tmp_path: Path) -> None:
    """Each exchange is one line, which says how it ended and whose answer it was."""
    file = tmp_path / "access.log"
    document = endings.document(service, access_log={"file": str(file), "format": "json"})
    daemon = start(document)
    done = endings.all_done(daemon, behaviour)
    found = written(file, len(done))
    assert sorted(map(as_noted, found), key=by_text) == sorted(map(as_expected, done), key=by_text)
    for line in found:
        assert line["client"] == "127.0.0.1"
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"])
        assert 0 <= line["duration_ms"] < 20_000
        # Whoever was asked is named, and how long it took stands beside it.
        if line["code"] == "upstream_unreachable":
            assert line["upstream"] == document["services"]["gone"]["targets"][0]
            assert line["upstream_ms"] is None
        elif line["upstream"] is not None:
            assert line["upstream"] == service.url
            assert 0 <= line["upstream_ms"] <= line["duration_ms"]
        else:
            assert line["upstream_ms"] is None
    assert len({line["request_id"] for line in found}) == len(found)
    slow = next(line for line in found if line["status"] == 504)
    assert 250 < slow["upstream_ms"] < 5000
    posted = next(line for line in found if line["path"] == "/main/ok?p")
    assert posted["bytes_in"] == 1
    assert posted["bytes_out"] > 10


def test_what_is_wrong_with_a_service_is_told_to_operators_only(
    start: Start, service: Service, behaviour: Behaviour, tmp_path: Path
) -> None:
    file = tmp_path / "access.log"
    daemon = start(endings.document(service, access_log={"file": str(file), "format": "json"}))
    said = [daemon.get(target).json["detail"] for target in ("/gone/a", "/main/nonsense")]
    assert said == ["The service cannot be reached.", "The service gave no valid answer."]
    gone, nonsense = (line["reason"] for line in written(file, 2))
    assert gone == "The service cannot be reached: Connection refused"
    assert nonsense == "The service gave no valid answer: not an HTTP/1.1 response"


def test_no_secret_is_in_the_log(start: Start, service: Service, tmp_path: Path) -> None:
    """What is secret in a request is in no log."""
    file = tmp_path / "access.log"
    document = everything(service, file)
    document["gateway"]["access_log"]["format"] = "combined"
    daemon = start(document)
    secret = "s3cr3t-v4lue"
    daemon.get(
        f"/a?access_token={secret}&page=2",
        f"Authorization: Bearer {secret}",
        f"Cookie: session={secret}",
        f"X-Api-Key: {secret}",
        f"Referer: https://app.example/?code={secret}",
    )
    eventually(lambda: b"page=2" in file.read_bytes())
    assert secret not in file.read_text() + daemon.log


def test_a_request_has_one_name(start: Start, service: Service, tmp_path: Path) -> None:
    """The id that a caller is told is the one in the log, and the one that the service is told."""
    file = tmp_path / "access.log"
    document = everything(service, file)
    document["routes"] = [{"path": "/a", "service": "main"}]
    daemon = start(document)
    ids: list[str | None] = []

    def asked(target: str, *headers: str) -> str | None:
        ids.append(daemon.get(target, *headers).get("x-request-id"))
        return ids[-1]

    assert asked("/a") == service.last.get("x-request-id")
    assert asked("/a", "X-Request-ID: mine-1") == service.last.get("x-request-id") == "mine-1"
    assert asked("/a", "X-Request-ID: not good") == service.last.get("x-request-id") != "not good"
    assert asked("/nothing", "X-Request-ID: mine-2") == "mine-2"
    assert asked("/health", "X-Request-ID: mine-3") == "mine-3"
    assert asked("/metrics") is not None
    assert asked("/ready") is not None
    ids.append(daemon.request("DELETE", "/health", "X-Request-ID: mine-4").get("x-request-id"))
    assert ids[-1] == "mine-4"
    with daemon.connect() as client:
        client.send("BREW / HTTP/1.1\r\nHost: a\r\n\r\n")
        refused = client.answer()
        assert refused.json["request_id"] == refused.get("x-request-id")
        ids.append(refused.get("x-request-id"))
    with H2Client(daemon.address) as http2:
        ids += [http2.request("GET", target).get("x-request-id") for target in ("/a", "/health", "/nothing", "/a//")]
    assert None not in ids
    assert sorted(line["request_id"] for line in written(file, len(ids))) == sorted(map(str, ids))


def test_the_client_is_the_one_behind_the_proxy(start: Start, service: Service, tmp_path: Path) -> None:
    """Behind a trusted proxy the line names the client."""
    file = tmp_path / "access.log"
    daemon = start(everything(service, file, trusted_proxies=["127.0.0.0/8"]))
    for target in ("/a", "/health"):
        daemon.get(target, "X-Forwarded-For: 203.0.113.9")
    assert [line["client"] for line in written(file, 2)] == ["203.0.113.9", "203.0.113.9"]


def test_a_clean_stop_writes_what_is_left(start: Start, service: Service, tmp_path: Path) -> None:
    """A stop writes every line first."""
    file = tmp_path / "access.log"
    daemon = start(everything(service, file))
    with daemon.connect() as client:
        for number in range(500):
            client.send(encode("GET", f"/a?{number}"))
        for _ in range(500):
            assert client.answer().status == 200
        daemon.terminate()
        assert daemon.wait() == 0
    assert [line["path"] for line in lines(file)] == [f"/a?{number}" for number in range(500)]


def test_a_log_that_cannot_be_opened_is_said_at_the_start(service: Service, tmp_path: Path) -> None:
    """A gateway that cannot open its log does not start, and says so."""
    for number, file in enumerate((tmp_path / "no" / "such", tmp_path)):
        daemon = Daemon(tmp_path / f"gateway{number}", everything(service, file)).launch()
        assert daemon.wait() == 1
        assert "access log" in daemon.log or "access_log" in daemon.log
