"""Every mistake in a configuration is named, at its line and column. The table is in mistakes.txt."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from apigw.config.errors import ConfigError
from apigw.config.load import load
from apigw.process.rules import RULES

Write = Callable[[Mapping[str, str | bytes]], str]

USERS = "services: {users: {targets: [http://127.0.0.1:9001]}}\n"
ENVIRON = {
    "PORT": "8080",
    "EMPTY": "",
    "PASSWORD": "hunter2",
    "HSH": "sha256$" + 64 * "0",
    "LIST": "[a, b]",
    "PEM": "-----BEGIN PUBLIC KEY-----\nMIIB",
}


def table() -> Iterator[tuple[str, str, list[str]]]:
    """Name, text and problems of each case."""
    text = (Path(__file__).parent / "mistakes.txt").read_text()
    for case in text.split("\n=== ")[1:]:
        name, *lines = case.rstrip("\n").split("\n")
        yaml = "".join(line + "\n" for line in lines if not line.startswith("--> "))
        yield name, yaml, [line.removeprefix("--> ") for line in lines if line.startswith("--> ")]


def problems_of(directory: str, environ: Mapping[str, str] = ENVIRON) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(directory, environ, RULES)
    return [str(problem).removeprefix("etc/gateway.yaml:") for problem in caught.value.problems]


@pytest.mark.parametrize(("text", "expected"), [pytest.param(text, said, id=name) for name, text, said in table()])
def test_mistake(write: Write, key_files: dict[str, str | bytes], text: str, expected: list[str]) -> None:
    """Somebody makes this mistake and is not told what it is and where, or hears of things that are right."""
    directory = write({**key_files, "services/users.yaml": USERS, "gateway.yaml": text.rstrip("\n") + "\n"})
    problems = problems_of(directory)
    assert problems == expected
    assert "hunter2" not in "".join(problems)


def test_the_table_is_large() -> None:
    """The table was not read, and every test of it passed."""
    assert len(list(table())) > 250


@pytest.mark.parametrize(
    "text", ["gateway: {}\n\n\n", "gateway: {}\r\n", "\ufeffgateway: {}\n", "---\ngateway: {}\n...\n"]
)
def test_harmless_layout(write: Write, text: str) -> None:
    """An editor's line ends, byte order mark or document marks make a good file bad."""
    assert load(write({"gateway.yaml": text}), {}, RULES).gateway.max_connections == 10_000


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"gateway:\n  admin: caf\xe9\n", "2:13: is not UTF-8: byte 0xe9"),
        ("gateway: {}\n".encode("utf-16"), "1:1: is not UTF-8: byte 0xff"),
        (b"gateway:\n  admin: a\0b\n", "2:11: contains the control character U+0000"),
        (b"gateway:\r\n  admin: a\x1bb\r\n", "2:11: contains the control character U+001B"),
        (b"# " + b"x" * (16 << 20), "1:1: is larger than 16MiB"),
        (
            b"gateway:\n" + b"  drain_delay: 0s\n" * 2,
            "3:3: gateway.drain_delay: is given twice, first at etc/gateway.yaml:2:3",
        ),
    ],
)
def test_bytes_that_are_no_text(write: Write, data: bytes, expected: str) -> None:
    """A file in another encoding, or a binary one, is refused without saying where it goes wrong."""
    assert problems_of(write({"gateway.yaml": data})) == [expected]


def test_billion_laughs(write: Write) -> None:
    """A small file that unfolds into gigabytes takes the machine down."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    problems = problems_of(write({"gateway.yaml": "\n".join(lines)}))
    assert "2:10: a1[0]: refers to *a0: anchors and aliases are not supported, write the value out" in problems


def test_deep_nesting(write: Write) -> None:
    """What is nested too deep is refused at its place, however deep it is."""
    for text, place in [
        *(("[" * size, "1:34") for size in (34, 1_000, 1_100, 100_000)),
        *(("{a: " * size, "1:133") for size in (34, 1_000, 1_100, 100_000)),
        *((each * 100_000, "1:67") for each in ("- ", "? ")),
        ("gateway:\n  admin: " + "[" * 2_000 + "]" * 2_000, "2:41"),
        ("[a: " * 2_000, "1:66"),
    ]:
        assert problems_of(write({"gateway.yaml": text})) == [f"{place}: is nested more than 32 deep"]


def test_brackets_that_are_not_nested_too_deep(write: Write) -> None:
    """They do not hide what is wrong behind them."""
    for text in ("[" * 10 + "]" * 10 + "," * 2, f"gateway: ['{'[' * 1_000}', @]", f"# {'[' * 500}\n@"):
        assert all("is not YAML" in problem for problem in problems_of(write({"gateway.yaml": text})))


def test_no_directory(tmp_path: Path) -> None:
    """A mistyped --config starts a gateway with an empty configuration."""
    assert problems_of(str(tmp_path / "nowhere")) == [f"{tmp_path}/nowhere: there is no such directory"]


def test_directory_is_a_file(write: Write) -> None:
    """--config names one file of several, and the others are silently left out."""
    assert problems_of(write({"a.yaml": ""}) + "/a.yaml") == ["etc/a.yaml: cannot be read: Not a directory"]


def test_no_files(write: Write) -> None:
    """A directory without configuration starts a gateway with an empty one."""
    assert problems_of(write({"README": ""})) == ["etc: contains no configuration: there is no *.yaml file in it"]


def test_what_is_no_file(write: Write, tmp_path: Path) -> None:
    """A directory, a dangling link or a pipe among the files ends in a traceback, or in waiting for ever."""
    directory = write({"a.yaml": ""})
    (tmp_path / "etc/b.yaml").mkdir()
    (tmp_path / "etc/c.yaml").symlink_to("nowhere")
    os.mkfifo(tmp_path / "etc/d.yaml")
    assert problems_of(directory) == [
        "etc/b.yaml:1:1: is not a regular file",
        "etc/c.yaml:1:1: cannot be read: No such file or directory",
        "etc/d.yaml:1:1: is not a regular file",
    ]


def test_unreadable_file(write: Write, tmp_path: Path) -> None:
    """A file that the daemon's user may not read ends in a traceback."""
    directory = write({"a.yaml": "gateway: {}"})
    (tmp_path / "etc/a.yaml").chmod(0)
    if os.access(tmp_path / "etc/a.yaml", os.R_OK):
        pytest.skip("this user reads everything")
    assert problems_of(directory) == ["etc/a.yaml:1:1: cannot be read: Permission denied"]


def test_all_problems_of_all_files(write: Write) -> None:
    """One mistake hides the others, so that a configuration is repaired in as many rounds as it has mistakes."""
    files = {
        "a.yaml": "gateway: {request_timeout: 30}\nroutes: [{path: a, service: nobody}]\n",
        "b.yaml": "gateway: [\n",
        "services/c.yaml": "services: {orders: {targets: []}}\n",
    }
    assert problems_of(write(files)) == [
        "etc/a.yaml:1:28: gateway.request_timeout: '30' has no unit: write 30s",
        "etc/a.yaml:2:17: routes[0].path: 'a' does not begin with /",
        "etc/b.yaml:2:1: is not YAML: did not find expected node content "
        "while parsing a flow node that begins at line 2",
        "etc/services/c.yaml:1:30: services.orders.targets: is empty: it needs at least one entry",
    ]


def test_what_is_missing_may_be_in_the_file_that_does_not_parse(write: Write) -> None:
    """A stray bracket in one file is reported with a hundred routes whose services are in that file."""
    files = {"a.yaml": "routes: [{path: /a, service: users, auth: required}]\n", "b.yaml": "services: [\n"}
    assert len(problems_of(write(files))) == 1


@pytest.mark.parametrize("text", ["redis: null\n", "auth: null\n", "rate_limits: []\n"])
def test_a_section_may_be_switched_off(write: Write, text: str) -> None:
    """Null, or an empty list, asks for nothing."""
    load(write({"gateway.yaml": text}), {}, RULES)


def test_a_hundred_thousand_mistakes_do_not_stall(write: Write) -> None:
    """Looking for the nearest name of each of very many mistyped ones takes minutes."""
    services = "services:\n" + "".join(f"  service-{n}: {{targets: [http://a]}}\n" for n in range(2000))
    routes = "routes:\n" + "".join(f"  - {{path: /{n}, service: servce-{n}}}\n" for n in range(2000))
    problems = problems_of(write({"a.yaml": services, "gateway.yaml": routes}))
    assert len(problems) == 2000
    assert 0 < sum("did you mean" in problem for problem in problems) < 100
