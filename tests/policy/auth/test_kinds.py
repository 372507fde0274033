"""Routes that take one kind of credentials, another, or several: who passes, and what the others are told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from prometheus_client import CollectorRegistry

from apigw.config.model import Config
from apigw.config.model import Route as RouteConfig
from apigw.contract.exchange import Exchange, Route, Stage
from apigw.contract.peers import Peers
from apigw.contract.policy import Part, Prepared
from apigw.ops.metrics import Metrics
from apigw.policy.auth.api_keys import editing
from apigw.policy.auth.api_keys.model import APIKeys
from apigw.policy.auth.api_keys.records import Record, digest_of, new_key
from apigw.policy.auth.basic.model import BasicProvider
from apigw.policy.auth.model import Auth, AuthOfRoute, AuthSection
from apigw.policy.auth.mtls.names import CHALLENGE as CERTIFICATE
from apigw.policy.auth.secrets import hash_generated
from apigw.policy.auth.stage import Authenticate, AuthenticateByAny, missing
from apigw.proxy.pipeline import Pipeline, Table
from apigw.routing.router import Router
from apigw.routing.trie import Entry
from apigw.wire.headers import Headers
from apigw.wire.request import Request

from .jwt.test_jwt import HS, NOW, hs256
from .test_policy import Scene as PolicyScene
from .test_stage import Client, Noting, Welcome

KEY, EXPIRED = new_key().encode(), new_key().encode()
BEARER, KEYED = b'Bearer realm="apigw"', b'Key realm="apigw", header="X-API-Key"'


class Scene:
    """Routes of a configuration with a token's provider ``hs`` and one of keys, ``partners``."""

    def __init__(self, directory: Path, forward: bool = False) -> None:
        file = str(directory / "partners.keys")
        editing.add(file, Record(digest_of(KEY), "acme", ("partner",)))
        editing.add(file, Record(digest_of(EXPIRED), "acme", expires=NOW - 1))
        policy = PolicyScene()
        policy.clock.advance(NOW)
        auth = Auth(jwt=(HS,), api_keys=(APIKeys("partners", file, forward=forward),))
        config = Config(added=(AuthSection(auth),))
        self.prepared = policy.prepare(config)
        self.screen = Noting()
        self.ended: list[Exchange] = []
        self.answered: list[tuple[int, Headers]] = []

    def part(self, **of_route: Any) -> Part:
        return self.prepared.part(RouteConfig("/a", "main", added=(AuthOfRoute(**of_route),)))

    def ask(self, part: Part, *headers: tuple[bytes, bytes]) -> int:
        series = Metrics(CollectorRegistry(), "0").route("/a")
        stages = [stage for stage in part.stages.values() if isinstance(stage, Stage)]
        route = Route(
            "/a", None, None, series, (*stages, Welcome()), on_refusal=part.on_refusal, screens=(self.screen,)
        )
        table = Table(Router([Entry("/a", None, route)]), None, route, Peers(), 100, False)
        pipeline = Pipeline(table, lambda: 0.0, self.ended.append, lambda request: None)
        stream: Any = Answered(self)
        pipeline.on_request(Request(stream, b"GET", b"/a", b"/a", b"", b"x", list(headers), b"HTTP/1.1", 0))
        return self.ended[-1].status

    @property
    def caller(self) -> str | None:
        principal = self.ended[-1].principal
        return None if principal is None else f"{principal.provider}/{principal.id}"

    @property
    def challenges(self) -> list[bytes]:
        return [value for name, value in self.answered[-1][1] if name == b"www-authenticate"]


class Answered(Client):
    def __init__(self, scene: Scene) -> None:
        super().__init__()
        self._scene = scene

    def respond(self, request: Request, status: int, reason: bytes, headers: Headers, body: bytes) -> None:
        self._scene.answered.append((status, headers))


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


TOKEN, BAD_TOKEN = (b"authorization", b"Bearer " + hs256()), (b"authorization", b"Bearer " + hs256()[:-4] + b"AAAA")
BASIC = (b"authorization", b"Basic YTpi")
GOOD_KEY, BAD_KEY, OLD_KEY = (b"x-api-key", KEY), (b"x-api-key", KEY[:-1]), (b"x-api-key", EXPIRED)
TABLE: dict[str, tuple[tuple[tuple[bytes, bytes], ...], int, str | None]] = {
    "a token": ((TOKEN,), 200, "hs/alice"),
    "a key": ((GOOD_KEY,), 200, "partners/acme"),
    "both": ((GOOD_KEY, TOKEN), 200, "hs/alice"),
    "a token, a bad key": ((BAD_KEY, TOKEN), 200, "hs/alice"),
    "a bad token, a key": ((GOOD_KEY, BAD_TOKEN), 401, None),
    "a bad token": ((BAD_TOKEN,), 401, None),
    "a bad key": ((BAD_KEY,), 401, None),
    "an old key": ((OLD_KEY,), 401, None),
    "two keys": ((GOOD_KEY, GOOD_KEY), 401, None),
    "a password, which nobody takes": ((BASIC,), 401, None),
    "a password and a key": ((BASIC, GOOD_KEY), 200, "partners/acme"),
    "nothing": ((), 401, None),
}


@pytest.mark.parametrize(("sent", "status", "caller"), [pytest.param(*case, id=name) for name, case in TABLE.items()])
def test_of_several_kinds_the_first_that_is_there_decides(
    scene: Scene, sent: tuple[tuple[bytes, bytes], ...], status: int, caller: str | None
) -> None:
    """Again when it is remembered. Each 401 names both kinds. Screens are asked before anything is verified."""
    part = scene.part()
    assert isinstance(part.stages["auth"], AuthenticateByAny)
    assert [(scene.ask(part, *sent), scene.caller) for _ in range(2)] == [(status, caller)] * 2
    if status == 401:
        assert sorted(each.partition(b", error")[0] for each in scene.challenges) == [BEARER, KEYED]
    assert scene.screen.asked == (1 if status == 200 else 2)


def test_what_would_do() -> None:
    """The only kind that a route takes is named; of several none, or a caller would look for that one alone."""
    assert [missing(kinds).detail for kinds in ([BEARER], [BEARER, KEYED], [KEYED], [CERTIFICATE])] == [
        "A token is required.", "Credentials are required.", "An API key is required.",
        "A client certificate is required.",
    ]  # fmt: skip


def test_nobody_passes_where_that_is_optional(scene: Scene) -> None:
    """Without credentials, or with those of a kind that is not taken; a bad one is 401."""
    part = scene.part(auth="optional")
    assert [scene.ask(part), scene.ask(part, BASIC), scene.ask(part, BAD_KEY)] == [200, 200, 401]
    scene.screen.shut = True
    assert [scene.ask(part), scene.ask(part, BAD_KEY)] == [200, 429]


@pytest.mark.parametrize("demands", [{"roles": ("partner",)}, {"scopes": ("a",)}, {"claims": (("a", "b"),)}], ids=str)
def test_nobody_passes_where_something_is_demanded(scene: Scene, demands: dict[str, Any]) -> None:
    """Though credentials are optional there."""
    for providers in (None, ("hs",)):
        assert scene.ask(scene.part(auth="optional", providers=providers, **demands)) == 401


def test_a_route_takes_the_providers_that_it_names(scene: Scene) -> None:
    """A valid credential of another is 401, also if it is remembered; of a kind that is not taken it is none."""
    keys, tokens = scene.part(providers=("partners",)), scene.part(providers=("hs",))
    assert isinstance(keys.stages["auth"], Authenticate)
    assert [scene.ask(scene.part(), TOKEN), scene.ask(scene.part(), GOOD_KEY)] == [200, 200]
    assert [scene.ask(keys, TOKEN), scene.ask(keys, GOOD_KEY)] == [401, 200]
    assert [scene.ask(tokens, GOOD_KEY), scene.challenges] == [401, [BEARER]]
    assert [scene.ask(keys), scene.challenges] == [401, [KEYED]]
    assert scene.ask(tokens, TOKEN) == 200


def test_routes_with_the_same_demands_share_what_looks_at_them(scene: Scene) -> None:
    """But no two with demands that only look the same."""
    assert scene.part(roles=("a",)) is scene.part(roles=("a",))
    assert scene.part(roles=("a",)) is not scene.part(roles=("b",))
    assert scene.part(claims=(("a", 1),)) is not scene.part(claims=(("a", True),))


def test_a_403_speaks_of_tokens_to_who_sent_one(scene: Scene) -> None:
    """RFC 6750 §3.1."""
    part = scene.part(roles=("admin",))
    assert [scene.ask(part, TOKEN), len(scene.challenges)] == [403, 1]
    assert [scene.ask(part, GOOD_KEY), scene.challenges] == [403, []]
    assert scene.ask(scene.part(roles=("partner",)), GOOD_KEY) == 200


def test_passwords_reach_no_service_unless_that_is_said(tmp_path: Path) -> None:
    """On a route that takes them; tokens do not reach it there, either."""
    (tmp_path / "ops").write_text(f"ada:{hash_generated('password')}\n")
    for forward in (False, True):
        auth = Auth(jwt=(HS,), basic=(BasicProvider("ops", str(tmp_path / "ops"), forward),))
        prepared = PolicyScene().prepare(Config(added=(AuthSection(auth),)))

        def stripped(prepared: Prepared = prepared, **of_route: Any) -> frozenset[bytes]:
            return prepared.part(RouteConfig("/a", "main", added=(AuthOfRoute(**of_route),))).stripped

        assert stripped() == stripped(providers=("ops",)) == (frozenset() if forward else {b"authorization"})
        assert stripped(providers=("hs",)) == stripped(auth="none") == frozenset()
        assert stripped(forward_token=False) == {b"authorization"}


def test_keys_reach_no_service_unless_that_is_said(tmp_path: Path) -> None:
    """On no route, whether it takes them or not; tokens do unless ``forward_token`` is off."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    kept, forwarded = Scene(tmp_path / "a"), Scene(tmp_path / "b", forward=True)
    for of_route in ({}, {"auth": "none"}, {"providers": ("hs",)}):
        assert kept.part(**of_route).stripped == {b"x-api-key"}
        assert forwarded.part(**of_route).stripped == frozenset()
    assert kept.part(forward_token=False).stripped == {b"x-api-key", b"authorization"}


def test_callers_of_two_providers_of_a_kind_stay_known_over_a_reload() -> None:
    """What is remembered is taken over once, and not lost to the second provider."""
    verifiers = HS, evolve(HS, name="other", issuer="https://other")
    policy = PolicyScene()
    policy.clock.advance(NOW)
    known = []
    for _ in range(2):
        prepared = policy.prepare(Config(added=(AuthSection(Auth(jwt=verifiers)),)))
        prepared.adopt(policy.prepared)
        policy.prepared = prepared
        stage = prepared.part(RouteConfig("/a", "main", added=(AuthOfRoute(),))).stages["auth"]
        assert isinstance(stage, Authenticate)
        known.append(stage._method.remembered([TOKEN[1]], NOW))
        stage._method.verify([TOKEN[1]], NOW)
    assert known[0] is None
    assert known[1] is not None
