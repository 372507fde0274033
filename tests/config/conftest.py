from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption
from joserfc.jwk import RSAKey
from support.pem import private_pem, public_pem, self_signed

Write = Callable[[dict[str, str | bytes]], str]


@pytest.fixture(scope="session")
def key_files() -> dict[str, str | bytes]:
    """Keys and certificates, good ones and others, by file name."""
    good, small = (rsa.generate_private_key(65537, bits) for bits in (2048, 1024))
    curve = ec.generate_private_key(ec.SECP256R1())
    return {
        "rsa.key": private_pem(good),
        "rsa.pub": public_pem(good),
        "rsa.pem": self_signed(good, "gateway.example.com"),
        "rsa.der": b"\x30\x82\x03\x0b\x30\x82",
        "other.key": private_pem(curve),
        "locked.key": private_pem(good, BestAvailableEncryption(b"open sesame")),
        "small.key": private_pem(small),
        "small.pub": public_pem(small),
        "ec.pub": public_pem(curve),
        "garbage": "-----BEGIN CERTIFICATE-----\nno\n",
        "empty": "\n",
        "ops.htpasswd": f"ops:sha256${64 * '0'}\n",
        "partners.keys": f"{64 * '0'}\tacme\t\t\t\n",
        "empty.json": '{"keys": []}',
        "jwks.json": json.dumps({"keys": [{**RSAKey.import_key(public_pem(good)).as_dict(), "kid": "a"}]}),
        "short": "hunter2\n",
        "long": "0123456789abcdef0123456789abcdef\n",
    }


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes files below ``etc`` and makes its parent the current directory; returns ``etc``."""
    monkeypatch.chdir(tmp_path)

    def put(files: dict[str, str | bytes]) -> str:
        for name, text in files.items():
            path = tmp_path / "etc" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text.encode() if isinstance(text, str) else text)
            path.chmod(0o600)
        return "etc"

    return put
