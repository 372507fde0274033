"""What plugins import (docs/reference/plugins.md). All of it stays as it is within a major version."""

from __future__ import annotations

from typing import Any, ClassVar, Protocol

from apigw.contract.caller import Caller
from apigw.contract.exchange import Answer
from apigw.contract.media_type import MediaType
from apigw.contract.refusal import Refusal
from apigw.contract.strict_json import Malformed, strict_json
from apigw.contract.view import AnswerHead, RequestFields, View
from apigw.policy.plugins.context import Context, PluginRedis
from apigw.policy.plugins.threads import Busy, Threads
from apigw.wire.calls import Fetched
from apigw.wire.fetch import FetchFailed

__all__ = (
    "Answer",
    "AnswerHead",
    "Busy",
    "Caller",
    "Context",
    "FetchFailed",
    "Fetched",
    "Malformed",
    "MediaType",
    "PluginRedis",
    "Policy",
    "Refusal",
    "RequestFields",
    "Threads",
    "View",
    "strict_json",
)


class Policy(Protocol):
    """What the class of a plugin must have. Besides it has at least one method that is called for requests.

    These are ``on_request(view)``, ``on_forward(view)``, ``on_answer(view)``, ``on_end(view)``,
    ``on_request_body(view, data, last)``, ``on_answer_body(view, data, last)``, ``choose_service(view, services)`` and
    ``choose_target(view, targets)``.
    """

    name: ClassVar[str]
    schema: ClassVar[dict[str, Any]]
