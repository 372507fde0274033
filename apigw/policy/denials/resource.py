"""``/denials``: who is denied, and by POST more, or fewer."""

from __future__ import annotations

from collections.abc import Callable
from json import loads
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from apigw import errors
from apigw.contract.resource import Leaf, answer, answer_later
from apigw.ops.audit_log import Audit
from apigw.policy.denials.denial import Denial, denial
from apigw.policy.denials.denials import Denials, Told
from apigw.wire.web_request import WebRequest

_KEYS = {
    "add": {"action", "kind", "value", "provider", "for", "reason"},
    "remove": {"action", "kind", "value", "provider"},
}

log = Logger()


class DenialsPage(Leaf):
    """``may_write`` raises the refusal of a request that may not."""

    def __init__(
        self, denials: Denials, may_write: Callable[[WebRequest], object], now: Callable[[], float], audit: Audit
    ) -> None:
        super().__init__()
        self._denials = denials
        self._may_write = may_write
        self._now = now
        self._audit = audit

    def render_GET(self, request: WebRequest) -> int:
        shown = [each.shown() for each in self._denials.listed()]
        return answer(request, 200, {"denials": shown, "store_up": self._denials.store_up})

    def render_POST(self, request: WebRequest) -> int:
        """A body such as ``{"action": "add", "kind": "address", "value": "192.0.2.7", "for": 3600}``."""
        self._may_write(request)
        by = request.peer.decode("ascii", "replace")
        action, wanted = self._wanted(request.content.getvalue())
        wanted = evolve(wanted, by=by)
        log.warn(
            "{action} denial of {kind} {value}, from {by}", action=action, kind=wanted.kind, value=wanted.value, by=by
        )
        doing: Deferred[Any]
        if action == "add":
            doing = self._denials.add(wanted).addCallback(_added)
        else:
            doing = self._denials.remove(wanted).addCallback(_removed)
        doing.addCallbacks(self._done, self._failed, (wanted,), {}, (wanted,))
        return answer_later(request, doing)

    def _done(self, document: dict[str, Any], wanted: Denial) -> dict[str, Any]:
        facts = {"kind": wanted.kind, "value": wanted.value, "provider": wanted.provider}
        if "removed" in document:
            self._audit("denial", "removed", wanted.by, **facts)
        else:
            more = {name: document[name] for name in ("until", "reason", "everywhere", "cut", "late")}
            self._audit("denial", "added", wanted.by, **facts, **more)
        return document

    def _failed(self, failure: Failure, wanted: Denial) -> Failure:
        outcome = "not_found" if failure.check(errors.NotFound) else "failed"
        self._audit("denial", outcome, wanted.by, kind=wanted.kind, value=wanted.value, provider=wanted.provider)
        return failure

    def _wanted(self, body: bytes) -> tuple[str, Denial]:
        try:
            document = loads(body)
        except (ValueError, RecursionError):
            document = None
        action = document.get("action") if isinstance(document, dict) else None
        if not isinstance(document, dict) or not isinstance(action, str) or action not in _KEYS:
            raise errors.BadRequest('The body must be JSON with the action "add" or "remove".')
        if not document.keys() <= _KEYS[action]:
            raise errors.BadRequest(f"The keys are {', '.join(sorted(_KEYS[action]))}.")
        kind, value, provider = document.get("kind"), document.get("value"), document.get("provider")
        seconds, reason = document.get("for", 3600) if action == "add" else 1, document.get("reason", "")
        try:
            return action, denial(kind, value, provider, seconds, reason, self._now())
        except ValueError as error:
            raise errors.BadRequest(str(error)) from None


def _added(done: tuple[Denial, Told]) -> dict[str, Any]:
    made, told = done
    return {**made.shown(), "cut": told.cut, "late": told.late}


def _removed(held: bool) -> dict[str, Any]:
    if not held:
        raise errors.NotFound("There is no such denial.")
    return {"removed": True}
