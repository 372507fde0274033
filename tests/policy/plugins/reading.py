"""Plugins that say what they see of a request, and that write at several positions."""

from __future__ import annotations

from json import dumps
from typing import Any, ClassVar

from apigw.plugin import Context, Refusal, View


class Seeing:
    """Answers with the headers that it sees."""

    name = "seeing"
    schema: ClassVar[dict[str, Any]] = {}

    def on_request(self, view: View) -> Any:
        if view.path == "/on":
            return None
        return view.respond(200, {}, dumps([view.request.items(), view.request.get("X-Own"), view.client, view.scheme]))


class Owning:
    """Sets headers that only it may set, as if the client had, before authentication."""

    name = "owning"
    schema: ClassVar[dict[str, Any]] = {}
    position = "before_auth"
    own_headers = ("X-Own",)

    def on_request(self, view: View) -> None:
        if "set" in view.query:
            view.request.set("X-Own", "mine")
        if "token" in view.query:
            view.request.set("Authorization", f"Bearer {view.query['token'][0]}")

    def on_forward(self, view: View) -> None:
        view.request.remove("X-Forwarded-For")


class Ordered:
    """Notes the order of plugins."""

    name = "ordered"
    schema: ClassVar[dict[str, Any]] = {"mark": {"type": "string", "required": True}}

    def prepare(self, config: Any, context: Any) -> None:
        self.mark = config["mark"]

    def on_request(self, view: View) -> None:
        view.request.set("X-Order", (view.request.get("X-Order") or "") + self.mark)


class Telling:
    """Refuses every request, and tells of what type its body is."""

    name = "telling"
    schema: ClassVar[dict[str, Any]] = {}

    def on_request(self, view: View) -> None:
        raise Refusal(422, "No.", "wrong", members={"errors": [{"is": view.request.media_type.name}]})


class Late:
    """Sets headers for the service alone, and says what the plugin before it has set."""

    name = "late"
    schema: ClassVar[dict[str, Any]] = {"mark": {"type": "string"}}

    def prepare(self, config: dict[str, Any], context: Context) -> None:
        self.mark = config["mark"]

    def on_request(self, view: View) -> None:
        seen = view.request.all("X-Late")
        view.request.set("X-Late", self.mark)
        if self.mark == "b":
            view.request.set("X-Seen", ",".join(seen))
        view.request.set("X-Late-Too", self.mark)
