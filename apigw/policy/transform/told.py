"""What becomes of a request's path, for ``apigw routes``."""

from __future__ import annotations

from apigw.config.model import Route
from apigw.policy.transform.model import transform_of
from apigw.policy.transform.syntax import PARAM, parse
from apigw.policy.transform.template import place
from apigw.routing.pattern import Pattern


def sent_as(route: Route, path: bytes, query: bytes) -> str:
    """Path and query that the service gets; names in braces stand for what depends on the rest of the request."""
    rewrite = transform_of(route).rewrite
    if rewrite is not None and rewrite.path is not None:
        written = filled(rewrite.path, route, path, query)
        return written if "?" in rewrite.path else written + query.decode("ascii")
    prefix = (route.strip_prefix or "").strip("/")
    if prefix:
        path = b"/" + b"/".join(path.split(b"/")[prefix.count("/") + 2 :])
    return (path + query).decode("ascii")


def filled(text: str, route: Route, path: bytes, query: bytes) -> str:
    """A value whose braces are replaced where they name a part of path or query."""
    written = ""
    for part in parse(text):
        if isinstance(part, str):
            written += part
        elif part.text.startswith(PARAM):
            at, on = place(part.text, Pattern.parse(route.path))
            written += path.decode("ascii").split("/", at if on else -1)[at]
        elif part.text in ("path", "query"):
            written += (path if part.text == "path" else query[1:]).decode("ascii")
        else:
            written += f"{{{part.text}}}"
    return written
