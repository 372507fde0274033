"""Plugins whose metrics and refusals are careless."""

from __future__ import annotations

from typing import Any, ClassVar

from apigw.plugin import Context, Refusal, View


def raises() -> float:
    raise SystemExit(3)


class Metered:
    """Counts by what a client says. ``broken`` raises when it is shown."""

    name = "metered"
    schema: ClassVar[dict[str, Any]] = {}

    def prepare(self, config: dict[str, Any], context: Context) -> None:
        self.tenants = context.counter("tenants", "By their name.", ["tenant"])
        context.gauge("broken", "Broken.").set_function(raises)

    def on_request(self, view: View) -> None:
        tenant = view.query.get("tenant", ["none"])[0]
        self.tenants.labels(tenant).inc(1, {"name": tenant})


class Once:
    """Has one error for all requests, and one for all answers."""

    name = "once"
    schema: ClassVar[dict[str, Any]] = {}
    refusal = Refusal(403, "No.")
    mistake = ValueError("broken")

    def on_request(self, view: View) -> None:
        if view.path == "/refused":
            raise self.refusal

    async def on_forward(self, view: View) -> None:
        if view.path == "/forward":
            raise self.refusal

    def on_request_body(self, view: View, data: bytes, last: bool) -> None:
        raise self.refusal

    def on_answer(self, view: View) -> None:
        if view.path == "/answer":
            raise self.mistake
