"""The configuration as shipped."""

from __future__ import annotations

from pathlib import Path

import pytest

from apigw.config.errors import ConfigError
from apigw.config.load import load
from apigw.config.model import Listen
from apigw.policy.auth.model import AuthOfGateway, AuthOfRoute, auth_of
from apigw.policy.oauth.model import oauth_of
from apigw.process.rules import RULES

ETC = Path(__file__).resolve().parents[1] / "etc"
FILES = sorted(ETC.rglob("*.yaml"))


def test_it_starts_as_it_is() -> None:
    """A newcomer's first start ends in a list of problems, or listens to the whole network."""
    config = load(str(ETC), {}, RULES)
    assert config.gateway.listen == (Listen("tcp:8080:interface=127.0.0.1"),)
    assert config.redis is None
    assert {service.name for service in config.services} == {"users", "live"}


def test_tls_comes_with_a_variable() -> None:
    """`make run` starts without its TLS port."""
    config = load(str(ETC), {"APIGW_LISTEN_TLS": "tcp:0"}, RULES)
    assert config.gateway.listen[1:] == (Listen("tcp:0"),)


def test_nowhere_to_listen(tmp_path: Path) -> None:
    """Every variable is unset, and the gateway starts without a port."""
    (tmp_path / "a.yaml").write_text("gateway:\n  listen:\n    - null\n    - ${X:-}\n")
    with pytest.raises(ConfigError, match=r"a\.yaml:3:5: gateway\.listen: contains only null"):
        load(str(tmp_path), {}, RULES)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_every_line_is_commented(file: Path) -> None:
    """A newcomer meets a key and must look it up. Only a key that opens a section speaks for itself."""
    openings = ("", "gateway:", "services:", "routes:", "users:", "live:", "auth:", "signing:", "clients:")
    lines = map(str.strip, file.read_text().splitlines())
    assert [line for line in lines if "#" not in line and line not in openings] == []


def test_routes_that_say_nothing_want_a_token() -> None:
    """A newcomer adds a route, and it is open to everybody."""
    config = load(str(ETC), {}, RULES)
    assert auth_of(config) is not None
    assert config.gateway.of(AuthOfGateway).auth_default in (None, "required")
    assert [route.path for route in config.routes if route.of(AuthOfRoute).auth is None] == ["/partner/users"]


def test_there_is_no_key_and_no_secret_in_it() -> None:
    """What is in the repository ends up in production, and everybody has it."""
    config = load(str(ETC), {}, RULES)
    oauth = oauth_of(config)
    assert oauth is not None
    assert oauth.signing.private_key_file is None
    assert [client.secret_hash for client in oauth.clients] == [("sha256$" + 64 * "0",)]
    assert [file for file in ETC.rglob("*") if file.is_file() and file.suffix not in (".yaml", ".md")] == []
    brought = oauth_of(load(str(ETC), {"APIGW_PARTNER_SECRET_HASH": "sha256$" + 64 * "1"}, RULES))
    assert brought is not None
    assert brought.clients[0].secret_hash == ("sha256$" + 64 * "1",)
