"""The file of API keys: its lines, and how it is changed."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from apigw.cli.main import main
from apigw.policy.auth.api_keys import editing
from apigw.policy.auth.api_keys.records import HEADER, PREFIX, Record, check_file, digest_of, new_key, parse, rendered

HASH = digest_of(b"key")
LATER = "f" * 64


@pytest.mark.parametrize(
    "record",
    [
        Record(HASH, "acme"),
        Record(HASH, "acmé & co", ("a b", "ü"), ("orders.read", "x:y"), 1_800_000_000.0),
        Record(HASH, "a" * 256, ("r",)),
        Record(HASH, "#1", (), ("s",)),
    ],
    ids=str,
)
def test_a_record_is_its_line(record: Record) -> None:
    """Written and read it is the same."""
    line = rendered(record)
    assert line.endswith("\n")
    assert parse(line[:-1]) == record


BAD_LINES = {
    f"{HASH}\tacme\t\t": "five fields",
    f"{HASH} acme": "five fields",
    f"{HASH}\tacme\t\t\t\t": "five fields",
    f"{HASH.upper()}\tacme\t\t\t": "a hash",
    f"{HASH[1:]}\tacme\t\t\t": "a hash",
    f"{HASH}\t\t\t\t": "an id",
    f"{HASH}\t acme\t\t\t": "an id",
    f"{HASH}\tac\x00me\t\t\t": "an id",
    f"{HASH}\t{'a' * 257}\t\t\t": "an id",
    f"{HASH}\tacme\ta,,b\t\t": "a role",
    f"{HASH}\tacme\t\ta  b\t": "a scope",
    f'{HASH}\tacme\t\ta"\t': "a scope",
    f"{HASH}\tacme\t\t\t2027": "a time",
    f"{HASH}\tacme\t\t\t2027-02-30T00:00:00Z": "a time",
    f"{HASH}\tacme\t\t\t2027-01-31T12:00:00+01:00": "a time",
    f"{HASH}\tacme\t\t\t\n{HASH}\tacme\t\t\t": "is there twice",
    f"{LATER}\tacme\t\t\t\n{HASH}\tacme\t\t\t": "is not in order",
    f"{HASH}\tacme\t\t\t\n# comment": "a comment below keys",
    "": "five fields",
    f"{HASH}\t{'a' * 200}\t{'r' * 200}\t{'s' * 900}\t": "longer than 1024 bytes",
}


@pytest.mark.parametrize(("text", "sentence"), BAD_LINES.items(), ids=str)
def test_a_bad_line_is_told_with_its_number(tmp_path: Path, text: str, sentence: str) -> None:
    """And with what is wrong, but not with what is in it."""
    file = tmp_path / "keys"
    file.write_text(HEADER + text + "\n")
    with pytest.raises(ValueError, match=sentence) as caught:
        check_file(str(file))
    assert f"has a line {text.count(chr(10)) + 2} that" in str(caught.value)
    assert "acme" not in str(caught.value)


def test_a_file_is_told_as_a_whole(tmp_path: Path) -> None:
    """One that is not there, is a directory or a pipe, which is not waited for, has no end, or is not text."""
    file = tmp_path / "keys"
    for content, sentence in ((f"{HASH}\ta\t\t\t".encode(), "no end"), (b"\xff\n", "not UTF-8")):
        file.write_bytes(content)
        with pytest.raises(ValueError, match=f"has a line 1 that .*{sentence}"):
            check_file(str(file))
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path, sentence in (
        (tmp_path / "none", "does not exist"),
        (tmp_path, "is not a regular file"),
        (pipe, "is not a regular file"),
    ):
        with pytest.raises(ValueError, match=sentence):
            check_file(str(path))
    file.write_bytes(b"")
    check_file(str(file))


def test_keys_are_put_in_order_and_taken_out(tmp_path: Path) -> None:
    """The file is good after each change, keeps its mode, and is replaced."""
    path = str(tmp_path / "keys")
    keys = [new_key() for _ in range(20)]
    assert all(key.startswith(PREFIX) and len(key) == len(PREFIX) + 43 for key in keys)
    for number, key in enumerate(keys):
        editing.add(path, Record(digest_of(key.encode()), f"id{number % 3}"))
        check_file(path)
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    os.chmod(path, 0o640)
    inode = os.stat(path).st_ino
    assert editing.remove(path, "id1", digest_of(keys[1].encode())[:8]) == 1
    assert editing.remove(path, "id1") == 6
    assert editing.remove(path, "id") == 0
    check_file(path)
    assert [each.id for each in editing.records(path)].count("id0") == 7
    assert (stat.S_IMODE(os.stat(path).st_mode), os.stat(path).st_ino != inode) == (0o640, True)
    assert os.listdir(tmp_path) == ["keys"]


def test_a_file_that_was_put_together_is_sorted(tmp_path: Path) -> None:
    """Comments stay above, and what was there twice is there once."""
    file = tmp_path / "keys"
    one, two = f"{HASH}\ta\t\t\t\n", f"{LATER}\tb\t\t\t\n"
    file.write_text(HEADER + two + "\n# more\n" + one + two.rstrip("\n"))
    editing.sort(str(file))
    assert file.read_text() == HEADER + "# more\n" + one + two
    check_file(str(file))


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Make, list, revoke; the key is printed once, and is in no file."""
    path = str(tmp_path / "keys")
    words = [
        "keys",
        "make",
        path,
        "acme",
        "--role",
        "gold",
        "--role",
        "b",
        "--scope",
        "s",
        "--expires",
        "2027-01-31T12:00:00Z",
    ]
    assert main(words) == 0
    key = capsys.readouterr().out.strip()
    digest = digest_of(key.encode())
    assert main(["keys", "make", path, "other", "--expires", "90d"]) == 0
    capsys.readouterr()
    assert key not in Path(path).read_text()
    assert main(["keys", "list", path, "--id", "acme"]) == 0
    assert capsys.readouterr().out == f"{digest[:12]}  acme  roles: gold, b  scopes: s  expires: 2027-01-31T12:00:00Z\n"
    assert main(["keys", "revoke", path, "acme", "--hash", "0" * 12]) == 1
    assert main(["keys", "revoke", path, "acme", "--hash", digest[:12]]) == 0
    assert main(["keys", "sort", path]) == 0
    assert [each.id for each in editing.records(path)] == ["other"]
    capsys.readouterr()
    for bad in (["make", path, "a", "--expires", "soon"], ["make", path, "a", "--role", "x,y"], ["list", path + "x"]):
        assert main(["keys", *bad]) == 1
        assert capsys.readouterr().err.startswith("apigw: ")
