# Compiled: see docs/decisions/compiled.md
"""The authenticated caller, as a policy that a user wrote sees it."""

from __future__ import annotations

from typing import Any, cast, final

from apigw.contract.principal import Principal


@final
class Caller:
    """The authenticated caller. ``claims`` are a copy of what is known of it."""

    def __init__(self, principal: Principal) -> None:
        self._principal = principal
        self.id = principal.id
        self.provider = principal.provider
        self.roles = principal.roles
        self.scopes = principal.scopes

    @property
    def claims(self) -> dict[str, Any]:
        """Made anew at each access: the principal is shared by all exchanges with its token."""
        return cast("dict[str, Any]", _copied(self._principal.claims))


def _copied(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copied(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_copied(entry) for entry in value]
    return value
