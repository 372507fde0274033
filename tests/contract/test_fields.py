"""The fields that a plugin writes."""

from __future__ import annotations

from apigw.contract.fields import Names


def test_secrets_are_not_remembered() -> None:
    """A value that is set again is made once; that of a secret stays no longer than its request."""
    names = Names(frozenset(), frozenset())
    tenant, secret = names.of("X-Tenant"), names.of("Authorization")
    assert tenant.field("acme") is tenant.field("acme")
    assert secret.field("Bearer s3cret") == ((b"authorization", b"Bearer s3cret"),)
    assert secret.field("Bearer s3cret") is not secret.field("Bearer s3cret")
