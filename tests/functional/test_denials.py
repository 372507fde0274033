"""Denials on a gateway of two workers: at once, in both, on what is open, and whatever befalls the gateway."""

from __future__ import annotations

import json
import os
import signal
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from support.asking import admin_of, asked, command, post
from support.client import HANDSHAKE, Client, encode
from support.daemon import Daemon, gateway
from support.samples import value
from support.services import SWITCH, Received, Service, echo
from support.tokens import Provider, bearer, hs256
from support.waiting import eventually

from apigw.policy.auth.api_keys.records import digest_of
from apigw.policy.auth.secrets import hash_generated, new_secret

from .conftest import Start

SECRET = b"0123456789abcdef0123456789abcdef"
ADMIN = "an-admin-token-of-some-length-0123456789"
KEY = "apigw_" + 43 * "k"
HEXADECIMAL = 32 * "a7"
"""A key that was made elsewhere, and looks like a hash."""
CLIENT = new_secret()
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n"
ATTACKER, OTHER = "X-Forwarded-For: 203.0.113.7", "X-Forwarded-For: 203.0.113.8"


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("secrets")
    (directory / "admin").write_text(ADMIN)
    keys = sorted(f"{digest_of(key.encode())}\t{id}\t\t\t\n" for id, key in (("acme", KEY), ("hex", HEXADECIMAL)))
    (directory / "partners.keys").write_text("".join(keys))
    return directory


@pytest.fixture(scope="module")
def daemon(in_front: Start, module_service: Service, directory: Path) -> Daemon:
    own = Provider("https://gateway.example")
    (directory / "token.key").write_bytes(own.private_pem)
    document = gateway(
        services={"main": module_service.url},
        routes=[{"path": "/open/*", "service": "main", "auth": "none"}, {"path": "/*", "service": "main"}],
        workers=2,
        trusted_proxies=["127.0.0.0/8"],
        admin_token_file=str(directory / "admin"),
        audit_log={"file": str(directory / "audit.log")},
    )
    document["auth"] = {
        "jwt": [{"name": "corp", "algorithm": "HS256", "secret": SECRET.decode(), "issuer": "corp", "leeway": "0s"}],
        "api_keys": [{"name": "partners", "file": str(directory / "partners.keys")}],
        "oauth": {
            "signing": {"algorithm": "RS256", "key_id": "k1", "private_key_file": str(directory / "token.key")},
            "issuer": own.issuer,
            "clients": [{"id": "acme", "secret_hash": [hash_generated(CLIENT)], "scopes": ["orders.read"]}],
        },
    }
    daemon = in_front(document)
    eventually(lambda: len(workers(daemon)) == 2)  # of one that is not asked yet nobody says that it has heard
    return daemon


def deny(daemon: Daemon, directory: Path, *arguments: str) -> str:
    """What ``apigw deny`` prints, if it succeeds."""
    token = () if arguments[0] == "list" else ("--token-file", str(directory / "admin"))
    done = command("deny", *arguments, "--admin", admin_of(daemon), *token)
    assert done.returncode == 0, done.stderr
    return done.stdout


def endless(received: Received) -> None:
    conversation = received.conversation
    conversation.send(SWITCH if received.get("upgrade") else STREAM)
    assert conversation.wait_for_end()


def workers(daemon: Daemon) -> list[int]:
    return [each["process"] for each in daemon.status()["workers"]]


def refused(daemon: Daemon, *headers: str, path: str = "/open/a") -> bool:
    """By every worker: of some connections each has one."""
    statuses = {daemon.get(path, *headers).status for _ in range(6)}
    assert len(statuses) == 1, statuses
    return statuses == {403}


def test_an_address(daemon: Daemon, service: Service, directory: Path) -> None:
    """On connections that are open, everywhere; what lasts is cut. A reload and a worker's death change nothing."""
    with daemon.connect() as kept, daemon.connect() as socket, daemon.connect() as events, daemon.connect() as staying:
        assert kept.get("/open/a", ATTACKER).status == 200
        service.behave = endless
        assert socket.send(encode("GET", "/open/s", *HANDSHAKE, ATTACKER)).head().status == 101
        assert events.send(encode("GET", "/open/e", ATTACKER)).head().status == 200
        assert staying.send(encode("GET", "/open/e", OTHER)).head().status == 200
        eventually(lambda: service.connections >= 3)
        said = deny(daemon, directory, "address", "203.0.113.0/29", "--for", "2h", "--reason", "scans")
        assert said == "denied for 2h: address 203.0.113.0/29; 2 WebSockets and streams were cut\n"
        assert kept.get("/open/a", ATTACKER).code == "denied"
        for client in (socket, events):
            eventually(partial(cut, client))
        staying.socket.settimeout(0.2)
        with pytest.raises(TimeoutError):
            staying.socket.recv(1) and staying.socket.recv(65536)
    service.close_connections()
    service.behave = echo
    assert refused(daemon, ATTACKER) and refused(daemon, ATTACKER, path="/none/x")
    assert daemon.get("/metrics", ATTACKER).status == 403 and daemon.get("/health", ATTACKER).status == 200
    assert daemon.reload() and refused(daemon, ATTACKER)
    before = workers(daemon)
    os.kill(before[0], signal.SIGKILL)
    eventually(lambda: len(workers(daemon)) == 2 and before[0] not in workers(daemon))
    assert refused(daemon, ATTACKER)
    listed = deny(daemon, directory, "list")
    assert "203.0.113.0/29" in listed and "1h 59m" in listed and "scans" in listed and "127.0.0.1" in listed
    assert deny(daemon, directory, "remove", "address", "203.0.113.0/29") == "removed\n"
    assert daemon.get("/open/a", ATTACKER).status == 200


def test_a_worker_that_does_not_answer(daemon: Daemon, directory: Path) -> None:
    """Who denies is told that one may not refuse yet; when it goes on, it does."""
    stopped = workers(daemon)[1]
    os.kill(stopped, signal.SIGSTOP)
    try:
        said = deny(daemon, directory, "address", "203.0.113.7")
    finally:
        os.kill(stopped, signal.SIGCONT)
    assert said.endswith("\nworkers that have not answered yet: 1; they refuse as soon as they go on\n")
    eventually(lambda: not any(daemon.get("/open/a", ATTACKER).status == 200 for _ in range(6)))
    deny(daemon, directory, "remove", "address", "203.0.113.7")


def cut(client: Client) -> bool:
    try:
        return client.socket.recv(65536) == b""
    except ConnectionResetError:
        return True


def test_a_caller(daemon: Daemon, service: Service, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By id, by key, by token; secrets are nowhere in clear, and a token's signature makes no other of it."""
    token, other = (hs256(SECRET, "corp", sub=sub) for sub in ("ada", "bob"))
    with_key = f"X-API-Key: {KEY}"

    def statuses() -> list[int]:
        return [daemon.get("/a", each).status for each in (bearer(token), bearer(other), with_key)]

    assert statuses() == [200, 200, 200]
    deny(daemon, directory, "subject", "ada", "--provider", "corp")
    assert statuses() == [403, 200, 200]
    deny(daemon, directory, "remove", "subject", "ada", "--provider", "corp")
    deny(daemon, directory, "subject", "ada", "--provider", "partners")
    assert statuses() == [200, 200, 200]
    monkeypatch.setattr("sys.stdin", open_text(directory / "in", f"{KEY}\n"))
    deny(daemon, directory, "key")
    monkeypatch.setattr("sys.stdin", open_text(directory / "in", f"{other}\n"))
    deny(daemon, directory, "token", "-", "--for", "1d")
    assert statuses() == [200, 401, 403]
    assert 'error="invalid_token"' in (daemon.get("/a", bearer(other)).get("www-authenticate") or "")
    shown = deny(daemon, directory, "list", "--json") + daemon.log
    assert KEY not in shown and other not in shown and other.split(".")[1] not in shown
    eventually(lambda: value(daemon, "gateway_denied_total", kind="token") == 2)
    assert value(daemon, "gateway_denials", kind="key") == 1
    digests = {each["kind"]: each["value"] for each in asked(daemon, "/denials")["denials"]}
    deny(daemon, directory, "remove", "key", digests["key"])
    deny(daemon, directory, "remove", "token", other)
    deny(daemon, directory, "remove", "subject", "ada", "--provider", "partners")
    assert statuses() == [200, 200, 200] and asked(daemon, "/denials") == {"denials": [], "store_up": None}


@pytest.mark.parametrize("provider", ["oauth", "partners"])
def test_a_client_of_the_token_endpoint(daemon: Daemon, directory: Path, provider: str) -> None:
    """A client that is denied gets no more tokens. A caller of that id whom another provider vouches for is not the
    client, and who does not know its secret learns nothing."""
    body = b"grant_type=client_credentials&client_id=acme&client_secret="
    form = "Content-Type: application/x-www-form-urlencoded"

    def errors() -> list[str | None]:
        answers = [daemon.request("POST", "/oauth/token", form, body=body + each) for each in (CLIENT.encode(), b"x")]
        return [answer.json.get("error") for answer in answers]

    denied = "unauthorized_client" if provider == "oauth" else None
    deny(daemon, directory, "subject", "acme", "--provider", provider)
    assert errors() == [denied, "invalid_client"]
    deny(daemon, directory, "remove", "subject", "acme", "--provider", provider)
    assert errors() == [None, "invalid_client"]


def test_a_key_that_looks_like_a_hash(daemon: Daemon, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the standard input it is a key; as an argument it could be either, which is said.

    A token may come with its scheme.
    """
    refused = command("deny", "key", HEXADECIMAL, "--admin", admin_of(daemon), "--token-file", str(directory / "admin"))
    assert refused.returncode == 2 and "sha256:" in refused.stderr
    token = hs256(SECRET, "corp", sub="eve")
    for kind, text, header, status in (
        ("key", HEXADECIMAL, f"X-API-Key: {HEXADECIMAL}", 403),
        ("token", f"Bearer {token}", bearer(token), 401),
    ):
        assert daemon.get("/a", header).status == 200
        monkeypatch.setattr("sys.stdin", open_text(directory / "in", f"{text}\n"))
        deny(daemon, directory, kind)
        assert daemon.get("/a", header).status == status
        monkeypatch.setattr("sys.stdin", open_text(directory / "in", f"{text}\n"))
        deny(daemon, directory, "remove", kind)
        assert daemon.get("/a", header).status == 200


def open_text(file: Path, text: str) -> object:
    file.write_text(text)
    return file.open()


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"[]", 400),
        (b"{}", 400),
        ({"action": ["add"]}, 400),
        ({"action": "add", "kind": "address", "value": "0.0.0.0/0"}, 400),
        ({"action": "add", "kind": "key", "value": KEY}, 400),
        ({"action": "add", "kind": "address", "value": "192.0.2.1", "who": "me"}, 400),
        ({"action": "remove", "kind": "address", "value": "192.0.2.1"}, 404),
    ],
)
def test_writes_that_are_refused(daemon: Daemon, body: object, status: int) -> None:
    """A sentence says what is wrong; without the token nothing is changed, and nothing is told of what would be."""
    json = "Content-Type: application/json"
    answer = post(daemon, "/denials", body, json, f"Authorization: Bearer {ADMIN}")
    assert answer.status == status and KEY not in answer.body.decode()
    assert post(daemon, "/denials", body, json).status == 401


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["address"], 2),
        (["address", "192.0.2.1", "--for", "soon"], 2),
        (["address", "192.0.2.1", "--for", "40d"], 1),
        (["address", "example.com"], 1),
        (["subject", "-"], 2),
        (["remove", "subject"], 2),
        (["remove", "address", "192.0.2.1"], 1),
        ([], 2),
    ],
    ids=lambda arguments: " ".join(arguments) if isinstance(arguments, list) else None,
)
def test_what_the_command_refuses(daemon: Daemon, directory: Path, arguments: list[str], code: int) -> None:
    """Exit code 2 for what nobody can mean, 1 for what the gateway refuses; each with a line on stderr."""
    where = ["--admin", admin_of(daemon), "--token-file", str(directory / "admin")] if arguments else []
    done = command("deny", *arguments, *where)
    assert (done.returncode, done.stdout) == (code, "") and done.stderr


def test_the_audit_log(daemon: Daemon, service: Service, directory: Path) -> None:
    """Who did what, and what came of it, in whole lines of all workers; tokens by the hash that denies them."""
    log = directory / "audit.log"
    before = len(log.read_text().splitlines())
    form = "Content-Type: application/x-www-form-urlencoded"
    body = b"grant_type=client_credentials&scope=orders.read&client_id=acme&client_secret="
    issued = daemon.request("POST", "/oauth/token", form, ATTACKER, body=body + CLIENT.encode())
    token = issued.json["access_token"]
    assert daemon.request("POST", "/oauth/token", form, body=body + b"wrong").status == 401
    assert daemon.get("/a", bearer(token)).status == 200
    json_type = "Content-Type: application/json"
    assert post(daemon, "/circuits", {}, json_type, "Authorization: Bearer wrong-token").status == 401

    def noted() -> list[Any]:
        return [json.loads(line) for line in log.read_text().splitlines()[before:]]

    eventually(lambda: len(noted()) == 3)
    of_token = next(each for each in noted() if each["outcome"] == "issued")
    assert (of_token["event"], of_token["client"], of_token["by"]) == ("token", "acme", "203.0.113.7")
    assert (of_token["scope"], of_token["request_id"]) == ("orders.read", issued.get("x-request-id"))
    deny(daemon, directory, "token", of_token["token"], "--reason", "leaked")
    assert daemon.get("/a", bearer(token)).status == 401
    deny(daemon, directory, "remove", "token", of_token["token"])
    document = json.loads((daemon.directory / "gateway.yaml").read_text())
    document["routes"][0]["timeout"] = "7s"
    assert daemon.reload(document)
    document["routes"][0]["timeout"] = "never"
    assert not daemon.reload(document)
    del document["routes"][0]["timeout"]
    assert daemon.reload(document)
    eventually(lambda: len(noted()) == 8)
    said = [(each["event"], each["outcome"]) for each in noted()]
    assert sorted(said[:3]) == [("admin_token", "wrong"), ("token", "invalid_client"), ("token", "issued")]
    assert said[3:5] == [("denial", "added"), ("denial", "removed")]
    assert said[5:] == [("reload", "succeeded"), ("reload", "failed"), ("reload", "succeeded")]
    one, failed, other = noted()[5:]
    assert one["changed"] == other["changed"] == ["changed: routes./open/*"]
    assert one["digest"] == failed["digest"] != other["digest"] and "never" in failed["problems"][0]
    text = log.read_text()
    for secret in (ADMIN, CLIENT, KEY, SECRET.decode(), token, token.split(".")[1], "wrong-token"):
        assert secret not in text
