"""Commands for a running gateway find it, without the rest of its configuration."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from apigw.cli.admin import NotAnswered
from apigw.cli.where import admin_of, token_of


def asked(directory: Path, **more: str) -> argparse.Namespace:
    return argparse.Namespace(**{"config": str(directory), "admin": None, "token_file": None, **more})


def write(directory: Path, text: str) -> Path:
    (directory / "gateway.yaml").write_text(text)
    return directory


@pytest.mark.parametrize(
    ("gateway", "address"),
    [
        ("{}", "http://127.0.0.1:9090"),
        ('{admin: "tcp:9191"}', "http://127.0.0.1:9191"),
        ('{admin: "${APIGW_TEST_ADMIN:-tcp:9192}"}', "http://127.0.0.1:9192"),
        ('{admin: "unix:admin.sock"}', "unix:{directory}/admin.sock"),
    ],
)
def test_the_address_is_known_where_variables_of_others_are_not(tmp_path: Path, gateway: str, address: str) -> None:
    """No value but `gateway.admin` has to be right."""
    write(tmp_path, f"gateway: {gateway}\nredis: {{url: '${{APIGW_TEST_REDIS}}'}}\nservices: 7\n")
    assert str(admin_of(asked(tmp_path))) == address.format(directory=tmp_path)


@pytest.mark.parametrize(
    ("gateway", "sentence"),
    [
        ("{admin: null}", "the configuration has no admin listener (gateway.admin is null)"),
        ('{admin: "9090"}', "gateway.admin: '9090' is not an endpoint: write tcp:9090"),
        ('{admin: "${APIGW_TEST_ADMIN}"}', "gateway.admin is not known: correct this, or give --admin"),
        ("7", "gateway.admin is not known: correct this, or give --admin"),
        ("{", "gateway.admin is not known: correct this, or give --admin"),
    ],
)
def test_else_it_is_said_why_it_is_not(tmp_path: Path, gateway: str, sentence: str) -> None:
    """`--admin` is then what tells the address."""
    write(tmp_path, f"gateway: {gateway}\n")
    with pytest.raises(ValueError) as raised:
        admin_of(asked(tmp_path))
    assert str(raised.value) == sentence
    assert str(admin_of(asked(tmp_path, admin="127.0.0.1:9191"))) == "http://127.0.0.1:9191"


def test_a_default_in_place_of_a_variable_is_in_doubt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody answers there, as the gateway has the variable, and the shell has not."""
    write(tmp_path, 'gateway: {admin: "${APIGW_TEST_ADMIN:-tcp:1}"}\n')
    with pytest.raises(NotAnswered) as raised:
        admin_of(asked(tmp_path)).get("/status")
    assert str(raised.value).endswith(
        "refused; gateway.admin has APIGW_TEST_ADMIN, which is not set here: give --admin"
    )
    monkeypatch.setenv("APIGW_TEST_ADMIN", "tcp:1")
    with pytest.raises(NotAnswered, match=r"refused$"):
        admin_of(asked(tmp_path)).get("/status")


def test_the_token_is_beside_the_configuration(tmp_path: Path) -> None:
    """The file is named relative to the directory of the configuration; `--token-file` names another."""
    write(tmp_path, "gateway: {admin_token_file: token}\nredis: {url: '${APIGW_TEST_REDIS}'}\n")
    (tmp_path / "token").write_text("one of two\n")
    (tmp_path / "other").write_text("the other\n")
    assert token_of(asked(tmp_path)) == "one of two"
    assert token_of(asked(tmp_path, token_file=str(tmp_path / "other"))) == "the other"
    with pytest.raises(ValueError, match="give --token-file, or set "):
        token_of(asked(write(tmp_path, "gateway: {}\n")))
