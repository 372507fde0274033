"""The key that signs the gateway's own tokens, where it is generated and there are several workers."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest

from apigw.config.errors import ConfigError
from apigw.policy.oauth.model import OAuthSigning
from apigw.policy.oauth.signing import agree, load_signer
from apigw.shared.page import STRIPES, Page

SIGNING = OAuthSigning("RS256", "k1")


@pytest.fixture
def page() -> Iterator[Page]:
    page = Page.make(2)
    yield page
    page.close()


def test_all_workers_sign_with_one_generated_key(page: Page) -> None:
    """A token of one is a token of all; a key of another id is another key."""
    agreed = partial(agree, page.records)
    one, other = (load_signer(SIGNING, agree=agreed) for _ in range(2))
    assert one.key_id == other.key_id
    assert one.jwks() == other.jwks()
    assert load_signer(OAuthSigning("RS256", "k2"), agree=agreed).jwks() != one.jwks()
    assert load_signer(SIGNING).key_id != one.key_id


def test_the_key_that_was_generated_first_counts(page: Page) -> None:
    """Where two workers generate one at the same time."""

    def generate() -> bytes:
        return agree(page.records, "k1", lambda: b"first")

    assert agree(page.records, "k1", generate) == b"first"
    assert agree(page.records, "k1", lambda: b"second") == b"first"


def test_a_key_that_cannot_be_had_is_a_problem_of_the_configuration(page: Page) -> None:
    """The worker is not one of several gateways with keys of their own."""
    page.locks.take(STRIPES)
    with pytest.raises(ConfigError, match="try again"):
        load_signer(SIGNING, agree=partial(agree, page.records))
