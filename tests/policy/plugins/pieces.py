"""Plugins that change each piece of a request's body, and not how many there are."""

from __future__ import annotations

from typing import Any, ClassVar

from apigw.plugin import View


class Upper:
    name = "upper"
    schema: ClassVar[dict[str, Any]] = {}

    def on_request_body(self, view: View, data: bytes, last: bool) -> bytes:
        return data.upper()


class Numbered:
    """Puts a number in place of each piece of a body."""

    name = "numbered"
    schema: ClassVar[dict[str, Any]] = {}

    def on_request_body(self, view: View, data: bytes, last: bool) -> bytes:
        number = view.state["number"] = view.state.get("number", 0) + 1
        return b"%d " % number
