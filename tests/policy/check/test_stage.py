"""What a checker is asked, and what becomes of a request."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.routed import Routed

from apigw.contract.exchange import Exchange
from apigw.contract.fields import Names, seen_of, values_in
from apigw.contract.principal import Principal
from apigw.errors import CheckRefused, render
from apigw.policy.check.stage import CheckWith
from apigw.policy.check.verdict import Verdict, question
from apigw.policy.limits.dimensions import OfHeader

ALICE = Principal("corp", "alice", ("admin", "ops"))
CHECKS = {
    "opa": {
        "url": "http://127.0.0.1:1/check",
        "send": ["Authorization", "X-User-ID", "X-Auth-Provider", "X-Request-ID"],
        "take": ["X-Tenant", "X-User-ID"],
    }
}


class Made:
    """``/a`` is checked, ``/b`` is not. ``verdict`` is the checker's."""

    def __init__(self, directory: Path, **gateway: Any) -> None:
        routes = [{"path": "/a", "service": "main", "check_with": "opa"}, {"path": "/b", "service": "main"}]
        self.routed = Routed(directory, *routes, checks=CHECKS, gateway=gateway)
        self.verdict = Verdict([])
        self.asked: Any = None

    def exchange(self, path: str, *headers: tuple[bytes, bytes], **more: Any) -> Exchange:
        exchange = self.routed.exchange(path, *headers, **more)
        stages = exchange.route.stages
        checker: Any = self

        def judging(asked: Any, before: Any, caller: bytes) -> Verdict:
            self.asked = asked
            return self.verdict

        checker.verdict_of = judging
        if path == "/a":
            stage: Any = next(each for each in stages if isinstance(each, CheckWith))
            stage._checker = type("Judging", (), {"verdict": staticmethod(judging)})()
        return exchange


def test_what_is_asked(tmp_path: Path) -> None:
    """What `send` names; of the caller what the gateway knows, not what the client says; and where it wants to go."""
    exchange = Made(tmp_path).routed.exchange(
        "/a?q=%20",
        (b"authorization", b"Bearer x"),
        (b"cookie", b"a=1"),
        (b"x-user-id", b"root"),
        (b"x-forwarded-for", b"1.2.3.4"),
        (b"x-forwarded-uri", b"/forged"),
        (b"x-request-id", b"r1"),
        principal=ALICE,
        method=b"POST",
        secure=True,
    )
    send = [b"authorization", b"x-user-id", b"x-auth-provider", b"x-request-id", b"x-missing"]
    assert question(exchange, send) == [
        (b"authorization", b"Bearer x"),
        (b"x-user-id", b"alice"),
        (b"x-auth-provider", b"corp"),
        (b"x-request-id", b"r1"),
        (b"x-forwarded-method", b"POST"),
        (b"x-forwarded-proto", b"https"),
        (b"x-forwarded-host", b"shop.example:8080"),
        (b"x-forwarded-uri", b"/a?q=%20"),
        (b"x-forwarded-for", b"192.0.2.1"),
    ]


def test_behind_proxies(tmp_path: Path) -> None:
    """The address is the client's, alone, and the scheme that of its request; a caller who is not known has no id."""
    made = Made(tmp_path, trusted_proxies=["192.0.2.0/24"])
    headers = ((b"x-forwarded-for", b"6.6.6.6, 203.0.113.9"), (b"x-forwarded-proto", b"https"), (b"x-user-id", b"root"))
    asked = dict(question(made.routed.exchange("/a", *headers), [b"x-user-id"]))
    assert (asked[b"x-forwarded-for"], asked[b"x-forwarded-proto"]) == (b"203.0.113.9", b"https")
    assert b"x-user-id" not in asked


def test_what_is_taken(tmp_path: Path) -> None:
    """Of the checker's answer, in place of what the gateway itself would send; what it does not say is not there."""
    made = Made(tmp_path)
    made.verdict = Verdict([(b"x-tenant", b"acme"), (b"x-user-id", b"alice@acme")])
    exchange = made.exchange("/a", (b"x-tenant", b"forged"), (b"x_tenant", b"forged"), principal=ALICE)
    sent = made.routed.sent(exchange)
    assert [value for name, value in sent if name.replace(b"_", b"-") == b"x-tenant"] == [b"acme"]
    assert [value for name, value in sent if name == b"x-user-id"] == [b"alice@acme"]
    assert (b"x-auth-provider", b"corp") in sent
    made.verdict = Verdict([])
    sent = made.routed.sent(made.exchange("/a", (b"x-tenant", b"forged"), principal=ALICE))
    assert not {b"x-tenant", b"x-user-id"} & {name for name, _ in sent}


def test_who_reads_what_is_taken(tmp_path: Path) -> None:
    """Limits, plans, splits and plugins get the checker's word, and never the client's beside or instead of it."""
    made = Made(tmp_path)
    forged, names = ((b"x-tenant", b"forged"), (b"x-other", b"1")), Names(frozenset(), frozenset())
    for taken in ([(b"x-tenant", b"acme"), (b"x-user-id", b"alice@acme")], []):
        made.verdict = Verdict(taken)
        exchange = made.exchange("/a", *forged, principal=ALICE)
        assert (b"x-tenant", b"forged") in exchange.headers
        made.routed.sent(exchange)
        assert exchange.headers == [(b"x-other", b"1"), *taken]
        seen = [(name, value) for name, value in seen_of(exchange, names) if name in (b"x-tenant", b"x-user-id")]
        assert seen == taken
        for name in ("X-Tenant", "X-User-ID"):
            assert values_in(exchange, names.of(name)) == [
                value for each, value in taken if each.decode() == name.lower()
            ]
        assert OfHeader(b"x-tenant").of(exchange) == (b"hacme" if taken else b"")


@pytest.mark.parametrize("name", [b"x-tenant", b"x_tenant", b"x.tenant", b"x+tenant"])
def test_clients_cannot_set_it(tmp_path: Path, name: bytes) -> None:
    """On no route, in no spelling: a service cannot tell who has set it."""
    made = Made(tmp_path)
    assert name not in dict(made.routed.sent(made.exchange("/b", (name, b"forged"))))


GRPC = (b"content-type", b"application/grpc")


@pytest.mark.parametrize(
    ("status", "headers", "answered"),
    [(401, (), 401), (403, (), 403), (302, (), 302), (302, (GRPC,), 403), (401, (GRPC,), 401)],
)
def test_a_refusal(tmp_path: Path, status: int, headers: Any, answered: int) -> None:
    """It is the checker's own answer, with its length; a call of gRPC follows no redirect."""
    made = Made(tmp_path)
    made.verdict = Verdict([], status, [(b"set-cookie", b"a=1"), (b"content-type", b"text/html")], b"<p>no</p>")
    with pytest.raises(CheckRefused) as caught:
        made.routed.walked(made.exchange("/a", *headers, method=b"POST"))
    assert render(caught.value, "id") == (
        answered,
        [(b"set-cookie", b"a=1"), (b"content-type", b"text/html"), (b"content-length", b"9")],
        b"<p>no</p>",
    )
