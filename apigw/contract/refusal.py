"""The error by which a policy that a user wrote refuses a request."""

from __future__ import annotations

import re
from collections.abc import Mapping
from json import dumps
from typing import Any

from apigw.contract.fields import Names, checked
from apigw.errors import OWN_MEMBERS, PolicyRefused
from apigw.wire.request import reason_of

_CODE = re.compile(r"[a-z][a-z0-9_]{0,63}").fullmatch


class Refusal(PolicyRefused):
    """Answers with a problem document. Raise it from a method that may refuse.

    Raises ``ValueError`` for a status that is not 400 to 599, a code that is not in ``snake_case``, headers that cannot
    be sent, and ``members`` that the document has already; ``TypeError`` for those that are no JSON. They are encoded
    at once: what changes later is not sent.
    """

    def __init__(
        self,
        status: int,
        detail: str = "",
        code: str = "refused",
        headers: Mapping[str, str | bytes] | None = None,
        members: Mapping[str, Any] | None = None,
    ) -> None:
        if type(status) is not int or not 400 <= status <= 599:
            raise ValueError(f"{status!r} is not a status of a refusal, which are 400 to 599")
        if not isinstance(code, str) or not _CODE(code):
            raise ValueError(f"{code!r} is not a code: lower-case letters, digits and _")
        if not isinstance(detail, str):
            raise TypeError(f"the detail is text, not {type(detail).__name__}")
        fields = checked(Names(frozenset(), frozenset()), headers or {})
        further = dict(members or {})
        if not OWN_MEMBERS.isdisjoint(further):
            raise ValueError(f"{', '.join(sorted(OWN_MEMBERS & further.keys()))} of the document is not to be replaced")
        if not all(isinstance(name, str) for name in further):
            raise TypeError("the names of members are text")
        # Here, where the plugin is told what is wrong. Later they may have changed, and be too deep for a deeper stack.
        encoded = dumps(further, allow_nan=False)[1:-1]
        super().__init__(status, reason_of(status).decode("ascii"), detail, code, fields, encoded)
