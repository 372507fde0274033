"""``apigw show`` prints what was read and where, and no secret."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import yaml
from attrs import frozen
from hypothesis import given
from hypothesis import strategies as st

from apigw.config.keys import Keys, Rule, secret
from apigw.config.load import load
from apigw.config.marks import compose
from apigw.config.merge import Document, read
from apigw.config.model import Origin
from apigw.config.rules import Rules
from apigw.config.show import show
from apigw.config.validate import shown
from apigw.process.rules import RULES

Write = Callable[[Mapping[str, str | bytes]], str]


def test_values_and_origins(write: Write) -> None:
    """An operator cannot tell which of several files a value came from."""
    files = {
        "a.yaml": "gateway:\n  admin: null\n  listen: ['tcp:8080', {endpoint: 'tcp:1', tls: null}]\nrate_limits: []\n",
        "b.yaml": "services:\n  'on': {targets: ['http://a'], critical: no}\n",
    }
    assert show(read(write(files), {}, RULES.schema)) == (
        "gateway:  # etc/a.yaml:2:3\n"
        "  admin: null  # etc/a.yaml:2:10\n"
        "  listen:  # etc/a.yaml:3:11\n"
        '    - "tcp:8080"  # etc/a.yaml:3:12\n'
        '    - endpoint: "tcp:1"  # etc/a.yaml:3:35\n'
        "      tls: null  # etc/a.yaml:3:49\n"
        "rate_limits: []  # etc/a.yaml:4:14\n"
        "services:  # etc/b.yaml:2:3\n"
        '  "on":  # etc/b.yaml:2:9\n'
        "    targets:  # etc/b.yaml:2:19\n"
        '      - "http://a"  # etc/b.yaml:2:20\n'
        "    critical: false  # etc/b.yaml:2:43\n"
    )


def test_no_secret_is_shown(write: Write) -> None:
    """A secret is printed to a terminal, and from there goes into a ticket."""
    text = """\
gateway:
  admin: "${APP_TOKEN}"
  drain_delay: "${DB_PASSWORD:-hunter2}"
  request_timeout: "${APIKEY}"
  stream_idle_timeout: "${DBPASS}"
redis: {url: "redis://me:hunter2@a/0", password: hunter2, password_file: redis.txt}
auth:
  jwt: [{name: a, secret: hunter2, secret_file: jwt.txt}]
  oauth:
    token_lifetime: 1h
    clients: [{id: a, secret_hash: [hunter2, hunter2], secret: [hunter2]}]
routes:
  - path: /a
    request_headers: {set: {Authorization: "Basic hunter2"}, add: {X-Api-Key: hunter2, X-Upstream-Auth: hunter2}}
  - path: /b
    headers: {X-Key: {equal: hunter2}, X-Stage: beta}
    query: {token: hunter2, code: hunter2, page: first}
    cookies: {sid: hunter2, my_session: {equal: hunter2}, canary: blue}
  - {path: /c, rewrite: {path: "/c?api_key=hunter2&page=second"}, redirect: {to: "https://a/?token={param.id}"}}
checks: {a: {url: "https://me:hunter2@a/?x=third&code=hunter2"}}
services: {a: {targets: [{url: "http://hunter2@a"}], timeout: "${TIMEOUT}", health_check: {path: "/?key=hunter2#a"}}}
"""
    environ = dict.fromkeys(("APP_TOKEN", "DB_PASSWORD", "APIKEY", "DBPASS"), "hunter2") | {"TIMEOUT": "5s"}
    text = show(read(write({"a.yaml": text}), environ, RULES.schema))
    assert "hunter2" not in text
    urls = ("…@a/0", "http://…@a", "second", "{param.id}", "x=third")
    for harmless in ("redis.txt", "jwt.txt", "1h", '"5s"', "beta", "first", "blue", *urls):
        assert harmless in text


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("https://a:b/?page=1&token=hunter2", "https://a:b/?page=1&token=…"),
        ("https://me:hunter2@a/?page=1&token=hunter2", "…@a/?page=1&token=…"),
        ("me:hunter2@a", "…@a"),
    ],
)
def test_no_problem_shows_a_secret_in_a_url(write: Write, url: str, told: str) -> None:
    """Problems are logged, and shown to whoever reads the status."""
    document = read(write({"a.yaml": f"checks: {{a: {{url: '{url}'}}}}\n"}), {}, RULES.schema)
    assert shown(document, ("checks", "a", "url"), document.get("checks", "a", "url")) == f"'{told}'"


@frozen
class _Added:
    pin: str | None = None


def test_what_a_policy_declares_secret_is_not_shown(write: Write) -> None:
    """A key is a secret because its schema says so, whatever its name."""
    schema = (RULES | Rules(keys=(Keys(("routes",), _Added, {"pin": secret("What opens it.")}),))).schema
    document = read(write({"a.yaml": "routes: [{path: /a, service: a, pin: hunter2}]\n"}), {}, schema)
    assert "hunter2" not in show(document)
    assert "hunter2" not in shown(document, ("routes", 0, "pin"), "hunter2")


def test_what_stands_under_a_key_that_does_not_exist_is_not_shown(write: Write) -> None:
    """It may be a secret whose key was mistyped; where it stands is shown all the same."""
    text = """
auth:
  jwt: [{name: a, sekret: hunter2, key: {main: hunter2, all: [hunter2, [hunter2]]}, audience: {x: hunter2}}]
  oauth: {clients: [{id: acme, secret_hsh: [hunter2]}]}
gateway: {admin_tokn: hunter2, lisen: 20022002}
redis: {pasword: hunter2}
redsi: {url: "redis://hunter2@a"}
"""
    text = show(read(write({"a.yaml": text}), {}, RULES.schema))
    assert "hunter2" not in text
    assert "20022002" not in text
    for key in ("sekret", "main", "secret_hsh", "admin_tokn", "lisen", "pasword", "redsi"):
        assert f"{key}:" in text
    assert "id: acme" in text


def test_what_is_shown_loads_again(write: Write, tmp_path: Path) -> None:
    """What `show` prints is not the configuration that runs."""
    text = """\
gateway: {admin: "unix:/tmp/$$${A}$$$${B", request_timeout: 1.5m, listen: ["tcp:1", {endpoint: "tcp:2"}]}
services: {a: {targets: [{url: "http://a", weight: 2}], health_check: {}, circuit_breaker: {error_rate: 0.001}}}
routes: [{path: "/café/:x", service: a, methods: [GET]}, {path: '/"x"', service: a}]
"""
    first = load(write({"a.yaml": text}), {"A": "x"}, RULES)
    (tmp_path / "etc/a.yaml").write_text(show(read("etc", {"A": "x"}, RULES.schema)))
    assert load("etc", {}, RULES) == first


def test_an_empty_configuration(write: Write) -> None:
    """`show` of nothing is not YAML."""
    assert show(read(write({"a.yaml": ""}), {}, RULES.schema)) == "{}\n"


ANYTHING: Rule = {}
"""The rule for a map or a list of what has this rule."""
ANYTHING["valuesrules"] = ANYTHING

TEXTS = st.text(st.characters(codec="utf-8")).filter(lambda text: "://" not in text and "?" not in text)  # as in URLs
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(-(10**17), 10**17), TEXTS)
TREES = st.recursive(SCALARS, lambda below: st.lists(below) | st.dictionaries(st.sampled_from("abc no 1 x-y"), below))


@given(st.dictionaries(st.sampled_from(["a", "b", "on", "1", "key"]), TREES))
def test_any_text_survives(tree: dict[str, object]) -> None:
    """A value with odd characters is printed as another one, or as YAML that nobody can read."""
    document = Document(
        "etc", json.loads(json.dumps(tree)), schema=dict.fromkeys(["a", "b", "on", "1", "key"], ANYTHING)
    )
    document.places = _Everywhere()
    assert yaml.safe_load(show(document)) is not None
    node = compose(show(document).replace("$$", "$"), "a", {}) if "$" not in show(document) else None
    assert node is None or _plain(node) == tree


class _Everywhere(dict):  # type: ignore[type-arg]
    def __missing__(self, path: object) -> Origin:
        return Origin("a", 1, 1)


def _plain(node: object) -> object:
    value = node.value  # type: ignore[attr-defined]
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    return [_plain(entry) for entry in value] if isinstance(value, list) else value
