"""What files that the configuration names must hold: certificates, keys, key sets, secrets.

Every function takes the bytes of a file and raises ``ValueError`` with what is wrong, as the end of a sentence that
begins with the file's name. None of the sentences quotes what the file holds.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

MIN_RSA_BITS = 2048
MIN_SECRET_BYTES = 32
MAX_FILE = 4 * 1024 * 1024


def read(file: str) -> bytes:
    try:
        status = os.stat(file)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("is not a regular file")
        if status.st_size > MAX_FILE:
            raise ValueError(f"is larger than {MAX_FILE >> 20}MiB")
        with open(file, "rb") as stream:
            return stream.read(MAX_FILE + 1)
    except FileNotFoundError:
        raise ValueError("is a file that does not exist") from None
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from None


def certificates(data: bytes) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(data)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ValueError("holds no certificate in PEM that can be read") from None


def private_key(data: bytes) -> bytes:
    """The public half, for comparison."""
    return _spki(_private_key(data))


def rsa_private_key(data: bytes) -> None:
    key = _private_key(data)
    if not isinstance(key, RSAPrivateKey):
        raise ValueError("holds a private key that is not RSA, which RS256 needs")
    if key.key_size < MIN_RSA_BITS:
        raise ValueError(f"holds an RSA key of {key.key_size} bits: RS256 needs {MIN_RSA_BITS} or more (RFC 7518 §3.3)")


def rsa_public_key(data: bytes) -> None:
    if b"PRIVATE KEY-----" in data:
        raise ValueError("holds a private key: the gateway needs only the public one, and should have no other")
    if b"BEGIN CERTIFICATE" in data:
        raise ValueError("holds a certificate: write its public key out with `openssl x509 -pubkey -noout`")
    try:
        key = load_pem_public_key(data)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ValueError("holds no public key in PEM that can be read") from None
    if not isinstance(key, RSAPublicKey):
        raise ValueError("holds a public key that is not RSA, which RS256 needs")
    if key.key_size < MIN_RSA_BITS:
        raise ValueError(f"holds an RSA key of {key.key_size} bits: RS256 needs {MIN_RSA_BITS} or more (RFC 7518 §3.3)")


def matches(certificate_file: bytes, key_file: bytes) -> bool:
    """Whether the key is that of the first certificate."""
    return _spki(certificates(certificate_file)[0]) == private_key(key_file)


def key_set(data: bytes) -> None:
    """RFC 7517 §5, as far as that there are keys in it."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        raise ValueError("holds no JSON") from None
    keys = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(keys, list) or not keys or not all(isinstance(key, dict) and "kty" in key for key in keys):
        raise ValueError('holds no key set: a JSON object with a list "keys" that has at least one key')


def text(data: bytes) -> bytes:
    """One secret in a file, without the newline that editors put at its end."""
    stripped = data.removesuffix(b"\n").removesuffix(b"\r")
    if not stripped:
        raise ValueError("is an empty file")
    return stripped


def hmac_secret(secret: bytes) -> bytes:
    """RFC 7518 §3.2: at least as long as the hash. A PEM key here is the classic confusion of algorithms."""
    if b"-----BEGIN" in secret or secret.startswith((b"ssh-", b"ecdsa-")):
        raise ValueError("is a key in PEM or OpenSSH form, not a secret: anybody may have the public half of it")
    if len(secret) < MIN_SECRET_BYTES:
        raise ValueError(f"is a secret of {len(secret)} bytes: HS256 needs {MIN_SECRET_BYTES} or more (RFC 7518 §3.2)")
    return secret


def _secret_file(data: bytes) -> bytes:
    return hmac_secret(text(data))


CONTENTS: dict[str, Callable[[bytes], object]] = {
    "certificate": certificates,
    "private key": private_key,
    "public key": rsa_public_key,
    "key set": key_set,
    "secret": _secret_file,
    "text": text,
}


def _private_key(data: bytes) -> object:
    try:
        return load_pem_private_key(data, None)
    except TypeError:
        raise ValueError("holds a private key with a passphrase: nobody is there to type it") from None
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError("holds no private key in PEM that can be read") from None


def _spki(holder: Any) -> bytes:
    try:
        encoded: bytes = holder.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except UnsupportedAlgorithm:
        raise ValueError("holds a key of a kind that is not supported") from None
    return encoded


class Files:
    """The files that a configuration names, each read once, so that what was checked is what is used."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._read: dict[str, bytes | ValueError] = {}

    def absolute(self, name: str) -> str:
        return os.path.normpath(os.path.join(self._directory, name))

    def data(self, name: str) -> bytes:
        """Raises ``ValueError``, the same each time, when the file cannot be read."""
        file = self.absolute(name)
        if file not in self._read:
            try:
                self._read[file] = read(file)
            except ValueError as error:
                self._read[file] = error
        found = self._read[file]
        if isinstance(found, ValueError):
            raise found
        return found
