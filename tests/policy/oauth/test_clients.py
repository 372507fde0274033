"""How a client proves itself: who is right waits as little as can be, and who is wrong learns nothing."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable

import pytest
from attrs import evolve
from twisted.internet.defer import Deferred

from apigw.errors import Overloaded
from apigw.policy.auth.hashing import UNKNOWN
from apigw.policy.auth.secrets import SecretHash, hash_generated, hash_secret
from apigw.policy.oauth.clients import Remembered
from apigw.policy.oauth.model import OAuthClient

from .test_endpoint import (
    ACME,
    BASIC,
    CHOOSY,
    CHOSEN,
    CONFIG,
    FORM,
    GENERATED,
    OTHER,
    G,
    Scene,
    at_once,
    basic,
    error,
    now_or_never,
)

RIGHT = basic("choosy", CHOSEN)


class Threads:
    """Where hashing is done: at once, or not at all while ``full``."""

    def __init__(self) -> None:
        self.full = False
        self.asked: list[str] = []

    def run(self, work: Callable[[], bool], id: str) -> Deferred[bool]:
        self.asked.append(id)
        if self.full:
            raise Overloaded("full", [(b"retry-after", b"1")])
        return at_once(work, id)


@pytest.fixture
def threads() -> Threads:
    return Threads()


@pytest.fixture
def scene(threads: Threads) -> Scene:
    return Scene(run=threads.run)


def test_who_was_right_is_served_when_all_threads_are_taken(scene: Scene, threads: Threads) -> None:
    """By the same secret, at no scrypt; a wrong one of the same client waits as before."""
    assert scene.ask(G, RIGHT).status == 200
    assert threads.asked == ["choosy"]
    threads.full = True
    for _ in range(3):
        assert scene.ask(G, RIGHT).status == 200
    assert threads.asked == ["choosy"]
    for wrong in (basic("choosy", CHOSEN + "x"), basic("acme", CHOSEN), basic("nobody", CHOSEN)):
        assert error(scene.ask(G, wrong)) == (503, "temporarily_unavailable")


def test_a_generated_secret_never_waits(scene: Scene, threads: Threads) -> None:
    """Its hash takes a microsecond; only who has none of the right ones waits for scrypt, as everybody then does."""
    threads.full = True
    assert scene.ask(G, BASIC).status == 200
    assert threads.asked == []
    for id in ("acme", "choosy", "nobody"):
        assert error(scene.ask(G, basic(id, OTHER))) == (503, "temporarily_unavailable")
    assert threads.asked == ["acme", "choosy", UNKNOWN + "nobody"]


def test_a_generated_secret_beside_a_chosen_one_does_not_wait(scene: Scene, threads: Threads) -> None:
    """In whatever order they are written."""
    both = OAuthClient("both", (*CHOOSY.secret_hash, hash_generated(GENERATED)))
    scene.reload(evolve(CONFIG, clients=(both,)))
    assert scene.ask(G, basic("both", GENERATED)).status == 200
    assert threads.asked == []
    assert scene.ask(G, basic("both", CHOSEN)).status == 200
    assert threads.asked == ["both"]


def test_where_no_secret_was_chosen_no_thread_is_used(scene: Scene, threads: Threads) -> None:
    """Nobody's answer costs scrypt then, so a wrong one need not."""
    scene.reload(evolve(CONFIG, clients=(ACME,)))
    for id in ("acme", "nobody"):
        assert error(scene.ask(G, basic(id, OTHER))) == (401, "invalid_client")
    assert threads.asked == []


CHANGED = {
    "nothing": (CHOOSY, True),
    "the secret": (evolve(CHOOSY, secret_hash=(hash_secret(CHOSEN),)), False),
    "one more secret": (evolve(CHOOSY, secret_hash=(*CHOOSY.secret_hash, hash_generated(OTHER))), False),
    "the roles": (evolve(CHOOSY, roles=("admin",)), False),
    "the id": (evolve(CHOOSY, id="other"), False),
}


@pytest.mark.parametrize(("client", "kept"), [pytest.param(*case, id=name) for name, case in CHANGED.items()])
def test_a_reload_that_changes_a_client_forgets_it(
    scene: Scene, threads: Threads, client: OAuthClient, kept: bool
) -> None:
    """What is remembered holds for the client as it was configured, and over reloads that leave it as it is."""
    assert scene.ask(G, RIGHT).status == 200
    scene.reload(evolve(CONFIG, clients=(ACME, client)))
    threads.asked.clear()
    assert scene.ask(G, basic(client.id, CHOSEN)).status == 200
    assert (threads.asked == []) == kept


def test_a_client_that_left_and_came_back_is_not_remembered(scene: Scene, threads: Threads) -> None:
    """Whoever takes a client out and puts it in again begins anew."""
    assert scene.ask(G, RIGHT).status == 200
    scene.reload(evolve(CONFIG, clients=(ACME,)))
    assert error(scene.ask(G, RIGHT)) == (401, "invalid_client")
    scene.reload(CONFIG)
    threads.full = True
    assert error(scene.ask(G, RIGHT)) == (503, "temporarily_unavailable")


def test_of_several_that_wait_one_is_hashed(monkeypatch: pytest.MonkeyPatch) -> None:
    """When a partner's machines all start at once, the first answer is that of all."""
    waiting: list[tuple[Callable[[], bool], Deferred[bool]]] = []

    def later(work: Callable[[], bool], id: str) -> Deferred[bool]:
        answer: Deferred[bool] = Deferred()
        waiting.append((work, answer))
        return answer

    hashed: list[str] = []
    matches = SecretHash.matches

    def counting(self: SecretHash, secret: str) -> bool:
        if self.cost is not None:
            hashed.append(secret)
        return matches(self, secret)

    monkeypatch.setattr(SecretHash, "matches", counting)
    scene = Scene(run=later)
    answers = [scene.respond([FORM, RIGHT], G) for _ in range(5)]
    for work, answer in waiting:
        answer.callback(work())
    assert [now_or_never(answer).status for answer in answers] == [200] * 5
    assert hashed == [CHOSEN.replace("+", " "), CHOSEN]


def test_what_is_remembered_is_no_secret_and_bounded() -> None:
    """As many digests as a client has hashes, each of which only this process can make."""
    one, other = Remembered(2), Remembered(2)
    for secret in ("first", "second", "second", "third"):
        one.add(secret)
        other.add(secret)
    assert [secret in one for secret in ("first", "second", "third", "fourth", "")] == [False, True, True, False, False]
    assert not set(one._digests) & set(other._digests)
    assert all(len(digest) == 32 for digest in one._digests)
    assert "third" not in repr(vars(one))


PLUS, SPACED = "base64+with/plus+signs==", "words of a pass phrase"


@pytest.mark.parametrize(
    ("sent", "accepted"),
    [
        (f"plus:{PLUS}", True),
        ("plus:base64%2Bwith%2Fplus%2Bsigns%3D%3D", True),
        ("plus:base64+with%2Fplus+signs%3D%3D", True),
        ("plus:base64 with/plus signs==", False),
        (f"my+client:{SPACED.replace(' ', '+')}", True),
        (f"my%20client:{SPACED.replace(' ', '%20')}", True),
        (f"my client:{SPACED}", True),
        (f"my+client:{SPACED}", True),
        (f"my%2Bclient:{SPACED}", False),
        (f"a+b:{PLUS}", True),
        ("a%2Bb:base64%2Bwith%2Fplus%2Bsigns%3D%3D", True),
        (f"a b:{PLUS}", False),
        (f"a%20b:{PLUS}", False),
        (f"nobody:{PLUS}", False),
        (f"plus:{SPACED.replace(' ', '+')}", False),
    ],
)
def test_a_plus_in_basic_is_a_space_or_itself(sent: str, accepted: bool) -> None:
    """RFC 6749 Appendix B has it a space, and clients that encode nothing mean a plus: each gets in with its own."""
    clients = (
        OAuthClient("plus", (hash_generated(PLUS),)),
        OAuthClient("my client", (hash_generated(SPACED),)),
        OAuthClient("a+b", (hash_generated(PLUS),)),
    )
    scene = Scene(evolve(CONFIG, clients=clients))
    response = scene.ask(G, (b"authorization", b"Basic " + b64encode(sent.encode())))
    assert response.status == (200 if accepted else 401)


def test_both_readings_of_a_plus_cost_the_same_for_every_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong secret with a plus does not tell whether there is such a client, nor does an id with one."""
    work: list[object] = []
    matches = SecretHash.matches

    def counting(self: SecretHash, secret: str) -> bool:
        work.append(self.cost)
        return matches(self, secret)

    monkeypatch.setattr(SecretHash, "matches", counting)
    scene = Scene(evolve(CONFIG, clients=(ACME, CHOOSY, evolve(ACME, id="a b"), evolve(ACME, id="c+d"))))
    for ids in (("acme", "choosy", "nobody"), ("a+b", "c+d", "no+body")):
        works = []
        for id in ids:
            work.clear()
            assert error(scene.ask(G, basic(id, "wrong+secret+of+somebody"))) == (401, "invalid_client")
            works.append(sorted(map(str, work)))
        assert works[0] == works[1] == works[2]
