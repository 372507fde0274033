"""The files that a configuration names, each read once, and the checks of those for TLS.

``ValueError`` has a sentence fragment that follows the name of the file: "is an empty file". It quotes no content.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

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
        raise ValueError("does not exist") from None
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from None


def text(data: bytes) -> bytes:
    """The secret in a file, without one newline at the end, which editors add."""
    stripped = data.removesuffix(b"\n").removesuffix(b"\r")
    if not stripped:
        raise ValueError("is an empty file")
    return stripped


def certificates(data: bytes) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(data)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ValueError(f"contains no readable PEM certificate{_but(data, b'PRIVATE KEY', 'a private key')}") from None


def private_key(data: bytes) -> Any:
    try:
        key = load_pem_private_key(data, None)
    except TypeError:
        raise ValueError(
            "contains a private key with a passphrase: it must have none; "
            "`openssl pkey -in FILE -out NEW` takes it away"
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError(f"contains no readable PEM private key{_but(data, b'CERTIFICATE', 'a certificate')}") from None
    _public(key)
    return key


def _but(data: bytes, other: bytes, called: str) -> str:
    """What a file has in place of what it should, as the end of a sentence."""
    if b"-----BEGIN " in data:
        return f", but {called}" if other + b"-----" in data else ""
    return ", but DER or PKCS #12, which openssl turns into PEM" if data.startswith(b"\x30") else ""


def fit(certificate_file: bytes, key_file: bytes) -> bool:
    """Whether the private key belongs to the first certificate."""
    return _public(certificates(certificate_file)[0]) == _public(private_key(key_file))


def _public(holder: Any) -> bytes:
    try:
        encoded: bytes = holder.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except UnsupportedAlgorithm:
        raise ValueError("contains a key of an unsupported kind") from None
    return encoded


CONTENTS: dict[str, Callable[[bytes], object]] = {
    "certificate": certificates,
    "private key": private_key,
    "password": text,
    "text": text,
}
"""Checks of a file's content, by the names in the schema. Other rooms add theirs by ``Rules.contents``."""

PRIVATE = frozenset({"private key", "password"})
"""Those of them that nobody else may read."""


class Files:
    """Contents of files, by names relative to ``directory``. Each is read once: what was checked is used.

    ``named`` are all whose content matters.
    """

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self.named: set[str] = set()
        self._read: dict[str, bytes | ValueError] = {}

    def absolute(self, name: str) -> str:
        return os.path.normpath(os.path.join(self._directory, name))

    def use(self, name: str) -> str:
        """The absolute name of a file whose content matters."""
        file = self.absolute(name)
        self.named.add(file)
        return file

    def exposed(self, name: str, private: bool) -> str | None:
        """What others may do with a file that should not, as the end of a sentence; ``None`` where that is nothing.

        ``private`` is what only its owner may read. The group may too where it is root's file: so a daemon that is not
        root reads what it cannot change.
        """
        try:
            status = os.stat(self.absolute(name))
        except OSError:
            return None
        mode = stat.S_IMODE(status.st_mode)
        if private and mode & (0o037 if status.st_uid == 0 else 0o077):
            return f"has the mode {mode:04o}, by which others than its owner can use it: `chmod 600` makes it private"
        if mode & 0o002:
            return f"has the mode {mode:04o}, by which everybody can change it: `chmod o-w` ends that"
        return None

    def data(self, name: str) -> bytes:
        """The content of a file. Raises ``ValueError`` if it cannot be read, the same one each time."""
        file = self.use(name)
        if file not in self._read:
            try:
                self._read[file] = read(file)
            except ValueError as error:
                self._read[file] = error
        found = self._read[file]
        if isinstance(found, ValueError):
            raise found
        return found
