"""The fields that a plugin writes."""

from __future__ import annotations

from apigw.contract.fields import Names


def test_secrets_are_not_remembered() -> None:
    """A value that is set again is made once; that of a secret stays no longer than its request."""
    names = Names(frozenset(), frozenset())
    assert names.value(b"x-tenant", "acme") is names.value(b"x-tenant", "acme")
    assert names.value(b"authorization", "Bearer s3cret") == b"Bearer s3cret"
    assert names.value(b"authorization", "Bearer s3cret") is not names.value(b"authorization", "Bearer s3cret")
