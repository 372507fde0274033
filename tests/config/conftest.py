from __future__ import annotations

import datetime
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from joserfc.jwk import RSAKey

Write = Callable[[dict[str, str | bytes]], str]
PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


def _private(key: PrivateKey, encryption: KeySerializationEncryption | None = None) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption or NoEncryption())


def _public(key: PrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def _certificate(key: PrivateKey) -> bytes:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "gateway.example.com")])
    start = datetime.datetime(2020, 1, 1)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, start, start.replace(year=2120))
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)


@pytest.fixture(scope="session")
def key_files() -> dict[str, str | bytes]:
    """Keys and certificates, good ones and others, by file name."""
    good, small = (rsa.generate_private_key(65537, bits) for bits in (2048, 1024))
    curve = ec.generate_private_key(ec.SECP256R1())
    return {
        "rsa.key": _private(good),
        "rsa.pub": _public(good),
        "rsa.pem": _certificate(good),
        "other.key": _private(curve),
        "locked.key": _private(good, BestAvailableEncryption(b"open sesame")),
        "small.key": _private(small),
        "small.pub": _public(small),
        "ec.pub": _public(curve),
        "garbage": "-----BEGIN CERTIFICATE-----\nno\n",
        "empty": "\n",
        "empty.json": '{"keys": []}',
        "jwks.json": json.dumps({"keys": [{**RSAKey.import_key(_public(good)).as_dict(), "kid": "a"}]}),
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
