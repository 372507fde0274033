"""A configuration crosses from one process to another as it is, in pieces."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from apigw.config.load import load
from apigw.config.model import Config
from apigw.process.handover import PIECE, pack, unpack, without_details
from apigw.process.pieces import at_once
from apigw.process.rules import RULES


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """With more routes than are sent in one piece, keys of every policy, a secret, and a warning."""
    routes = [{"path": f"/{number}", "service": "main", "roles": ["user"]} for number in range(3 * PIECE)]
    document = {
        "gateway": {"listen": ["tcp:0"], "access_log": None},
        "services": {"main": {"targets": ["https://127.0.0.1:9"], "tls": {"server_name": "a.example"}}},
        "auth": {"jwt": [{"name": "a", "algorithm": "HS256", "secret": "0123456789abcdef0123456789abcdef"}]},
        "rate_limits": [{"endpoint": "/none", "limit": 1, "window": "1s", "scope": "ip"}],
        "routes": [*routes, {"path": "/cors", "service": "main", "cors": {"origins": ["*"]}}],
    }
    (tmp_path / "gateway.yaml").write_text(json.dumps(document))
    return load(str(tmp_path), {}, RULES)


def test_it_arrives_as_it_was_sent(config: Config) -> None:
    """But for the places of single values of routes and services."""
    handed = pack(config)
    assert handed.routes == len(config.routes)
    arrived = at_once(unpack(handed.data))
    assert arrived == config
    assert arrived.warnings == config.warnings != ()
    assert arrived.reserved == config.reserved
    assert arrived.origins == without_details(config).origins
    assert arrived.origins[("auth", "jwt", 0, "secret")] == config.origins[("auth", "jwt", 0, "secret")]
    assert ("services", "main") in arrived.origins
    assert not any(path[0] == "routes" for path in arrived.origins)


def test_a_long_tuple_comes_in_pieces(config: Config) -> None:
    """None of which has more than ``PIECE`` routes."""
    few, many = (len(list(unpack(pack(each).data))) for each in (Config(), config))
    assert many >= few + len(config.routes) // PIECE
