"""Files that others can read or change: a warning where they hold what others must not have, or could replace."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from apigw.config.errors import ConfigError
from apigw.config.load import load
from apigw.process.rules import RULES

Write = Callable[[Mapping[str, str | bytes]], str]

EVERY_FILE = """\
gateway:
  admin_token_file: long
  listen: [{endpoint: "tcp:8443", tls: {certificates: [{cert_file: rsa.pem, key_file: rsa.key}]}}]
redis: {url: "rediss://a", password_file: long, ca_file: rsa.pem}
services: {a: {targets: [https://a], tls: {ca_file: rsa.pem, client_cert_file: rsa.pem, client_key_file: rsa.key}}}
routes: [{path: /a, service: a, providers: [rs]}]
auth:
  jwt:
    - {name: rs, algorithm: RS256, public_key_file: rsa.pub, issuer: rs}
    - {name: hs, algorithm: HS256, secret_file: long, issuer: hs}
    - {name: set, algorithm: RS256, jwks_file: jwks.json, issuer: set}
    - {name: secrets, algorithm: HS256, jwks_file: secrets.json, issuer: secrets}
  oauth:
    issuer: me
    signing: {algorithm: RS256, key_id: k, private_key_file: rsa.key, accepted: [{key_id: l, public_key_file: rsa.pub}]}
"""
SECRETS = '{"keys": [{"kty": "oct", "k": "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY"}]}'
PRIVATE = {
    "gateway.admin_token_file",
    "gateway.listen[0].tls.certificates[0].key_file",
    "redis.password_file",
    "services.a.tls.client_key_file",
    "auth.jwt[1].secret_file",
    "auth.jwt[3].jwks_file",
    "auth.oauth.signing.private_key_file",
}
PUBLIC = {
    "gateway.listen[0].tls.certificates[0].cert_file",
    "redis.ca_file",
    "services.a.tls.ca_file",
    "services.a.tls.client_cert_file",
    "auth.jwt[0].public_key_file",
    "auth.jwt[2].jwks_file",
    "auth.oauth.signing.accepted[0].public_key_file",
}


def warned(directory: str) -> dict[str, str]:
    """What is said of each key that names a file."""
    said = [str(warning).split(": ", 2) for warning in load(directory, {}, RULES).warnings]
    return {path: sentence for _, path, sentence in said}


@pytest.mark.parametrize(
    ("mode", "keys", "says"),
    [
        (0o600, set(), ""),
        (0o400, set(), ""),
        (0o644, PRIVATE, "has the mode 0644, by which others than its owner can use it"),
        (0o604, PRIVATE, "has the mode 0604"),
        (0o620, PRIVATE, "has the mode 0620"),
        (0o666, PRIVATE | PUBLIC, "has the mode 0666, by which"),
        (0o602, PRIVATE | PUBLIC, "has the mode 0602"),
    ],
)
def test_files_that_others_can_use_are_named(
    write: Write, key_files: Mapping[str, str | bytes], mode: int, keys: set[str], says: str
) -> None:
    """Each at its key, with its mode, and what would be right; nothing of what is in it."""
    directory = write({**key_files, "secrets.json": SECRETS, "a.yaml": EVERY_FILE})
    for file in Path(directory).iterdir():
        if file.suffix != ".yaml":
            file.chmod(mode)
    said = warned(directory)
    assert set(said) == keys
    for key, sentence in said.items():
        assert says in sentence
        assert ("chmod 600" in sentence) == (key in PRIVATE)
        assert "0123456789" not in sentence


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_the_group_may_read_what_is_roots(write: Write, key_files: Mapping[str, str | bytes]) -> None:
    """So a daemon that is not root reads a key that it cannot change; what is the daemon's own is its own alone."""
    directory = write({**key_files, "secrets.json": SECRETS, "a.yaml": EVERY_FILE})
    for file in Path(directory).iterdir():
        file.chmod(0o640)
    assert warned(directory) == {}
    for file in Path(directory).iterdir():
        os.chown(file, 12345, -1)
    assert set(warned(directory)) == PRIVATE


@pytest.mark.parametrize(
    ("keys", "warns"),
    [("", True), ("issuer: me", False), ("audience: [me]", False), ("issuer: me, audience: [me]", False)],
)
def test_a_verifier_that_takes_every_token_of_its_key_is_named(write: Write, keys: str, warns: bool) -> None:
    """Neither an issuer nor an audience: what was issued to anybody for anything is taken."""
    text = f"auth: {{jwt: [{{name: a, algorithm: RS256, jwks_url: 'https://id/jwks', {keys}}}]}}\n"
    said = [str(warning) for warning in load(write({"a.yaml": text}), {}, RULES).warnings]
    assert len(said) == warns
    for sentence in said:
        assert sentence.startswith("etc/a.yaml:1:14: auth.jwt[0]: accepts every token that its key has signed")


@pytest.mark.parametrize(
    ("secret", "good"),
    [
        ("a" * 44, False),
        ("abcde" * 9, False),
        ("abcdef" * 6, True),
        ("01234567890123456789012345678901", True),
        ("0123456789abcdef" * 2, True),
    ],
)
@pytest.mark.parametrize("by_file", [False, True])
def test_a_secret_of_a_few_bytes_is_refused(write: Write, secret: str, good: bool, by_file: bool) -> None:
    """It is long enough and can be guessed; nothing of it is said."""
    given = "secret_file: its.key" if by_file else f"secret: '{secret}'"
    text = f"auth: {{jwt: [{{name: a, algorithm: HS256, {given}, issuer: x}}]}}\n"
    directory = write({"a.yaml": text, "its.key": secret})
    if good:
        load(directory, {}, RULES)
        return
    with pytest.raises(ConfigError, match="few different bytes") as caught:
        load(directory, {}, RULES)
    assert secret not in str(caught.value)
