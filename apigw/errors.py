"""What the gateway itself answers when it does not forward: one family, one level deep, rendered by one function.

The body is a problem document (RFC 9457). ``detail`` is written by us for the caller: it never holds a traceback,
the address of an upstream, or anything out of a token.
"""

from __future__ import annotations

from collections.abc import Iterable
from json import dumps
from typing import ClassVar

Headers = list[tuple[bytes, bytes]]

PROBLEM_JSON = b"application/problem+json"


class GatewayError(Exception):
    """An exchange that ends here. Subclasses fix ``status``, ``code`` and ``title``; ``headers`` go out with it."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal_error"
    title: ClassVar[str] = "Internal Server Error"
    reason: str | None = None
    """Labels the metric of failed authentication, where it is one."""
    cause: str = ""
    """What the operator is told, and the client is not."""
    reset: int | None = None
    """The code with which the service has reset its HTTP/2 stream, if it has."""
    members: str = ""
    """Further members of the problem document (RFC 9457 §3.2): a JSON object without its braces."""

    def __init__(self, detail: str = "", headers: Iterable[tuple[bytes, bytes]] = ()) -> None:
        super().__init__(detail)
        self.detail = detail
        self.headers: Headers = list(headers)


class BadRequest(GatewayError):
    status, code, title = 400, "bad_request", "Bad Request"


class Unauthorized(GatewayError):
    """RFC 6750 §3: the ``WWW-Authenticate`` challenge travels in ``headers``; ``reason`` labels the metric."""

    status, code, title = 401, "unauthorized", "Unauthorized"

    def __init__(self, detail: str = "", headers: Iterable[tuple[bytes, bytes]] = (), reason: str = "missing") -> None:
        super().__init__(detail, headers)
        self.reason = reason


class Forbidden(GatewayError):
    status, code, title = 403, "insufficient_scope", "Forbidden"

    def __init__(self, detail: str = "", headers: Iterable[tuple[bytes, bytes]] = (), reason: str = "role") -> None:
        super().__init__(detail, headers)
        self.reason = reason


class AddressDenied(GatewayError):
    status, code, title = 403, "address_denied", "Forbidden"


class Denied(GatewayError):
    status, code, title = 403, "denied", "Forbidden"


class ReadOnly(GatewayError):
    status, code, title = 403, "read_only", "Forbidden"


class NotFound(GatewayError):
    status, code, title = 404, "not_found", "Not Found"


class MethodNotAllowed(GatewayError):
    """RFC 9110 §15.5.6: ``headers`` carry ``Allow``."""

    status, code, title = 405, "method_not_allowed", "Method Not Allowed"


class ClientTimeout(GatewayError):
    status, code, title = 408, "client_timeout", "Request Timeout"


class BodyTooLarge(GatewayError):
    status, code, title = 413, "body_too_large", "Content Too Large"


class TargetTooLong(GatewayError):
    status, code, title = 414, "target_too_long", "URI Too Long"


class UnsupportedMediaType(GatewayError):
    status, code, title = 415, "unsupported_media_type", "Unsupported Media Type"


class Misdirected(GatewayError):
    """RFC 9110 §15.5.20."""

    status, code, title = 421, "misdirected_request", "Misdirected Request"


class RateLimited(GatewayError):
    """RFC 6585 §4: ``headers`` carry ``Retry-After`` and the ``X-RateLimit-*`` fields."""

    status, code, title = 429, "rate_limited", "Too Many Requests"


class HeadersTooLarge(GatewayError):
    status, code, title = 431, "headers_too_large", "Request Header Fields Too Large"


class NotImplementedMethod(GatewayError):
    status, code, title = 501, "not_implemented", "Not Implemented"


class PolicyFailed(GatewayError):
    """A policy that a user wrote has failed."""

    status, code, title = 500, "policy_failed", "Internal Server Error"


class PolicyRefused(GatewayError):
    """A policy that a user wrote refuses the request. It says ``status``, ``code``, ``title`` and ``members``."""

    status, code, title = 403, "refused", "Forbidden"

    def __init__(
        self,
        status: int,
        title: str,
        detail: str,
        code: str,
        headers: Iterable[tuple[bytes, bytes]],
        members: str,
    ) -> None:
        super().__init__(detail, headers)
        self.status, self.title, self.code = status, title, code  # type: ignore[misc]  # those of others are fixed
        self.members = members


class UpstreamUnreachable(GatewayError):
    status, code, title = 502, "upstream_unreachable", "Bad Gateway"


class UpstreamProtocolError(GatewayError):
    status, code, title = 502, "upstream_protocol_error", "Bad Gateway"


class CircuitOpen(GatewayError):
    status, code, title = 503, "circuit_open", "Service Unavailable"


class NoHealthyTarget(GatewayError):
    status, code, title = 503, "no_healthy_target", "Service Unavailable"


class Overloaded(GatewayError):
    status, code, title = 503, "overloaded", "Service Unavailable"


class DrainTimeout(GatewayError):
    """Stands in logs and metrics only: the connection is cut without an answer."""

    status, code, title = 503, "drain_timeout", "Service Unavailable"


class Maintenance(GatewayError):
    status, code, title = 503, "maintenance", "Service Unavailable"


class AuthUnavailable(GatewayError):
    status, code, title = 503, "auth_unavailable", "Service Unavailable"


class CheckRefused(GatewayError):
    """An external check refuses, with a ``status`` of its own. The answer has its ``body``, and no problem document."""

    status, code, title = 403, "check_refused", "Forbidden"

    def __init__(self, status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes) -> None:
        super().__init__("The request was refused.", headers)
        self.status = status  # type: ignore[misc]  # that of others is fixed
        self.body = body


class LimitsUnavailable(GatewayError):
    status, code, title = 503, "limits_unavailable", "Service Unavailable"


class UpstreamTimeout(GatewayError):
    status, code, title = 504, "upstream_timeout", "Gateway Timeout"


class DeadlineExceeded(GatewayError):
    """gRPC: the client's deadline, in ``grpc-timeout``."""

    status, code, title = 504, "deadline_exceeded", "Gateway Timeout"


OWN_MEMBERS = frozenset(("type", "title", "status", "detail", "instance", "code", "request_id"))
"""Members of a problem document that mean the same in all of them."""


def problem(status: int, code: str, title: str, detail: str, request_id: str, members: str = "") -> bytes:
    """The body of an ``application/problem+json`` answer. ``members`` are further ones, none of ``OWN_MEMBERS``, as
    with ``GatewayError``."""
    document = {"type": "about:blank", "title": title, "status": status, "code": code, "detail": detail}
    if request_id:
        document["request_id"] = request_id
    text = dumps(document)
    return (f"{text[:-1]}, {members}}}" if members else text).encode("ascii")


def render(error: GatewayError, request_id: str) -> tuple[int, Headers, bytes]:
    """Status, headers and body with which ``error`` is answered."""
    if isinstance(error, CheckRefused):
        return error.status, [*error.headers, (b"content-length", b"%d" % len(error.body))], error.body
    body = problem(error.status, error.code, error.title, error.detail, request_id, error.members)
    headers = [(b"content-type", PROBLEM_JSON), (b"content-length", b"%d" % len(body)), *error.headers]
    return error.status, headers, body
