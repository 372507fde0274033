"""What tests of tokens share."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from apigw.policy.auth.jwt.keys import Key


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> list[Key]:
    """Each key that was tried for a signature."""
    tried: list[Key] = []
    verifies: Callable[[Key, str, bytes, bytes], bool] = Key.verifies

    def trying(self: Key, algorithm: str, signed: bytes, signature: bytes) -> bool:
        tried.append(self)
        return verifies(self, algorithm, signed, signature)

    monkeypatch.setattr(Key, "verifies", trying)
    return tried
