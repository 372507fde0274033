"""What tests of tokens share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from apigw.policy.auth.keys import Key


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> list[Key]:
    """Each key that was tried for a signature."""
    tried: list[Key] = []
    verifies: Callable[[Key, Any], bool] = Key.verifies

    def trying(self: Key, token: Any) -> bool:
        tried.append(self)
        return verifies(self, token)

    monkeypatch.setattr(Key, "verifies", trying)
    return tried
