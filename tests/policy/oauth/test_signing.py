"""The key that signs the gateway's own tokens, where it is generated and there are several workers."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from apigw.config.errors import ConfigError
from apigw.config.model import Secret
from apigw.policy.oauth.model import OAuthSigning
from apigw.policy.oauth.signing import agree, generate_for_all, load_signer
from apigw.shared.locks import STRUCTURE
from apigw.shared.page import STRIPES, Page

SIGNING = OAuthSigning("RS256", "k1")


@pytest.fixture
def page() -> Iterator[Page]:
    page = Page.make(2)
    yield page
    page.close()


def test_all_workers_sign_with_one_generated_key(page: Page) -> None:
    """A token of one is a token of all; a key of another id is another key."""
    agreed = partial(agree, page.keys)
    one, other = (load_signer(SIGNING, agree=agreed) for _ in range(2))
    assert one.key_id == other.key_id
    assert one.jwks() == other.jwks()
    assert load_signer(OAuthSigning("RS256", "k2"), agree=agreed).jwks() != one.jwks()
    assert load_signer(SIGNING).key_id != one.key_id


def test_a_reload_keeps_the_key_of_its_id_alone(page: Page) -> None:
    """A worker that starts later has the key of the new id: it must be that of all."""
    agreed = partial(agree, page.keys)
    before = load_signer(OAuthSigning("RS256", "k1-2"), agree=agreed)
    assert load_signer(OAuthSigning("RS256", "k1-2"), previous=before).jwks() == before.jwks()
    after = load_signer(SIGNING, previous=before, agree=agreed)
    assert after.jwks() == load_signer(SIGNING, agree=agreed).jwks() != before.jwks()


def test_workers_find_the_key_that_their_master_has_generated(page: Page) -> None:
    """None of them generates one at its start, which takes a tenth of a second and memory of its own."""

    def found(key_id: str, _: Callable[[], bytes]) -> bytes:
        return agree(page.keys, key_id, pytest.fail)

    generate_for_all(SIGNING, page.keys)
    one, other = (load_signer(SIGNING, agree=found) for _ in range(2))
    assert one.jwks() == other.jwks()


def test_a_key_that_is_given_is_not_generated(page: Page) -> None:
    generate_for_all(OAuthSigning("HS256", "k1", secret=Secret(b"s" * 32)), page.keys)
    assert agree(page.keys, "k1", lambda: b"other") == b"other"


def test_the_key_that_was_generated_first_counts(page: Page) -> None:
    """Where two workers generate one at the same time."""

    def generate() -> bytes:
        return agree(page.keys, "k1", lambda: b"first")

    assert agree(page.keys, "k1", generate) == b"first"
    assert agree(page.keys, "k1", lambda: b"second") == b"first"


def test_a_worker_that_dies_takes_no_key_with_it(page: Page) -> None:
    """Though it was writing a refresh token: the one in its place signs as the others do."""
    agreed = partial(agree, page.keys)
    one = load_signer(SIGNING, agree=agreed)
    page.become(1, os.getpid())
    for lock in range(STRIPES + 1):
        page.locks.take(lock)
        page.locks.writes(lock, STRUCTURE)
    page.died(1)
    page.become(1, os.getpid())
    assert load_signer(SIGNING, agree=agreed).jwks() == one.jwks()


def test_a_worker_that_dies_while_it_writes_the_key(page: Page) -> None:
    """Nothing half-written is left, and the next can be stored."""
    page.become(1, os.getpid())
    agree(page.keys, "k1", lambda: b"lost")
    page.locks.take(STRIPES + 1)
    page.locks.writes(STRIPES + 1, STRUCTURE)
    page.died(1)
    assert agree(page.keys, "k1", lambda: b"next") == b"next"


def test_a_key_that_cannot_be_had_is_a_problem_of_the_configuration(page: Page) -> None:
    """The worker is not one of several gateways with keys of their own."""
    page.locks.take(STRIPES + 1)
    with pytest.raises(ConfigError, match="try again"):
        load_signer(SIGNING, agree=partial(agree, page.keys))
