"""Client secrets: how they are stored, and where they are hashed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apigw.policy.auth.secrets import (
    SecretHash,
    hash_generated,
    hash_secret,
    new_secret,
)

CHOSEN = "correct+horse/battery=staple"


def test_a_stored_secret_matches_itself_alone() -> None:
    """A client's secret is refused, or another one taken."""
    generated = new_secret()
    for secret, stored in ((generated, hash_generated(generated)), (CHOSEN, hash_secret(CHOSEN))):
        assert secret not in stored
        assert "$$" not in stored
        assert "${" not in stored
        parsed = SecretHash.parse(stored)
        assert parsed.matches(secret)
        assert not parsed.matches(secret + "x")
        assert not parsed.matches("")
        assert parsed.digest.hex() not in repr(parsed)
    assert hash_secret(CHOSEN) != hash_secret(CHOSEN)
    assert len({new_secret() for _ in range(10)}) == 10


@pytest.mark.parametrize(
    ("secret", "sentence"),
    [
        ("short", "at least 16"),
        ("x" * 257, "at most 256"),
        ("with spaces in between", "printable ASCII"),
        ("hundred%percent%safe", "printable ASCII"),
        ("gar-nicht-übel-oder", "printable ASCII"),
        ("a-newline-at-the-end\n", "printable ASCII"),
        ("aaaaaaaaaaaaaaaabbbb", "6 different"),
    ],
)
def test_a_poor_secret_is_refused(secret: str, sentence: str) -> None:
    """Somebody protects a partner's access with a secret that can be guessed, or that no client can send."""
    with pytest.raises(ValueError, match=sentence) as caught:
        hash_secret(secret)
    assert secret not in str(caught.value)


SALT, DIGEST = "A" * 22, "A" * 43


@pytest.mark.parametrize(
    "stored",
    [
        "",
        "plain text secret",
        "sha256$abc",
        "sha256$" + "G" * 64,
        "sha256$" + "0" * 64 + "\n",
        "md5$" + "0" * 32,
        f"scrypt$1024$8$1${SALT}${DIGEST}",
        f"scrypt$16384$1$1${SALT}${DIGEST}",
        f"scrypt$16384$8$0${SALT}${DIGEST}",
        f"scrypt$16385$8$1${SALT}${DIGEST}",
        f"scrypt$1048576$8$1${SALT}${DIGEST}",
        f"scrypt$16384$8$9${SALT}${DIGEST}",
        f"scrypt$16384$8$1$AA${DIGEST}",
        f"scrypt$16384$8$1${SALT}$AA",
    ],
)
def test_a_hash_that_is_none_or_weak_is_refused(stored: str) -> None:
    """A plain secret in the configuration, or parameters that cost nothing or a minute, are found out too late."""
    with pytest.raises(ValueError, match=r"is not a hash|too weak or too costly"):
        SecretHash.parse(stored)


@given(st.text(max_size=200))
def test_parsing_never_breaks(stored: str) -> None:
    """A typing error in the configuration becomes a traceback."""
    with pytest.raises(ValueError, match=r"is not a hash|too weak or too costly"):
        SecretHash.parse(stored)
