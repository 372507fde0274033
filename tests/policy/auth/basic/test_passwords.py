"""HTTP Basic: whose passwords are taken, and one table of all that are not."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.python.failure import Failure

from apigw.config.errors import ConfigError
from apigw.contract.principal import Principal
from apigw.errors import Overloaded, Unauthorized
from apigw.policy.auth.basic.model import BasicProvider
from apigw.policy.auth.basic.opening import users_of
from apigw.policy.auth.basic.passwords import CHALLENGE, FORGOTTEN_AFTER, Passwords
from apigw.policy.auth.basic.users import parse
from apigw.policy.auth.secrets import hash_generated, hash_secret
from apigw.process.pieces import at_once

NOW = 1_800_000_000.0
PASSWORD, OTHER = "correct horse: battery", "another one"
QUICK, OTHER_HASH = hash_generated(PASSWORD), hash_generated(OTHER)
CHOSEN = "correct-horse-battery"
SLOW = hash_secret(CHOSEN)
FILE = f"# operators\nada:{QUICK}:admin,ops\r\n\nbob:{OTHER_HASH}\nzoë:{QUICK}:\n".encode()


class Threads:
    """Runs at once, and counts."""

    def __init__(self) -> None:
        self.ran: list[tuple[str, bytes]] = []

    def run(self, work: Callable[[], bool], name: str, caller: bytes) -> Deferred[bool]:
        self.ran.append((name, caller))
        return maybeDeferred(work)


class Scene:
    def __init__(self, **files: bytes) -> None:
        self.threads = Threads()
        self.passwords = Passwords({name: parse(data) for name, data in files.items()}, self.threads.run)

    def ask(self, sent: Sequence[bytes], now: float = NOW, providers: frozenset[str] | None = None) -> Any:
        """A principal, the reason of a refusal, or None."""
        try:
            known = self.passwords.remembered(sent, now)
            found: Any = known or self.passwords.verify(sent, now, providers, b"192.0.2.1")
        except Unauthorized as error:
            return said(error)
        if isinstance(found, Deferred):
            results: list[Any] = []
            found.addBoth(results.append)
            found = results[0]
        if isinstance(found, Failure):
            assert isinstance(found.value, Unauthorized)
            return said(found.value)
        return found


def said(error: Unauthorized) -> str | None:
    assert error.headers == [(b"www-authenticate", CHALLENGE)]
    return error.reason


def basic(name: str, password: str = PASSWORD) -> bytes:
    return b"Basic " + b64encode(f"{name}:{password}".encode())


@pytest.fixture
def scene() -> Scene:
    return Scene(ops=FILE)


def test_a_password_says_who_calls(scene: Scene) -> None:
    """With the roles of the line; the second time without hashing. A generated one that is right waits for nobody."""
    found = scene.ask([basic("ada")])
    assert isinstance(found, Principal)
    assert (found.provider, found.id, found.roles) == ("ops", "ada", ("admin", "ops"))
    assert scene.threads.ran == []
    assert scene.ask([basic("ada", OTHER)]) == "password"
    slow = Scene(ops=f"ada:{SLOW}:admin\n".encode())
    found = slow.ask([basic("ada", CHOSEN)])
    assert isinstance(found, Principal)
    assert slow.ask([basic("ada", CHOSEN)]) is found
    assert scene.threads.ran == slow.threads.ran == [("ada", b"192.0.2.1")]
    assert scene.ask([basic("zoë")]).roles == ()
    assert scene.ask([basic("ada").replace(b"Basic ", b"bAsIc   ")]).id == "ada"


REFUSED: dict[str, tuple[Sequence[bytes], str | None]] = {
    "nothing": ([], None),
    "another scheme": ([b"Bearer abc"], None),
    "a wrong password": ([basic("ada", "wrong")], "password"),
    "another's password": ([basic("bob")], "password"),
    "an unknown name": ([basic("eve")], "password"),
    "a name in capitals": ([basic("ADA")], "password"),
    "no password": ([basic("ada", "")], "password"),
    "its hash": ([basic("ada", QUICK)], "password"),
    "twice": ([basic("ada")] * 2, "several"),
    "beside a token": ([basic("ada"), b"Bearer abc"], "several"),
    "no colon": ([b"Basic " + b64encode(b"ada")], "malformed"),
    "no name": ([basic("")], "malformed"),
    "nothing behind the scheme": ([b"Basic "], "malformed"),
    "broken base64": ([basic("ada")[:-1]], "malformed"),
    "base64url": ([b"Basic YWRhOsO_w78-Pj8_"], "malformed"),
    "a newline in it": ([basic("ada") + b"\n"], "malformed"),
    "a space in it": ([basic("ada")[:12] + b" " + basic("ada")[12:]], "malformed"),
    "NUL in the name": ([basic("ada\0")], "malformed"),
    "NUL in the password": ([basic("ada", PASSWORD + "\0")], "malformed"),
    "CR LF": ([basic("ada\r\nX-User-ID: root")], "malformed"),
    "not UTF-8": ([b"Basic " + b64encode(b"ada:\xff")], "malformed"),
    "a long password": ([basic("ada", "x" * 257)], "malformed"),
    "10 KiB": ([basic("ada", "x" * 10_000)], "malformed"),
}


@pytest.mark.parametrize(("sent", "reason"), [pytest.param(*case, id=name) for name, case in REFUSED.items()])
def test_what_is_no_password_is_refused(scene: Scene, sent: Sequence[bytes], reason: str | None) -> None:
    """The same for a wrong password and an unknown name, and after the same hashing; nothing is remembered."""
    assert [scene.ask(sent), scene.ask(sent)] == [reason, reason]
    assert len(scene.threads.ran) == (2 if reason == "password" else 0)
    assert not scene.passwords._seen


def test_a_password_is_forgotten_some_time_after_its_last_use() -> None:
    """Then it is hashed again; and nowhere does it stand in clear."""
    scene = Scene(ops=f"ada:{SLOW}\n".encode())
    scene.ask([basic("ada", CHOSEN)])
    for hours in (0.9, 1.8):
        scene.ask([basic("ada", CHOSEN)], NOW + hours * FORGOTTEN_AFTER)
    assert len(scene.threads.ran) == 1
    scene.ask([basic("ada", CHOSEN)], NOW + 2.8 * FORGOTTEN_AFTER)
    assert len(scene.threads.ran) == 2
    assert not any(basic("ada", CHOSEN)[6:] in digest for digest in scene.passwords._seen)


def test_one_caller_is_remembered_once_however_it_spells_its_password() -> None:
    """By spellings it would push out others, whose streams end then. One that it spells oddly goes on."""
    scene = Scene(ops=f"ada:{SLOW}:\n".encode())
    usual = basic("ada", CHOSEN)
    assert usual.endswith(b"eQ==")
    odd = [usual.replace(b"Basic ", b"basic" + b" " * number) for number in range(1, 9)] + [usual[:-3] + b"R=="]
    found = scene.ask([odd[0]])
    assert isinstance(found, Principal)
    assert all(scene.ask([each]) is found for each in [*odd, usual])
    assert len(scene.threads.ran) == len(scene.passwords._seen) == 1
    assert scene.passwords.again([odd[-1]], NOW, None) is found


def test_requests_at_the_same_time_have_a_password_hashed_once() -> None:
    """Else a client that begins with more of them than it has places would be refused; each has its own answer."""
    hashing: list[Deferred[bool]] = []

    def run(work: Callable[[], bool], name: str, caller: bytes) -> Deferred[bool]:
        hashing.append(Deferred())
        return hashing[-1]

    passwords = Passwords({"ops": parse(f"ada:{SLOW}:\n".encode())}, run)
    for outcome in (Overloaded("full"), False, True):
        came: list[Any] = []
        for _ in range(10):
            found = passwords.verify([basic("ada", CHOSEN)], NOW, None, b"192.0.2.1")
            assert isinstance(found, Deferred)
            found.addErrback(lambda failure: failure.value).addCallback(came.append)
        (asked,) = hashing
        hashing.clear()
        asked.callback(outcome) if isinstance(outcome, bool) else asked.errback(outcome)
        assert len(came) == 10
        if outcome is True:
            assert {each.id for each in came} == {"ada"}
        else:
            assert len(set(map(id, came))) == 10
            assert {type(each) for each in came} == {Unauthorized if outcome is False else Overloaded}
    assert passwords.remembered([basic("ada", CHOSEN)], NOW) is not None


def test_a_route_takes_the_passwords_of_its_providers_alone() -> None:
    """Two may have the same name, and are two callers."""
    scene = Scene(ops=FILE, others=f"ada:{OTHER_HASH}:guest\n".encode())
    assert scene.ask([basic("ada")], providers=frozenset({"others"})) == "password"
    assert scene.ask([basic("ada", OTHER)], providers=frozenset({"others"})).roles == ("guest",)
    assert scene.ask([basic("ada")], providers=frozenset({"ops"})).roles == ("admin", "ops")
    assert scene.passwords.providers() == {"ops", "others"}


def test_a_reload_keeps_callers_whose_line_is_the_same() -> None:
    """Others are hashed anew, or refused; a tunnel of theirs ends."""
    before = Scene(ops=FILE)
    for name, password in (("ada", PASSWORD), ("bob", OTHER), ("zoë", PASSWORD)):
        before.ask([basic(name, password)])
    after = Scene(ops=f"ada:{QUICK}:admin,ops\nbob:{OTHER_HASH}:more\n".encode())
    after.passwords.take_over(before.passwords)
    again = after.passwords.again([basic("ada")], NOW, None)
    assert again is not None
    assert again.id == "ada"
    for name, password in (("bob", OTHER), ("zoë", PASSWORD)):
        with pytest.raises(Unauthorized):
            after.passwords.again([basic(name, password)], NOW, None)
    assert after.ask([basic("bob", OTHER)]).roles == ("more",)
    assert after.ask([basic("zoë")]) == "password"


BAD_FILES = {
    b"": "no line NAME:HASH",
    b"# nothing\n": "no line NAME:HASH",
    b"\xff": "not UTF-8",
    b"ada\n": "a line 1 that is not NAME:HASH",
    b"# x\nada:$apr1$abc$def\n": "a line 2 that is not a hash that `apigw hash-secret` makes",
    f"ada:{QUICK}:a,,b\n".encode(): "a line 1 that has a role that is none",
    f" ada:{QUICK}\n".encode(): "a line 1 that is not NAME:HASH",
    f"ada:{QUICK}\nada:{OTHER_HASH}\n".encode(): "a line 2 that has a name that is there twice",
    f"ada:{QUICK} \n".encode(): "a line 1 that is not a hash",
}


@pytest.mark.parametrize(("data", "sentence"), BAD_FILES.items(), ids=str)
def test_a_bad_file_is_told_with_its_line(data: bytes, sentence: str, tmp_path: Path) -> None:
    """And with its place in the configuration, but not with what is in it."""
    file = tmp_path / "ops"
    file.write_bytes(data)
    with pytest.raises(ConfigError) as caught:
        at_once(users_of([BasicProvider("ops", str(file))], {}))
    message = str(caught.value)
    assert sentence in message
    assert message.startswith("auth.basic[0].file: ")
    assert QUICK not in message
