"""A key is found in a file of any size, and in one that is broken nothing worse happens than that it is not."""

from __future__ import annotations

import random
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from apigw.policy.auth.api_keys import search
from apigw.policy.auth.api_keys.records import HEADER, MAX_LINE
from apigw.policy.auth.api_keys.search import COPIED, FAR, KeyFile


def digest(number: int) -> bytes:
    return sha256(b"%d" % number).hexdigest().encode()


def line(number: int, least: int = 0) -> bytes:
    chance = random.Random(number)
    return digest(number) + b"\tid-%d\t%s\t\t" % (number, b"r" * max(least, chance.randrange(60)))


def written(directory: Path, lines: Iterable[bytes], before: bytes = HEADER.encode()) -> KeyFile:
    path = directory / "keys"
    path.write_bytes(before + b"".join(each + b"\n" for each in lines))
    return KeyFile(str(path))


@pytest.mark.parametrize("count", [0, 1, 2, 20, 40, 41, 42, 43, 100, 5000])
@pytest.mark.parametrize("before", [b"", HEADER.encode(), b"#\n" * 3000], ids=["no comment", "one", "many"])
def test_every_key_is_found_and_no_other(tmp_path: Path, count: int, before: bytes) -> None:
    """Whether they are one block of the file, a few, or many."""
    lines = sorted(line(number) for number in range(count))
    file = written(tmp_path, lines, before)
    for each in lines[:: max(1, count // 50)] + lines[-1:]:
        assert file.find(each[:64]) == each
    for number in range(-1, -50, -1):
        assert file.find(digest(number)) is None
    assert file.find(b"0" * 64) is None
    assert file.find(b"f" * 64) is None


class Counted(bytes):
    """Counts how often a part of it is taken."""

    taken = 0

    def __getitem__(self, key: Any) -> Any:
        Counted.taken += 1
        return super().__getitem__(key)


def test_a_few_steps_are_enough(tmp_path: Path) -> None:
    """Of 20,000 keys each is found by four or five, with that for the whole line."""
    lines = sorted(line(number) for number in range(20_000))
    file = written(tmp_path, lines)
    file._data, Counted.taken = Counted(file._data), 0
    for each in lines[::100]:
        assert file.find(each[:64]) == each
    assert Counted.taken / 200 < 6


@pytest.fixture(params=[COPIED, 0], ids=["copied", "mapped"], autouse=True)
def kept(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that are held in memory, and those that are mapped."""
    monkeypatch.setattr(search, "COPIED", request.param)


def test_long_lines_are_found(tmp_path: Path) -> None:
    """Up to the longest that a file may have."""
    lines = sorted(line(number, MAX_LINE - 100) for number in range(50))
    file = written(tmp_path, lines)
    assert all(file.find(each[:64]) == each for each in lines)


def test_keys_that_lie_close_together_are_found(tmp_path: Path) -> None:
    """As no hashes do: then the range is halved."""
    lines = sorted((b"7" * 60 + b"%04x\tid\t\t\t" % number for number in range(3000)), key=lambda each: each)
    file = written(tmp_path, [b"0" * 64 + b"\ta\t\t\t", *lines, b"f" * 64 + b"\tb\t\t\t"])
    assert all(file.find(each[:64]) == each for each in lines[::10])


BROKEN = {
    "empty": b"",
    "a comment without end": b"# keys",
    "no newline": b"a" * 6 * FAR,
    "newlines": b"\n" * 6 * FAR,
    "zeros": bytes(6 * FAR),
    "not sorted": b"".join(line(number) + b"\n" for number in range(300)),
    "no hashes": b"".join(b"%040d\tid\t\t\t\n" % number for number in range(300)),
    "the last line cut": b"".join(sorted(line(number) + b"\n" for number in range(300)))[:-30],
}


@pytest.mark.parametrize("content", [pytest.param(content, id=name) for name, content in BROKEN.items()])
def test_a_broken_file_finds_nothing_wrong(tmp_path: Path, content: bytes) -> None:
    """Whatever is found is a line with that hash; the search ends."""
    path = tmp_path / "keys"
    path.write_bytes(content)
    file = KeyFile(str(path))
    for number in range(100):
        found = file.find(digest(number))
        assert found is None or found.startswith(digest(number) + b"\t")


def test_a_line_without_an_end_is_none(tmp_path: Path) -> None:
    """It may have been cut: without the end of its expiry it would hold for ever."""
    path = tmp_path / "keys"
    lines = sorted(line(number) for number in range(300))
    path.write_bytes(b"\n".join(lines))
    assert KeyFile(str(path)).find(lines[-1][:64]) is None
    path.write_bytes(b"\n".join(lines) + b"\n")
    assert KeyFile(str(path)).find(lines[-1][:64]) == lines[-1]


def test_a_small_file_that_is_cut_short_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As by ``> partners.keys``, until the next reload."""
    monkeypatch.setattr(search, "COPIED", COPIED)
    lines = sorted(line(number) for number in range(2000))
    file = written(tmp_path, lines)
    (tmp_path / "keys").write_bytes(b"")
    assert file.find(lines[7][:64]) == lines[7]


def test_a_file_that_is_replaced_stays_as_it_was(tmp_path: Path) -> None:
    """Until the next reload opens the new one."""
    lines = sorted(line(number) for number in range(2000))
    file = written(tmp_path, lines)
    other = tmp_path / "other"
    other.write_bytes(b"")
    other.rename(tmp_path / "keys")
    assert file.find(lines[7][:64]) == lines[7]
    assert KeyFile(str(tmp_path / "keys")).stamp != file.stamp
