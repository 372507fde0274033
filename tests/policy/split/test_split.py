"""Which of several services a request goes to, and what of that stays."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import pytest
from support.routed import Peer, Routed

from apigw.config.errors import ConfigError
from apigw.config.load import load
from apigw.contract.exchange import Driver, Exchange
from apigw.contract.peers import Peers
from apigw.contract.principal import Principal
from apigw.errors import Maintenance
from apigw.policy.split.choice import AtRandom, ByCookie, ByHeader, ByPrincipal
from apigw.policy.split.cookie import Cookie
from apigw.process.rules import RULES
from apigw.proxy.forward import ChooseService, HoldBody
from apigw.wire.headers import Headers, first
from apigw.wire.request import Request

SECRET, OLD = b"0123456789abcdef" * 2, b"fedcba9876543210" * 2
CANARY = [("orders", 95), ("orders-v2", 5)]
WIDER = [("orders", 90), ("orders-v2", 10)]


def exchange(*headers: tuple[bytes, bytes], principal: Principal | None = None, secure: bool = False) -> Exchange:
    stream = Peer(secure)
    request = Request(stream, b"GET", b"/a", b"/a", b"", b"a", list(headers), b"HTTP/1.1", 0)
    made = Exchange(Driver(), request, Peers(), 0.0)
    made.principal = principal
    return made


def nobody(number: int) -> None: ...


def test_shares_are_those_of_the_weights() -> None:
    """Of 100,000 requests a service gets its share, within 0.5 %."""
    counted: Counter[int] = Counter()

    def chosen(number: int) -> None:
        counted[number] += 1

    split = AtRandom(CANARY, Random(14).random, chosen)
    again = Counter(split.choose(exchange()) for _ in range(100_000))
    assert abs(again[0] / 100_000 - 0.95) < 0.005
    assert counted == again
    assert split.services == ("orders", "orders-v2")


@pytest.mark.parametrize(
    ("weights", "shares"),
    [
        ([("a", 0), ("b", 3)], {1: 1.0}),
        ([("a", 3), ("b", 0)], {0: 1.0}),
        ([("a", 1)], {0: 1.0}),
        ([("a", 1), ("b", 0), ("c", 1)], {0: 0.5, 2: 0.5}),
        ([("a", 1_000_000), ("b", 3_000_000)], {0: 0.25, 1: 0.75}),
    ],
    ids=["none of the first", "none of the last", "one", "none between", "large"],
)
@pytest.mark.parametrize("kind", ["random", "header", "cookie"])
def test_weights(weights: list[tuple[str, int]], shares: dict[int, float], kind: str) -> None:
    """They may have any sum, and one of 0 gets nothing."""
    random = Random(14).random
    split = {
        "random": AtRandom(weights, random, nobody),
        "header": ByHeader(weights, random, nobody, b"x-tenant"),
        "cookie": ByCookie(weights, random, nobody, Cookie(b"stick", [SECRET])),
    }[kind]
    found = Counter(split.choose(exchange((b"x-tenant", b"%d" % number))) for number in range(4000))
    assert found.keys() == shares.keys()
    for number, share in shares.items():
        assert abs(found[number] / 4000 - share) < 0.03


def values(count: int) -> list[bytes]:
    return [b"tenant-%d" % number for number in range(count)]


def test_a_header_decides() -> None:
    """Equal values go to the same service, for ever; a changed weight moves those between the borders only."""
    random = Random(14).random
    canary, wider = (ByHeader(weights, random, nobody, b"x-tenant") for weights in (CANARY, WIDER))
    before = {value: canary.choose(exchange((b"x-tenant", value))) for value in values(20_000)}
    assert before == {value: canary.choose(exchange((b"x-tenant", value))) for value in values(20_000)}
    after = {value: wider.choose(exchange((b"x-tenant", value))) for value in values(20_000)}
    assert not [value for value in before if before[value] > after[value]]
    moved = sum(before[value] != after[value] for value in before)
    assert abs(moved / 20_000 - 0.05) < 0.01
    assert abs(sum(before.values()) / 20_000 - 0.05) < 0.01
    # A value of today, which must be the same on every machine tomorrow.
    assert [canary.hashed(value) for value in values(4)] == HASHED


HASHED = [50, 32, 97, 79]


@pytest.mark.parametrize("headers", [(), ((b"x-tenant", b""),), ((b"x-other", b"a"),)], ids=["none", "empty", "other"])
def test_a_header_that_is_missing(headers: tuple[tuple[bytes, bytes], ...]) -> None:
    """Each such request is decided at random."""
    split = ByHeader([("a", 1), ("b", 1)], Random(14).random, nobody, b"x-tenant")
    assert {split.choose(exchange(*headers)) for _ in range(50)} == {0, 1}


def test_a_caller_decides() -> None:
    """All requests of one caller go to the same service; anonymous ones are decided at random."""
    split = ByPrincipal([("a", 1), ("b", 1)], Random(14).random, nobody)
    found = {}
    for number in range(100):
        caller = Principal("main", f"user-{number}")
        (found[number],) = {split.choose(exchange(principal=caller)) for _ in range(5)}
    assert 30 < sum(found.values()) < 70
    assert {split.choose(exchange()) for _ in range(50)} == {0, 1}


def by_cookie(weights: list[tuple[str, int]], seed: int = 14, secrets: tuple[bytes, ...] = (SECRET,)) -> ByCookie:
    return ByCookie(weights, Random(seed).random, nobody, Cookie(b"stick", secrets))


def given(made: Exchange) -> bytes | None:
    """The cookie that the client gets."""
    value = first(made.added, b"set-cookie")
    return None if value is None else value.partition(b";")[0]


def test_a_cookie_decides() -> None:
    """A client that has one stays where it is while the weights stand, whoever answers; a changed one moves 5 %."""
    clients: dict[bytes, int] = {}
    canary = by_cookie(CANARY)
    for _ in range(5000):
        made = exchange()
        side = canary.choose(made)
        cookie = given(made)
        assert cookie is not None
        assert clients.setdefault(cookie, side) == side
    elsewhere, wider = by_cookie(CANARY, seed=2), by_cookie(WIDER, seed=3)
    moved = 0
    for cookie, side in clients.items():
        made = exchange((b"cookie", cookie))
        assert elsewhere.choose(made) == side
        assert made.added == []
        now = wider.choose(exchange((b"cookie", cookie)))
        assert now >= side
        moved += now != side
    assert abs(moved / len(clients) - 0.05) < 0.01


def test_what_the_cookie_says() -> None:
    """It is the gateway's alone, and names no service."""
    made, secure = exchange(), exchange(secure=True)
    by_cookie(CANARY).choose(made)
    by_cookie(CANARY).choose(secure)
    value = first(made.added, b"set-cookie")
    assert value is not None
    assert re.fullmatch(rb"stick=[0-9]{4}\.[A-Za-z0-9_-]{22}; Path=/; Max-Age=31536000; HttpOnly; SameSite=Lax", value)
    assert first(secure.added, b"set-cookie") == value + b"; Secure"


GOOD = b"stick=" + Cookie(b"stick", [SECRET]).value(9999)
FORGED = {
    "empty": b"stick=",
    "a position alone": b"stick=9999",
    "another position": GOOD.replace(b"9999", b"9998"),
    "another signature": GOOD[:-1] + (b"A" if GOOD[-1:] != b"A" else b"B"),
    "another name's": b"stick=" + Cookie(b"stock", [SECRET]).value(9999),
    "another secret's": b"stick=" + Cookie(b"stick", [OLD]).value(9999),
    "10 KiB": b"stick=" + b"9" * 10_240,
    "10 KiB behind it": GOOD + b"9" * 10_240,
    "not ASCII": b"stick=\xc3\xa9\xff" + GOOD[8:],
    "digits of another script": "stick=\u0669999".encode() + GOOD[10:],
    "in quotes": b'stick="' + GOOD[6:] + b'"',
    "a service's name": b"stick=orders-v2",
    "spaces behind the name": b"stick \t=orders-v2",
    "the name alone": b"stick",
    "twice, both forged": b"stick=1; stick=2",
}


@pytest.mark.parametrize("kind", FORGED)
def test_a_cookie_that_is_not_the_gateways(kind: str) -> None:
    """It counts as none, and is replaced; no service sees it."""
    made = exchange((b"cookie", b"a=1; " + FORGED[kind] + b"; b=2"))
    by_cookie([("a", 1), ("b", 0)]).choose(made)
    cookie = given(made)
    assert cookie not in (None, FORGED[kind])
    assert made.request.headers == [(b"cookie", b"a=1; b=2")]


COOKIES: dict[str, tuple[list[bytes], list[bytes]]] = {
    "alone": ([GOOD], []),
    "the last": ([b"a=1; " + GOOD], [b"a=1"]),
    "without spaces": ([b"a=1;" + GOOD + b";b=2"], [b"a=1; b=2"]),
    "twice": ([b"stick=forged; a=1; " + GOOD], [b"a=1"]),
    "in the second field": ([b"a=1", GOOD], [b"a=1"]),
    "beside one like it": ([b"xstick=1; " + GOOD + b"; stick2=2"], [b"xstick=1; stick2=2"]),
}


@pytest.mark.parametrize("kind", COOKIES)
def test_where_the_cookie_is_found(kind: str) -> None:
    """Wherever it is, the first valid one counts, and is taken out; others stay."""
    sent, left = COOKIES[kind]
    made = exchange(*((b"cookie", value) for value in sent), (b"x-a", b"stick=1"))
    assert by_cookie([("a", 9999), ("b", 1)]).choose(made) == 1
    assert made.added == []
    assert made.request.headers == [*((b"cookie", value) for value in left), (b"x-a", b"stick=1")]


def test_cookies_of_others_stay_as_they_are() -> None:
    """Without one of its name nothing is changed."""
    headers: Headers = [(b"cookie", b"xstick=1;;a=2 ;")]
    made = exchange(*headers)
    by_cookie(CANARY).choose(made)
    assert made.request.headers == headers


def test_a_new_secret_moves_nobody() -> None:
    """While the old one is accepted still, clients stay where they are."""
    rotated = by_cookie([("a", 9999), ("b", 1)], secrets=(OLD, SECRET))
    made = exchange((b"cookie", GOOD))
    assert (rotated.choose(made), made.added) == (1, [])
    new = exchange()
    rotated.choose(new)
    cookie = given(new)
    assert cookie is not None
    assert Cookie(b"stick", [OLD]).position_in(cookie[6:]) is not None


def test_the_rest_is_that_of_the_chosen_service(tmp_path: Path) -> None:
    """Timeouts, maintenance and header rules, after the stages of the route, which run once."""
    routed = Routed(
        tmp_path,
        {
            "path": "/a",
            "split": {"main": 1, "other": 1},
            "split_by": {"header": "X-Tenant"},
            "request_headers": {"set": {"X-Rule": "{path}"}},
            "response_headers": {"set": {"X-Answer": "1"}},
        },
        services={
            "main": {"targets": ["http://127.0.0.1:9001"], "timeout": "7s"},
            "other": {"targets": ["http://127.0.0.1:9002"], "maintenance": True},
        },
        rate_limits=[{"endpoint": "/a", "limit": 5, "window": "60s", "scope": "ip"}],
    )
    seen = set()
    for tenant in values(20):
        made = routed.exchange("/a", (b"x-tenant", tenant))
        route = made.route
        assert (route.service, route.chosen) == ("main, other", False)
        choose = route.stages[-1]
        assert isinstance(choose, ChooseService)
        choose.run(made)
        chosen = made.route
        assert chosen.stages[: len(route.stages)] == route.stages
        assert (chosen.chosen, chosen.name, len(chosen.hooks)) == (True, "/a", len(route.hooks))
        seen.add(chosen.service)
        (hold,) = [stage for stage in chosen.stages if isinstance(stage, HoldBody)]
        rest = chosen.stages[len(route.stages) : chosen.stages.index(hold)]
        assert hold.destination.upstream.name == chosen.service
        if chosen.service == "other":
            with pytest.raises(Maintenance):
                rest[0].run(made)
        else:
            assert hold.destination.timeout == 7.0
            (rule,) = rest
            rule.run(made)
            assert list(made.sent) == [(b"x-rule", b"/a")]
    assert seen == {"main", "other"}


MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "unknown": ({"split": {"mian": 1}}, "split.mian: 'mian' is not the name of a service; did you mean 'main'?"),
    "empty": ({"split": {}}, "split: is empty: it needs at least one service, with its weight"),
    "no weight": ({"split": {"main": 0}}, "split: has no weight but 0, so no service would get a request"),
    "negative": ({"split": {"main": -1}}, "split.main: '-1' is less than 0"),
    "share": ({"split": {"main": "95%"}}, "split.main: must be a whole number: write 95"),
    "beside a service": (
        {"split": {"main": 1}, "service": "main"},
        "split: is given beside service: only one can answer",
    ),
    "by, alone": ({"service": "main", "split_by": "principal"}, "split_by: has no effect without split"),
    "by what": (
        {"split": {"main": 1}, "split_by": "cookie"},
        "split_by: 'cookie' does not say which: write {cookie: NAME}",
    ),
    "by whom": (
        {"split": {"main": 1}, "split_by": "client"},
        "split_by: 'client' is not principal, nor a map such as {header: X-Name} or {cookie: name}",
    ),
    "by both": (
        {"split": {"main": 1}, "split_by": {"header": "a", "cookie": "b"}},
        "split_by: goes by both header and cookie: write one of them",
    ),
    "by nothing": ({"split": {"main": 1}, "split_by": {}}, "split_by: goes by nothing"),
    "a name": (
        {"split": {"main": 1}, "split_by": {"header": "a b"}},
        "split_by.header: 'a b' is not the name of a header or cookie",
    ),
    "no secret": (
        {"split": {"main": 1}, "split_by": {"cookie": "a"}},
        "split_by.cookie: needs gateway.cookie_secret_file, whose secret signs it",
    ),
}


def problems_of(tmp_path: Path, route: dict[str, Any], gateway: dict[str, Any]) -> list[str]:
    document = {
        "gateway": gateway,
        "services": {"main": {"targets": ["http://a"]}, "other": {"targets": ["http://b"]}},
        "routes": [{"path": "/a", **route}],
    }
    (tmp_path / "a.yaml").write_text(json.dumps(document))
    with pytest.raises(ConfigError) as caught:
        load(str(tmp_path), {}, RULES)
    return [re.sub(r"^.*?:[0-9]+:[0-9]+: (routes\[0\]\.)?", "", str(problem)) for problem in caught.value.problems]


@pytest.mark.parametrize("kind", MISTAKES)
def test_mistakes(tmp_path: Path, kind: str) -> None:
    """Each is named with its place."""
    route, said = MISTAKES[kind]
    assert problems_of(tmp_path, route, {}) == [said]


SECRETS = {
    "short": (b"secret", "holds a secret of 6 bytes that can be guessed: `openssl rand -hex 32` makes a good one"),
    "of one letter": (
        b"a" * 64,
        "holds a secret of 64 bytes that can be guessed: `openssl rand -hex 32` makes a good one",
    ),
    "the second": (
        SECRET + b"\nold\n",
        "holds a secret of 3 bytes that can be guessed: `openssl rand -hex 32` makes a good one",
    ),
    "none": (b" \n\n", "holds no secret"),
}


@pytest.mark.parametrize("kind", SECRETS)
def test_secrets_that_are_none(tmp_path: Path, kind: str) -> None:
    """A cookie that anybody can sign is none."""
    content, said = SECRETS[kind]
    (tmp_path / "cookies").write_bytes(content)
    route = {"split": {"main": 1}, "split_by": {"cookie": "a"}}
    (problem,) = problems_of(tmp_path, route, {"cookie_secret_file": "cookies"})
    assert problem.endswith(said)


def test_a_share_that_no_client_would_get(tmp_path: Path) -> None:
    """A cookie has 10,000 positions."""
    (tmp_path / "cookies").write_bytes(SECRET + b"\n")
    route = {"split": {"main": 99_999, "other": 1}, "split_by": {"cookie": "a"}}
    (problem,) = problems_of(tmp_path, route, {"cookie_secret_file": "cookies"})
    assert problem == "split.other: is less than 0.01 % of all weights, the least share of clients with a cookie"
