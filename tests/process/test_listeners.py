"""What a listener needs of the file system."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from support.certificates import Authority
from support.pem import private_pem, self_signed
from support.turning import Turning

from apigw.config.errors import ConfigError
from apigw.config.model import Certificate, Config, Listen, ServerTLS
from apigw.process.listeners import listener


@pytest.mark.parametrize("missing", ["cert_file", "key_file"])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, missing: str) -> None:
    """As where only root reads a key, and the workers are no longer root."""
    Authority(tmp_path).issue("localhost", file="a")
    pair = Certificate(str(tmp_path / "a.crt"), str(tmp_path / "a.key"))
    pair = evolve(pair, **{missing: str(tmp_path / "nowhere")})
    listen = Listen("tcp:0", ServerTLS((pair,)))
    channels: Any = None
    with pytest.raises(ConfigError, match=r"has certificates that cannot be used: .* '.*/nowhere'"):
        listener(Turning(), Config(), listen, ("gateway", "listen", 0), channels)


def test_a_key_that_openssl_finds_too_small(tmp_path: Path) -> None:
    """`ee key too small`, says OpenSSL."""
    key = generate_private_key(65537, 1024)
    (tmp_path / "a.crt").write_bytes(self_signed(key, "localhost"))
    (tmp_path / "a.key").write_bytes(private_pem(key))
    listen = Listen("tcp:0", ServerTLS((Certificate(str(tmp_path / "a.crt"), str(tmp_path / "a.key")),)))
    channels: Any = None
    with pytest.raises(ConfigError, match="a key is too small: RSA needs 2048 bits"):
        listener(Turning(), Config(), listen, ("gateway", "listen", 0), channels)
