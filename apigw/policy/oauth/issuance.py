"""What the audit log has of the token endpoint."""

from __future__ import annotations

from collections.abc import Callable
from json import loads
from typing import Any

from apigw.ops.audit_log import Audit
from apigw.policy.auth.digest import token_digest
from apigw.policy.oauth.endpoint import TokenResponse
from apigw.wire.request import Request
from apigw.wire.web_request import WebRequest


class Issuance:
    """Notes each answer. ``address`` gives the client's, behind trusted proxies."""

    def __init__(self, audit: Audit, address: Callable[[Request], bytes]) -> None:
        self._audit = audit
        self._address = address

    def note(self, request: WebRequest, response: TokenResponse) -> None:
        facts: dict[str, Any] = {"client": response.client}
        if response.status == 200:
            body = loads(response.body)
            facts |= {"scope": body.get("scope"), "expires_in": body.get("expires_in")}
            facts["token"] = f"sha256:{token_digest(body['access_token'].encode())}"
        outcome = "issued" if response.status == 200 else response.error or str(response.status)
        by = self._address(request.request).decode("ascii", "replace")
        self._audit("token", outcome, by, **facts, request_id=request.identifier.decode("ascii", "replace"))
