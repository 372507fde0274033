"""The keys of fixed answers."""

from __future__ import annotations

from apigw.config.keys import Keys, Rule, item, lines, map_of, named, text, whole
from apigw.policy.respond.model import Respond, RespondOfRoute

RESPOND: Rule = {
    "status": whole("The status of the answer.", 200, 599),
    "body": lines("Its body, in UTF-8, without braces."),
    "content_type": text("The media type of the body.", "media type"),
    "headers": named("Its other headers, perhaps with [braces](rewriting.md#braces).", item("header value")),
}

OF_ROUTE: Rule = {
    "respond": map_of(
        "[The answer](rewriting.md#respond) to every request, in place of a `service`.",
        Respond,
        RESPOND,
        answers=True,
        like="{status: 404}",
        meant={**dict.fromkeys(("content", "message", "text"), "'body'"), "code": "'status'", "type": "'content_type'"},
    ),
}

KEYS = (Keys(("routes",), RespondOfRoute, OF_ROUTE),)
