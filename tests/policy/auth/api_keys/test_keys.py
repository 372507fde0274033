"""API keys: whose are taken, and one table of all that are not."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from apigw.config.errors import ConfigError
from apigw.contract.principal import Principal
from apigw.errors import Unauthorized
from apigw.policy.auth.api_keys import editing
from apigw.policy.auth.api_keys import keys as keys_module
from apigw.policy.auth.api_keys.keys import Keys
from apigw.policy.auth.api_keys.model import APIKeys
from apigw.policy.auth.api_keys.opening import by_header
from apigw.policy.auth.api_keys.records import Record, digest_of, new_key

NOW = 1_800_000_000.0
KEY, OTHER, PAST, SOON = (new_key().encode() for _ in range(4))


def record(key: bytes, id: str, roles: tuple[str, ...] = (), expires: float | None = None) -> Record:
    return Record(digest_of(key), id, roles, ("orders.read",) if roles else (), expires)


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = str(tmp_path / "partners.keys")
    editing.add(path, record(KEY, "acme", ("partner", "gold")))
    editing.add(path, record(PAST, "acme", (), NOW - 1))
    editing.add(path, record(SOON, "acme", (), NOW + 10))
    return path


@pytest.fixture
def keys(file: str) -> Keys:
    return opened(file)


def opened(*files: str) -> Keys:
    (keys,) = by_header([APIKeys(f"p{number}", file) for number, file in enumerate(files)], {})
    return keys


def accept(keys: Keys, key: bytes, now: float = NOW) -> Principal:
    found = keys.authenticate([key], now)
    assert isinstance(found, Principal)
    return found


def refuse(keys: Keys, sent: Sequence[bytes], now: float = NOW, providers: frozenset[str] | None = None) -> str:
    with pytest.raises(Unauthorized) as caught:
        keys.remembered(sent, now)
        keys.verify(sent, now, providers)
    assert caught.value.headers == [(b"www-authenticate", b'Key realm="apigw", header="X-API-Key"')]
    assert caught.value.reason is not None
    assert not any(key.decode() in str(caught.value) for key in sent if key)
    return caught.value.reason


def test_a_key_says_who_calls(keys: Keys) -> None:
    """With the roles and scopes of its line; the second time without a look at the file."""
    found = accept(keys, KEY)
    assert (found.provider, found.id, found.roles) == ("p0", "acme", ("partner", "gold"))
    assert found.scopes == {"orders.read"}
    assert accept(keys, KEY) is found
    assert found.claims == {}
    assert keys.field == b"x-api-key"


REFUSED: dict[str, tuple[Sequence[bytes], str]] = {
    "unknown": ([OTHER], "unknown_key"),
    "expired": ([PAST], "expired"),
    "twice": ([KEY, KEY], "several"),
    "two": ([KEY, OTHER], "several"),
    "empty": ([b""], "malformed"),
    "a space in it": ([KEY[:20] + b" " + KEY[20:]], "malformed"),
    "spaces around it": ([b" " + KEY + b" "], "malformed"),
    "two in one": ([KEY + b"," + b" " + KEY], "malformed"),
    "with a scheme": ([b"Bearer " + KEY], "malformed"),
    "a tab": ([KEY + b"\t"], "malformed"),
    "NUL": ([KEY + b"\0"], "malformed"),
    "not ASCII": ([KEY + "é".encode()], "malformed"),
    "short": ([KEY[:15]], "malformed"),
    "of 10 KiB": ([b"k" * 10_240], "malformed"),
    "cut": ([KEY[:-1]], "unknown_key"),
    "one letter more": ([KEY + b"a"], "unknown_key"),
    "in capitals": ([KEY.upper()], "unknown_key"),
    "its hash": ([digest_of(KEY).encode()], "unknown_key"),
    "a line of the file": ([digest_of(KEY).encode() + b"\tacme"], "malformed"),
    "a comment": ([b"# API keys, as HASH"], "malformed"),
}


@pytest.mark.parametrize(("sent", "reason"), [pytest.param(*case, id=name) for name, case in REFUSED.items()])
def test_what_is_no_key_is_refused(keys: Keys, sent: Sequence[bytes], reason: str) -> None:
    """With its reason, also the second time, and nothing of it is remembered or repeated."""
    assert [refuse(keys, sent), refuse(keys, sent)] == [reason, reason]
    assert not keys._seen


def test_no_key_is_nobody(keys: Keys) -> None:
    """A key in the query is none."""
    assert keys.authenticate([], NOW) is None


def test_a_key_expires_though_it_is_remembered(keys: Keys) -> None:
    """To the second."""
    assert accept(keys, SOON, NOW + 9.9).expires == NOW + 10
    assert refuse(keys, [SOON], NOW + 10) == "expired"


def test_a_route_takes_the_keys_of_its_providers_alone(file: str, tmp_path: Path) -> None:
    """Of two files for one header; also where the key is remembered."""
    second = str(tmp_path / "second.keys")
    editing.add(second, record(OTHER, "other"))
    keys = opened(file, second)
    assert (accept(keys, KEY).provider, accept(keys, OTHER).provider) == ("p0", "p1")
    assert refuse(keys, [KEY], providers=frozenset({"p1"})) == "provider"
    assert keys.providers() == {"p0", "p1"}


def test_what_is_remembered_is_bounded(file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The least recently used goes first."""
    monkeypatch.setattr(keys_module, "REMEMBERED", 2)
    more = [new_key().encode() for _ in range(3)]
    for key in more:
        editing.add(file, record(key, "acme"))
    keys = opened(file)
    for key in (more[0], more[1], more[0], more[2]):
        accept(keys, key)
    assert list(keys._seen) == [more[0], more[2]]


def test_a_reload_ends_revoked_keys(file: str) -> None:
    """A file that is the same keeps what is remembered; until the reload a replaced file changes nothing."""
    before = opened(file)
    found = accept(before, KEY)
    same = opened(file)
    same.take_over(before)
    assert accept(same, KEY) is found
    assert editing.remove(file, "acme", digest_of(KEY)[:12]) == 1
    assert accept(same, KEY) is found
    assert accept(same, SOON).id == "acme"
    after = opened(file)
    after.take_over(same)
    assert refuse(after, [KEY]) == "unknown_key"
    assert accept(after, SOON).id == "acme"


def test_a_line_that_was_broken_after_the_check_is_no_key(file: str) -> None:
    """Somebody writes into the file in place."""
    with open(file, "r+b") as content:
        lines = content.read().replace(b"acme", b"ac\0e")
        content.seek(0)
        content.write(lines)
    assert refuse(opened(file), [KEY]) == "unknown_key"


def test_a_file_that_is_missing_is_told() -> None:
    """With the place in the configuration."""
    with pytest.raises(ConfigError, match=r"auth\.api_keys\[0\]\.file: '/no/file' cannot be read: No such file"):
        opened("/no/file")


def test_each_header_is_a_kind_of_its_own(file: str) -> None:
    """Whatever its capitals."""
    found = by_header([APIKeys("a", file), APIKeys("b", file, "X-Key"), APIKeys("c", file, "x-api-key")], {})
    assert [(each.field, sorted(each.providers())) for each in found] == [(b"x-api-key", ["a", "c"]), (b"x-key", ["b"])]
