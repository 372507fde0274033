"""What the files say is what the gateway gets."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from attrs import evolve
from cerberus.schema import DefinitionSchema

from apigw.config.errors import ConfigError, Problem, problem_in
from apigw.config.load import load
from apigw.config.model import (
    UNSET,
    AccessLog,
    Certificate,
    CircuitBreaker,
    Config,
    Gateway,
    HealthCheck,
    Listen,
    Origin,
    Redis,
    Route,
    Secret,
    ServerTLS,
    Service,
    Target,
    UpstreamTLS,
)
from apigw.config.validate import Validator
from apigw.policy.auth.jwt.model import JWTVerifier
from apigw.policy.auth.model import Auth, AuthOfGateway, AuthOfRoute, AuthSection, auth_of
from apigw.policy.cors.model import Cors, CorsOfRoute
from apigw.policy.limits.model import LimitsSection, RateLimit
from apigw.policy.oauth.model import AcceptedKey, OAuth, OAuthClient, OAuthOfAuth, OAuthSigning, Quota
from apigw.process.rules import RULES

HASH = f"scrypt$16384$8$1${22 * 'A'}${43 * 'A'}"
Write = Callable[[Mapping[str, str | bytes]], str]

# Every key, most with its default.
EXAMPLE = """\
gateway:
  listen:
    - "tcp:8080"
    - endpoint: "tcp:8443"
      tls: {certificates: [{cert_file: tls/a.pem, key_file: tls/a.key}], min_version: "1.2", client_ca_file: null}
  admin: "tcp:9090:interface=127.0.0.1"
  admin_token_file: null
  request_timeout: 30s
  client_body_timeout: 30s
  client_header_timeout: 10s
  keepalive_timeout: 75s
  drain_timeout: 30s
  drain_delay: 0s
  max_header_size: 32KiB
  max_header_count: 100
  max_body_size: 100MiB
  max_connections: 10000
  trusted_proxies: []
  metrics_allow: [127.0.0.0/8, "::1/128"]
  access_log: {file: "-", format: json}
  auth_default: required

redis:
  url: redis://127.0.0.1:6379/0
  password_file: null
  ca_file: null
  sentinels: []
  prefix: apigw
  timeout: 100ms

services:
  user-service:
    targets: [http://127.0.0.1:9001, {url: "http://127.0.0.1:9002", weight: 2}]
    tls: {ca_file: null, server_name: null, client_cert_file: null, client_key_file: null}
    connect_timeout: 5s
    timeout: 30s
    keepalive_timeout: 4s
    max_connections: 256
    max_pending: 1024
    preserve_host: false
    critical: true
    health_check: {path: /health, interval: 10s, timeout: 2s, unhealthy_after: 3, healthy_after: 2}
    circuit_breaker: {error_rate: 0.5, window: 60s, min_requests: 20, open_for: 30s, half_open_requests: 3}

routes:
  - path: /api/v1/users
    service: user-service
    methods: [GET, POST]
  - path: /api/v1/users/:id
    service: user-service
    methods: [GET, PUT, DELETE]
    auth: required
    roles: [user, admin]
    scopes: [users.read]
    forward_token: true
    strip_prefix: /api/v1
    timeout: 5s
    max_body_size: 1MiB
    cors: {origins: [https://app.example.com], credentials: false, max_age: 10m}

auth:
  jwt:
    - name: main
      algorithm: RS256
      public_key_file: keys/main.pem
      issuer: https://id.example.com
      audience: [orders]
      leeway: 30s
      user_claim: sub
      roles_claim: roles
  oauth:
    signing: {algorithm: RS256, private_key_file: keys/token.pem, key_id: k1}
    issuer: https://gateway.example.com
    audience: [gateway]
    token_lifetime: 1h
    rate_limit: {limit: 10, window: 60s}
    refresh_tokens: false
    clients:
      - id: acme
        secret_hash: ["scrypt$16384$8$1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]
        roles: [partner]
        scopes: [orders.read]

rate_limits:
  - endpoint: /api/v1/search
    limit: 100
    window: 60s
    scope: user
  - endpoint: /api/v1/*
    limit: 1000
    window: 60s
    scope: ip
    algorithm: auto
    on_store_failure: local
"""


@pytest.fixture
def example(write: Write, key_files: dict[str, str | bytes]) -> str:
    return write(
        {
            "gateway.yaml": EXAMPLE,
            "tls/a.pem": key_files["rsa.pem"],
            "tls/a.key": key_files["rsa.key"],
            "keys/main.pem": key_files["rsa.pub"],
            "keys/token.pem": key_files["rsa.key"],
        }
    )


def test_the_whole_example(example: str, tmp_path: Path) -> None:
    """A documented key is refused, or does not arrive where the gateway looks for it."""
    etc = str(tmp_path / "etc")
    assert load(example, {}, RULES) == Config(
        gateway=Gateway(
            listen=(
                Listen("tcp:8080"),
                Listen("tcp:8443", ServerTLS((Certificate(f"{etc}/tls/a.pem", f"{etc}/tls/a.key"),))),
            ),
            added=(AuthOfGateway("required"),),
        ),
        redis=Redis("redis://127.0.0.1:6379/0"),
        services=(
            Service(
                "user-service",
                (Target("http", "127.0.0.1", 9001), Target("http", "127.0.0.1", 9002, 2)),
                timeout=30.0,
                critical=True,
                health_check=HealthCheck(),
                circuit_breaker=CircuitBreaker(),
            ),
        ),
        routes=(
            Route("/api/v1/users", "user-service", ("GET", "POST")),
            Route(
                "/api/v1/users/:id",
                "user-service",
                ("GET", "PUT", "DELETE"),
                strip_prefix="/api/v1",
                timeout=5.0,
                max_body_size=1024**2,
                added=(
                    CorsOfRoute(Cors(("https://app.example.com",))),
                    AuthOfRoute("required", ("user", "admin"), ("users.read",)),
                ),
            ),
        ),
        added=(
            AuthSection(
                Auth(
                    (
                        JWTVerifier(
                            "main",
                            "RS256",
                            public_key_file=f"{etc}/keys/main.pem",
                            issuer="https://id.example.com",
                            audience=("orders",),
                        ),
                    ),
                    added=(
                        OAuthOfAuth(
                            OAuth(
                                OAuthSigning("RS256", "k1", f"{etc}/keys/token.pem"),
                                "https://gateway.example.com",
                                ("gateway",),
                                clients=(OAuthClient("acme", (HASH,), ("partner",), ("orders.read",)),),
                            )
                        ),
                    ),
                )
            ),
            LimitsSection(
                (
                    RateLimit("/api/v1/search", 100, 60.0, scope="user"),
                    RateLimit("/api/v1/*", 1000, 60.0, scope="ip"),
                )
            ),
        ),
    )


def test_defaults_are_the_models(write: Write) -> None:
    """A gateway configured by its routes alone does not start, or starts with other limits than documented."""
    files = {"a.yaml": "services: {a: {targets: [http://a]}}\nroutes: [{path: /, service: a}]\n"}
    config = load(write(files), {}, RULES)
    assert config == Config(services=(Service("a", (Target("http", "a", 80),)),), routes=(Route("/", "a"),))
    assert config.routes[0].max_body_size == UNSET


def test_everything_but_the_defaults(write: Write, key_files: dict[str, str | bytes], tmp_path: Path) -> None:
    """A value other than the default does not reach the gateway."""
    etc = str(tmp_path / "etc")
    text = """\
gateway:
  listen:
    - "unix:apigw.sock:mode=660"
    - endpoint: "tcp6:8443:interface=\\\\:\\\\:1"
      tls: {certificates: [{cert_file: rsa.pem, key_file: rsa.key}], min_version: "1.3", client_ca_file: rsa.pem}
  admin: null
  admin_token_file: long
  admin_hosts: [gw.test]
  drain_delay: 1.5s
  max_header_size: 1024
  max_body_size: null
  trusted_proxies: [10.0.0.0/8, 192.0.2.1]
  access_log: {file: access.log, format: combined}
redis:
  url: rediss://[::1]
  password_file: long
  ca_file: rsa.pem
  sentinels: [a:26379, "[::1]:26380"]
  sentinel_name: main
services:
  a:
    targets: [https://a, "https://[::1]:8443"]
    tls: {ca_file: rsa.pem, server_name: a.example.com, client_cert_file: rsa.pem, client_key_file: rsa.key}
    keepalive_timeout: 0
    health_check: null
routes:
  - {path: /, service: a, methods: null, max_body_size: null, auth: none}
  - {path: /open, service: a, auth: optional, forward_token: false, cors: {origins: ["*"]}}
auth:
  jwt:
    - {name: a, algorithm: HS256, secret_file: long, issuer: a}
    - {name: b, algorithm: HS256, secret: "${SECRET}", key_id: k, issuer: b}
    - {name: c, algorithm: RS256, jwks_url: "https://id.example.com/jwks"}
  oauth:
    signing:
      algorithm: HS256
      key_id: k2
      secret_file: long
      accepted: [{key_id: k1, secret_file: long}]
    issuer: https://me
    rate_limit: {limit: 1, window: 1h}
rate_limits: [{endpoint: /*, limit: 1, window: 744h, scope: endpoint, algorithm: log, on_store_failure: closed}]
"""
    secret = Secret(b"0123456789abcdef0123456789abcdef")
    config = load(write({**key_files, "a.yaml": text}), {"SECRET": "sample" * 6}, RULES)
    assert config.gateway == Gateway(
        listen=(
            Listen(f"unix:address={etc}/apigw.sock:mode=660"),
            Listen(
                "tcp6:8443:interface=\\:\\:1",
                ServerTLS((Certificate(f"{etc}/rsa.pem", f"{etc}/rsa.key"),), "1.3", f"{etc}/rsa.pem"),
            ),
        ),
        admin=None,
        admin_token_file=f"{etc}/long",
        admin_hosts=("gw.test",),
        drain_delay=1.5,
        max_header_size=1024,
        max_body_size=None,
        trusted_proxies=("10.0.0.0/8", "192.0.2.1"),
        access_log=AccessLog(f"{etc}/access.log", "combined"),
    )
    assert config.redis == Redis(
        "rediss://[::1]:6379/0", f"{etc}/long", f"{etc}/rsa.pem", (("a", 26379), ("::1", 26380)), "main"
    )
    tls = UpstreamTLS(f"{etc}/rsa.pem", "a.example.com", f"{etc}/rsa.pem", f"{etc}/rsa.key")
    targets = (Target("https", "a", 443), Target("https", "::1", 8443))
    assert config.services == (Service("a", targets, tls, keepalive_timeout=0.0),)
    assert config.routes == (
        Route("/", "a", max_body_size=None, added=(AuthOfRoute("none"),)),
        Route("/open", "a", added=(CorsOfRoute(Cors(("*",))), AuthOfRoute(auth="optional", forward_token=False))),
    )
    assert auth_of(config) == Auth(
        (
            JWTVerifier("a", "HS256", secret=secret, issuer="a"),
            JWTVerifier("b", "HS256", secret=Secret(b"sample" * 6), key_id="k", issuer="b"),
            JWTVerifier("c", "RS256", jwks_url="https://id.example.com/jwks"),
        ),
        added=(
            OAuthOfAuth(
                OAuth(
                    OAuthSigning("HS256", "k2", secret=secret, accepted=(AcceptedKey("k1", secret=secret),)),
                    "https://me",
                    rate_limit=Quota(1, 3600.0),
                )
            ),
        ),
    )
    assert config.of(LimitsSection).rate_limits == (RateLimit("/*", 1, 2678400.0, "log", "closed", scope="endpoint"),)


def test_a_key_with_its_default_says_nothing(write: Write) -> None:
    """A key that is written out with its default makes no other configuration, so that a reload changes nothing."""
    text = "services: {a: {targets: [http://a]}}\nroutes: [{path: /, service: a%s}]\n"
    silent = load(write({"a.yaml": text % ""}), {}, RULES)
    written = load(write({"a.yaml": text % ", cors: null, roles: []"}), {}, RULES)
    assert silent == written
    assert hash(silent) == hash(written)


def test_secrets_do_not_show(write: Write) -> None:
    """A secret stands in a traceback or a log line."""
    text = f"auth: {{jwt: [{{name: a, algorithm: HS256, secret: {'hunter2' * 5}}}]}}\n"
    assert "hunter2" not in repr(load(write({"a.yaml": text}), {}, RULES))


def test_merging(write: Write) -> None:
    """A configuration in several files is another one than in one file."""
    files = {
        "b.yaml": "gateway: {access_log: {format: combined}}\nroutes: [{path: /b, service: a}]\n",
        "a.yaml": "gateway: {access_log: {file: '-'}, drain_delay: 1s}\nroutes: [{path: /a, service: a}]\n",
        "services/a.yaml": "services: {a: {targets: [http://a]}}\nroutes: [{path: /s, service: a}]\n",
        "services/b.yaml": "services: {b: {targets: [http://b]}}\n",
        ".hidden.yaml": "nonsense",
        "notes.txt": "nonsense",
    }
    config = load(write(files), {}, RULES)
    assert config.gateway == Gateway(access_log=AccessLog("-", "combined"), drain_delay=1.0)
    assert [route.path for route in config.routes] == ["/a", "/b", "/s"]
    assert [service.name for service in config.services] == ["a", "b"]


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (
            "gateway: {drain_delay: 1s}",
            "gateway: {drain_delay: 1s}",
            "etc/b.yaml:1:11: gateway.drain_delay: is given twice, first at etc/a.yaml:1:11",
        ),
        (
            "services: {a: {targets: [http://a]}}",
            "services:\n  a: {timeout: 1s}",
            "etc/b.yaml:2:3: services.a: is given twice, first at etc/a.yaml:1:12",
        ),
        (
            "routes: []",
            "routes: {}",
            "etc/b.yaml:1:1: routes: is a map, but a list at etc/a.yaml:1:1",
        ),
    ],
)
def test_the_same_key_in_two_files(write: Write, first: str, second: str, expected: str) -> None:
    """One of two files wins, and nobody knows which."""
    with pytest.raises(ConfigError) as caught:
        load(write({"a.yaml": first, "b.yaml": second}), {}, RULES)
    assert str(caught.value) == expected


def test_problems_after_merging_name_the_right_file(write: Write) -> None:
    """The second file's first route is called the first file's second one, at a place in neither."""
    files = {
        "a.yaml": "services: {a: {targets: [http://a]}}\nroutes: [{path: /a, service: a}]\n",
        "b.yaml": "routes:\n  - {path: /:x, service: a}\n  - {path: /:y, service: a}\n",
    }
    with pytest.raises(ConfigError) as caught:
        load(write(files), {}, RULES)
    assert str(caught.value) == (
        "etc/b.yaml:3:12: routes[2].path: has the same shape as the path at etc/b.yaml:2:12, "
        "and both routes serve all methods"
    )


@pytest.mark.parametrize(
    ("value", "environ", "expected"),
    [
        ("${N}", {"N": "7"}, 7),
        ("${N:-8}", {}, 8),
        ("${N:-8}", {"N": ""}, 8),
        ("${N:-8}", {"N": "7"}, 7),
        ("${N:?set N}", {"N": "7"}, 7),
        ("${A}${B}", {"A": "1", "B": "2"}, 12),
    ],
)
def test_a_variable_becomes_a_number(write: Write, value: str, environ: dict[str, str], expected: int) -> None:
    """${PORT} without quotes is text where a number is wanted."""
    config = load(write({"a.yaml": f"gateway:\n  max_header_count: {value}\n"}), environ, RULES)
    assert config.gateway.max_header_count == expected


@pytest.mark.parametrize(
    ("value", "environ", "expected"),
    [
        ('"tcp:${P}"', {"P": "80"}, "tcp:80"),
        ("tcp:${P:-81}", {}, "tcp:81"),
        ("${E:-}", {}, None),
        ("${E}", {"E": ""}, None),
        ("unix:/tmp/$$HOME", {}, "unix:/tmp/$HOME"),
        ("unix:/tmp/$HOME", {"HOME": "x"}, "unix:/tmp/$HOME"),
        ("'unix:/tmp/$${A}'", {}, "unix:/tmp/${A}"),
        ("unix:/tmp/${A}", {"A": "${B} $$"}, "unix:/tmp/${B} $$"),
        ("unix:/tmp/${A:-x$$y}", {}, "unix:/tmp/x$y"),
    ],
)
def test_variables(write: Write, value: str, environ: dict[str, str], expected: str | None) -> None:
    """What stands in the environment is not what the gateway gets, or is taken for more than text."""
    assert load(write({"a.yaml": f"gateway:\n  admin: {value}\n"}), environ, RULES).gateway.admin == expected


def test_a_variable_is_text_in_quotes(write: Write) -> None:
    """A key id of digits, in quotes, is refused because it looks like a number once it is put in."""
    text = 'auth: {jwt: [{name: "${A}", algorithm: HS256, secret: "${S}"}]}\n'
    config = load(write({"a.yaml": text}), {"A": "007", "S": "1234567890" * 4}, RULES)
    auth = auth_of(config)
    assert auth is not None
    assert auth.jwt[0].name == "007"


def test_origins(example: str) -> None:
    """A problem that a later stage finds is printed without its place."""
    config = load(example, {}, RULES)
    assert config.origins["routes", 1, "methods", 2] == Origin("etc/gateway.yaml", 51, 25)
    assert config.origins["services", "user-service"] == Origin("etc/gateway.yaml", 33, 5)
    assert str(problem_in(config, ("routes", 0, "auth"), "says so")) == "etc/gateway.yaml:46:5: routes[0].auth: says so"
    assert problem_in(Config(), ("routes",), "x") == Problem("x", ("routes",), None)


def test_origins_do_not_count(example: str) -> None:
    """A comment added to a file makes a reload drop every pool."""
    config = load(example, {}, RULES)
    assert evolve(config, origins={}, warnings=()) == config
    assert hash(config) == hash(evolve(config, origins={}, warnings=()))


def test_warnings(example: str, tmp_path: Path) -> None:
    """What is probably a slip passes without a word."""
    (tmp_path / "etc/empty.yaml").write_text("# nothing yet\n")
    (tmp_path / "etc/old.yml").write_text("gateway: {}\n")
    (tmp_path / "etc/routes").mkdir()
    (tmp_path / "etc/routes/a.yaml").write_text("routes: []\n")
    (tmp_path / "etc/zoo.yaml").write_text("routes: [{path: /open, service: user-service, auth: none}]\n")
    assert list(map(str, load(example, {}, RULES).warnings)) == [
        "etc/empty.yaml:1:1: is empty",
        "etc/gateway.yaml:46:11: routes: 2 routes take the credentials of every provider (main, oauth): /api/v1/users, "
        "/api/v1/users/:id; `providers` names those that are meant",
        "etc/gateway.yaml:85:15: rate_limits[0].endpoint: '/api/v1/search' matches no route",
        "etc/zoo.yaml:1:17: routes: 1 of 3 routes needs no authentication: /open",
        "etc/old.yml:1:1: is not read: only files that end in .yaml are",
        "etc/routes/a.yaml:1:1: is not read: only *.yaml in etc and in its services are",
    ]


def test_claims(write: Write) -> None:
    """A route or a provider that demands claims cannot be loaded."""
    text = """\
auth: {jwt: [{name: a, algorithm: RS256, jwks_url: "https://id/jwks", issuer: x, claims: {kind: service}}]}
services: {a: {targets: ["http://a"]}}
routes: [{path: /a, service: a, claims: {department: it, amr: [mfa, hwk], level: 2, address.known: true}}]
"""
    config = load(write({"a.yaml": text}), {}, RULES)
    auth = auth_of(config)
    assert auth is not None and auth.jwt[0].claims == (("kind", ("service",)),)
    assert config.routes[0].of(AuthOfRoute).claims == (
        ("department", ("it",)), ("amr", ("mfa", "hwk")), ("level", 2), ("address.known", True)
    )  # fmt: skip


def test_keys_over_a_plain_connection(write: Write) -> None:
    """Keys are fetched where anybody on the way can replace them, and nobody is told."""
    text = "auth: {jwt: [{name: a, algorithm: RS256, jwks_url: 'http://id/jwks', issuer: x}]}\n"
    (warning,) = load(write({"a.yaml": text}), {}, RULES).warnings
    assert str(warning).startswith("etc/a.yaml:1:52: auth.jwt[0].jwks_url: fetches keys without TLS")


def test_a_token_endpoint_without_a_key_of_its_own(write: Write) -> None:
    """The variable with the key's name is not set, and all tokens end with a restart: nobody knows why."""
    text = "auth: {oauth: {issuer: https://me, signing: {algorithm: RS256, key_id: k1}}}\n"
    (warning,) = load(write({"a.yaml": text}), {}, RULES).warnings
    assert str(warning).startswith(
        "etc/a.yaml:1:45: auth.oauth.signing: has no private_key_file: the gateway makes a new key at each"
    )


@pytest.mark.parametrize(
    ("issuer", "routes", "said"),
    [
        ("https://api.test", '{path: /a, hosts: ["*.test"]}', "'https://api.test' has a host that routes name"),
        (
            "http://127.0.0.1:8080",
            "{path: /a, hosts: [api.test]}",
            "every route has hosts, and the token endpoint is only on hosts that no route names",
        ),
        (
            "gateway",
            "{path: /a, hosts: [api.test]}",
            "every route has hosts, and the token endpoint is only on hosts that no route names",
        ),
        ("https://login.test", "{path: /a, hosts: [api.test]}", None),
        ("gateway", "{path: /a, hosts: [api.test]}, {path: /b}", None),
        ("https://api.test", "{path: /a}", None),
    ],
)
def test_a_token_endpoint_that_nobody_finds(
    write: Write, key_files: dict[str, str | bytes], issuer: str, routes: str, said: str | None
) -> None:
    """Partners get 404 for a token, because the host has routes of its own."""
    text = f"""\
auth: {{oauth: {{issuer: "{issuer}", signing: {{algorithm: RS256, key_id: k, private_key_file: rsa.key}}}}}}
services: {{a: {{targets: ["http://a"]}}}}
routes: [{routes.replace("}", ", service: a}")}]
"""
    warnings = list(map(str, load(write({**key_files, "a.yaml": text}), {}, RULES).warnings))
    assert [
        line.partition("auth.oauth.issuer: ")[2].split(": the ")[0].split(": write")[0]
        for line in warnings
        if "issuer" in line
    ] == ([] if said is None else [said])


def test_limits_of_hosts_that_have_no_route(write: Write) -> None:
    """A limit for a host that is written wrongly limits nothing, and nobody is told."""
    text = """\
services: {a: {targets: ["http://a"]}}
routes: [{path: /a, service: a, hosts: [a.test, "*.b.test"], auth: none}, {path: /c, service: a, auth: none}]
rate_limits:
  - {hosts: [a.test, x.b.test, "*.test"], endpoint: /a, limit: 1, window: 1s, scope: ip}
  - {hosts: [aa.test], endpoint: /a, limit: 1, window: 1s, scope: ip}
  - {hosts: [aa.test], endpoint: /c, limit: 1, window: 1s, scope: ip}
"""
    warnings = list(map(str, load(write({"a.yaml": text}), {}, RULES).warnings))
    assert warnings == [
        "etc/a.yaml:2:17: routes: 2 of 2 routes need no authentication: a.test/a, /c",
        "etc/a.yaml:5:34: rate_limits[1].endpoint: '/a' matches no route",
    ]


def test_without_libyaml(example: str) -> None:
    """Where PyYAML was built without libyaml, the configuration does not load."""
    program = (
        "import yaml; del yaml.CSafeLoader\n"
        "from apigw.config.load import load\n"
        "from apigw.process.rules import RULES\n"
        f"config = load({example!r}, {{}}, RULES)\n"
        "assert str(config.origins['routes', 1, 'methods', 2]) == 'etc/gateway.yaml:51:25'\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=Path.cwd(), env={"PYTHONPATH": ":".join(sys.path)})


def test_the_schema_is_one_that_cerberus_takes() -> None:
    """It raises ``SchemaError`` for one that is not."""
    DefinitionSchema(Validator(RULES.schema, forms={}), RULES.schema)


def test_no_reactor() -> None:
    """Loading a configuration installs a reactor, before the daemon has chosen one."""
    program = "import sys, apigw.config.load; assert not [name for name in sys.modules if name.startswith('twisted')]"
    subprocess.run([sys.executable, "-c", program], check=True, env={"PYTHONPATH": ":".join(sys.path)})


def test_what_nobody_would_reach_is_warned_of(write: Write) -> None:
    """Nobody hears of a service without a route, a limit of /a in place of /a/*, and the collector's other port."""
    text = """\
services: {a: {targets: ["http://a"]}, b: {targets: ["http://b"]}, c: {targets: ["http://c"]}}
routes: [{path: /a/*, split: {a: 1, b: 1}, check_with: x}]
checks: {x: {url: "http://x"}}
rate_limits:
  - {endpoint: /a, limit: 1, window: 1s, scope: ip}
  - {endpoint: /b, limit: 1, window: 1s, scope: ip}
  - {endpoint: /b/*, limit: 1, window: 1s, scope: ip}
tracing: {otlp: "http://127.0.0.1:4317"}
"""
    assert sorted(str(each).partition(": ")[2] for each in load(write({"a.yaml": text}), {}, RULES).warnings) == [
        "rate_limits[0].endpoint: '/a' matches no route; did you mean '/a/*'?",
        "rate_limits[1].endpoint: '/b' matches no route",
        "rate_limits[2].endpoint: '/b/*' matches no route",
        "services.c: gets no requests: no route names it",
        "tracing.otlp: port 4317 is usually that of OTLP over gRPC: OTLP over HTTP, which is spoken here, is on 4318",
    ]
