"""What `apigw check` calls good starts, and what it refuses does not."""

from __future__ import annotations

import copy
import gc
import json
import signal
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from time import monotonic, time
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from joserfc.jwk import OctKey, RSAKey
from support.certificates import Authority
from support.pem import private_pem, public_pem, self_signed
from support.waiting import PATIENCE
from twisted.internet.selectreactor import SelectReactor

from apigw.config.errors import ConfigError
from apigw.config.load import load
from apigw.process.place import Alone
from apigw.process.program import Program
from apigw.process.rules import RULES
from apigw.process.signals import Signals
from apigw.process.tree import CannotStart
from apigw.process.trial import try_out

Document = dict[str, Any]
Place = tuple[str | int, ...]
Change = tuple[Place, object]

REACTOR = SelectReactor()
"""Not the global one: its turns are taken by hand."""

LOOPBACK = "tcp:0:interface=127.0.0.1"
HASH = "sha256$" + 64 * "0"
COSTLY = "scrypt$16384$8$1$" + 22 * "A" + "$" + 43 * "A"
SECRET = "0123456789abcdef0123456789abcdef"

CERTIFICATE = {"cert_file": "a.crt", "key_file": "a.key"}
GOOD: Document = {
    "gateway": {
        "listen": [
            LOOPBACK,
            None,
            {"endpoint": LOOPBACK, "tls": {"certificates": [CERTIFICATE]}},
        ],
        "admin": LOOPBACK,
        "admin_token_file": "token",
        "access_log": {"file": "access.log"},
        "trusted_proxies": ["10.0.0.0/8"],
    },
    "services": {
        "main": {"targets": ["http://127.0.0.1:9"], "health_check": {}, "circuit_breaker": {}},
        "tls": {"targets": ["https://localhost:9"], "tls": {"ca_file": "authority.pem"}},
    },
    "routes": [
        {"path": "/a/:id", "service": "main", "strip_prefix": "/a", "roles": ["admin"]},
        {"path": "/b/*", "service": "tls", "auth": "none", "cors": {"origins": ["https://a.example"]}},
    ],
    "auth": {
        "jwt": [
            {"name": "one", "algorithm": "RS256", "public_key_file": "rsa.pub", "issuer": "https://one"},
            {"name": "two", "algorithm": "RS256", "jwks_file": "rsa.json", "issuer": "https://two"},
            {"name": "three", "algorithm": "HS256", "secret": SECRET, "issuer": "https://three"},
        ],
        "oauth": {
            "signing": {"algorithm": "HS256", "key_id": "k1", "secret": SECRET[::-1]},
            "issuer": "https://me",
            "clients": [{"id": "acme", "secret_hash": [HASH], "roles": ["partner"], "scopes": ["read"]}],
        },
    },
    "rate_limits": [{"endpoint": "/a/*", "limit": 10, "window": "1m", "scope": "user"}],
}

OAUTH = ("auth", "oauth")
RS256 = {"algorithm": "RS256", "key_id": "k1", "private_key_file": "rsa.key"}
"""Not in the good configuration: OpenSSL takes 14 ms to check a private RSA key."""
ACCEPTED = {"public_key_file": "rsa.pub"}
CLIENT = (*OAUTH, "clients", 0)
TLS = ("gateway", "listen", 2, "tls")
FILES = [
    *("a.crt", "a.key", "authority.pem", "other.key", "rsa.key", "rsa.pub", "small.key", "small.pub", "huge.pub"),
    *("weak.crt", "weak.key", "locked.key", "ec.pub", "token", "short", "garbage", "empty", "nowhere", "."),
]
SETS = ["rsa.json", "oct.json", "small.json", "alike.json", "none.json", "list.json", "garbage", "nowhere"]
PATTERNS = [
    *("/a", "/a/", "/:x/*", "/**", "/a/{id}", "/a/<id>", "/^a$", "/a*", "/%ff", "/a%2Fb", "/a b", "/é", "/:a/:a"),
    *("/health", "/health/x", "/.well-known/jwks.json", "/oauth/token", "/..;/a", "a", "/", "/%2A", "/a//b", "/a?b"),
]
NAMES = ["a", "a b", "a,b", "a:b", 'a"b', "", "oauth", "é", 300 * "x", 64 * "x", " a"]
HOSTS = ["127.1", "0x7f", "a.0x1", "[::1]", "a_b", "a.b.", 63 * "a", 64 * "a"]
ENDPOINTS = [
    *(None, LOOPBACK, "tcp:x", "unix:run.sock", "unix:nowhere/run.sock", "systemd:INET:index=0:x=1"),
    *("ssl:0:interface=127.0.0.1:privateKey=a.key:certKey=a.crt", "ssl:0:privateKey=garbage:certKey=a.crt"),
    *("ssl:0:interface=127.0.0.1:privateKey=other.key:certKey=a.crt", "ssl:0:privateKey=weak.key:certKey=weak.crt"),
]
VALUES: list[tuple[Place, list[Any]]] = [
    ((*CLIENT, "secret_hash", 0), [COSTLY, "sha256$abc", HASH + "0", COSTLY.replace("16384", "1024")]),
    ((*CLIENT, "id"), NAMES),
    ((*CLIENT, "roles"), [[name] for name in NAMES]),
    ((*CLIENT, "scopes"), [[name] for name in NAMES]),
    ((*OAUTH, "signing"), [{**RS256, "private_key_file": file} for file in FILES]),
    ((*OAUTH, "signing"), [{**RS256, "accepted": [{**ACCEPTED, "key_id": each}]} for each in ("k1", "k0")]),
    ((*OAUTH, "signing", "algorithm"), ["RS256"]),
    ((*OAUTH, "signing", "secret"), [SECRET, "short"]),
    ((*OAUTH, "issuer"), ["https://one", ""]),
    (("auth", "jwt", 0, "public_key_file"), FILES),
    (("auth", "jwt", 0, "name"), NAMES),
    (("auth", "jwt", 0, "issuer"), ["https://two", None]),
    (("auth", "jwt", 0, "user_claim"), ["sub.x", "a..b", ""]),
    (("auth", "jwt", 1, "jwks_file"), SETS),
    (("auth", "jwt", 1, "algorithm"), ["HS256", "ES256"]),
    (("auth", "jwt", 2, "secret"), ["short", "-----BEGIN PUBLIC KEY-----" + SECRET, "ssh-rsa " + SECRET, 2 * SECRET]),
    (("routes", 0, "path"), PATTERNS),
    (("routes", 1, "path"), PATTERNS),
    (("routes", 0, "strip_prefix"), PATTERNS),
    (("routes", 0, "roles"), [[name] for name in NAMES]),
    (("routes", 0, "auth"), ["none", "optional"]),
    (("routes", 0, "service"), ["tls", "nobody"]),
    (("routes", 1, "cors", "origins"), [["*"], ["*", "https://b"], ["https://a.example/"]]),
    (("rate_limits", 0, "endpoint"), PATTERNS),
    (("rate_limits", 0, "limit"), [0, 1, 1000, 1001, 10**9, 10**9 + 1, 2**31, 1.5]),
    (("rate_limits", 0, "window"), ["0s", "1ms", "744h", "745h", "5000h", "x"]),
    (("rate_limits", 0, "algorithm"), ["log", "counter", "bucket"]),
    (("gateway", "admin_token_file"), FILES),
    (("gateway", "access_log", "file"), ["nowhere/a.log", ".", "other.log", "/dev/null"]),
    (("gateway", "admin"), ENDPOINTS),
    (("gateway", "listen", 0), ENDPOINTS),
    ((*TLS, "certificates", 0, "cert_file"), FILES),
    ((*TLS, "certificates", 0, "key_file"), FILES),
    ((*TLS, "certificates", 0), [{"cert_file": "weak.crt", "key_file": "weak.key"}]),
    ((*TLS, "client_ca_file"), FILES),
    ((*TLS, "min_version"), ["1.2", "1.3", "1.1"]),
    (("services", "tls", "tls", "ca_file"), FILES),
    (("services", "tls", "tls", "server_name"), ["a.example", "a..b", "127.1", "é", "*.a"]),
    (("services", "tls", "tls", "client_cert_file"), FILES),
    (("services", "tls", "tls"), [{"client_cert_file": "a.crt", "client_key_file": file} for file in FILES]),
    (("services", "tls", "tls"), [{"client_cert_file": "weak.crt", "client_key_file": "weak.key"}]),
    (("services", "tls", "targets"), [[f"https://{host}"] for host in HOSTS]),
    (("services", "main", "targets"), [[f"http://{host}"] for host in HOSTS]),
    (("redis",), [{"url": "redis://127.0.0.1:9"}, {"url": "rediss://a:9", "ca_file": "authority.pem"}, {"url": "x"}]),
]  # fmt: skip
CHANGES: st.SearchStrategy[Change] = st.sampled_from(VALUES).flatmap(
    lambda place: st.tuples(st.just(place[0]), st.sampled_from(place[1]))
)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With every file that a configuration here may name."""
    directory = tmp_path_factory.mktemp("etc")
    authority = Authority(directory)
    authority.issue("a.example", file="a")
    authority.issue("b.example", file="other")
    good, small = rsa.generate_private_key(65537, 2048), rsa.generate_private_key(65537, 1024)
    jwk = {key: RSAKey.import_key(public_pem(key)).as_dict() for key in (good, small)}
    files = {
        "rsa.key": private_pem(good),
        "rsa.pub": public_pem(good),
        "small.key": private_pem(small),
        "small.pub": public_pem(small),
        "huge.pub": public_pem(rsa.RSAPublicNumbers(65537, 2**9000 + 1).public_key()),
        "locked.key": private_pem(good, BestAvailableEncryption(b"open sesame")),
        "ec.pub": public_pem(ec.generate_private_key(ec.SECP256R1())),
        "weak.key": private_pem(small),
        "weak.crt": self_signed(small, "weak.example"),
        "token": b"0123456789abcdef\n",
        "short": b"abcde\n",
        "garbage": b"-----BEGIN CERTIFICATE-----\nno\n",
        "empty": b"",
        "rsa.json": _set(jwk[good]),
        "oct.json": _set(OctKey.import_key(SECRET).as_dict()),
        "small.json": _set(jwk[small]),
        "alike.json": _set(*[jwk[good]] * 9),
        "none.json": _set(),
        "list.json": b"[]",
    }
    for name, data in files.items():
        (directory / name).write_bytes(data)
    return directory


def _set(*keys: Mapping[str, object]) -> bytes:
    return json.dumps({"keys": keys}).encode()


def written(directory: Path, *changes: Change) -> str:
    """The good configuration with ``changes``, of which each is a path and a value, as far as they find their place."""
    document = copy.deepcopy(GOOD)
    for path, value in changes:
        held: Any = document
        with suppress(KeyError, TypeError, IndexError):
            for part in path[:-1]:
                held = held[part]
            held[path[-1]] = value
    (directory / "gateway.yaml").write_text(json.dumps(document))
    return str(directory)


def problems(directory: str) -> list[str]:
    """What `apigw check` finds."""
    try:
        try_out(load(directory, {}, RULES), directory, REACTOR)
    except ConfigError as error:
        assert all(problem.origin is not None for problem in error.problems), error
        return list(map(str, error.problems))
    return []


def start(directory: str) -> None:
    """What twistd does with the plugin, up to the turn in which the reactor begins to run."""
    program = Program(REACTOR, time, Signals(), load(directory, {}, RULES), directory, Alone(REACTOR))
    program.root.privilegedStartService()
    program.root.startService()
    stopped: list[object] = []
    program.root.stopService().addBoth(stopped.append)
    until = monotonic() + PATIENCE
    while not stopped and monotonic() < until:
        REACTOR.iterate(0.01)
    assert stopped == [None]


@pytest.fixture(autouse=True)
def untouched() -> Iterator[None]:
    """Signals and the collector of garbage are the process's own."""
    handler, threshold = signal.getsignal(signal.SIGHUP), gc.get_threshold()
    yield
    signal.signal(signal.SIGHUP, handler)
    gc.set_threshold(*threshold)


def test_the_good_configuration_is_good(directory: Path) -> None:
    """Without a change it is called good, and starts."""
    assert problems(written(directory)) == []
    start(str(directory))


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=st.lists(CHANGES, min_size=1, max_size=2))
def test_good_means_that_it_starts(directory: Path, changes: list[Change]) -> None:
    """What is called good starts, and what is refused does not."""
    etc = written(directory, *changes)
    found = problems(etc)
    try:
        start(etc)
    except (ConfigError, CannotStart) as error:
        assert found, f"called good, and does not start: {error}"
    else:
        assert not found, "refused, and starts"


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        ((*TLS, "certificates", 0), {"cert_file": "weak.crt", "key_file": "weak.key"}, "gateway.listen[1]: has certif"),
        (("gateway", "listen", 0), "ssl:0:privateKey=garbage:certKey=a.crt", "gateway.listen[0]: cannot be used"),
        (("services", "tls", "targets"), ["https://a.0x1"], "services.tls: cannot be set up: 'a.0x1' is neither"),
    ],
)
def test_what_shows_only_when_it_is_made_has_a_place(
    directory: Path, path: Place, value: object, sentence: str
) -> None:
    """OpenSSL refuses weak keys; the operator learns which listener it is, though another is switched off."""
    (found,) = problems(written(directory, (path, value)))
    assert found.startswith(f"{directory / 'gateway.yaml'}:1:")
    assert f": {sentence}" in found
