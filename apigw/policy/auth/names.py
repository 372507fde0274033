"""Checks of roles, scopes and names of claims in the configuration.

Each raises ``ValueError`` with a sentence fragment that follows the text.
"""

from __future__ import annotations

import re

from apigw.policy.auth.jwt.claims import MAX_ID, is_role

_SCOPE = re.compile(r"[!#-\[\]-~]+")


def check_role(text: str) -> None:
    """A role. It has no commas, because services get all roles in one header, separated by commas."""
    if not is_role(text):
        raise ValueError(f"is not a role: up to {MAX_ID} printable characters without commas, and no space at its ends")


def check_scope(text: str) -> None:
    """A scope (RFC 6749 §3.3)."""
    if not _SCOPE.fullmatch(text):
        raise ValueError("is not a scope: one or more printable ASCII characters without space, quote and backslash")


def check_claim(text: str) -> None:
    """The name of a claim, or a path of nested ones with dots."""
    if not text.isprintable() or not all(text.split(".")) or len(text) > 200:
        raise ValueError("is not a claim's name, or names with dots between them")
