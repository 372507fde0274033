"""Which bodies are valid, and what is told of the others."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from support.later_threads import Later
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from apigw.plugin import Malformed, MediaType, Threads
from apigw.plugins.json_schema.plugin import ALL_NAMED, AT_A_TIME, IN_THREAD, MOST_PROBLEMS, JSONSchema

ORDER = {
    "type": "object",
    "required": ["name"],
    "properties": {
        "name": {"type": "string", "pattern": "^(a+)+$"},
        "items": {"type": "array", "items": {"properties": {"a/b~c é": {"type": "integer"}}}},
        "when": {"format": "date"},
    },
    "additionalProperties": False,
}


class Place:
    """The context of a plugin, as far as this one looks at it. Threads run when the test says so."""

    def __init__(self, directory: Path) -> None:
        self.directory = str(directory)
        self.timeout = 2.0
        self.reactor = Later()

    def threads(self, most: int, seconds: float) -> Threads:
        return Threads(self.reactor, most, seconds)


def plugin(directory: Path, place: Any = None, **config: Any) -> JSONSchema:
    made = JSONSchema()
    context: Any = place or Place(directory)
    made.prepare({"size": 1 << 20, "depth": 64, "fractions": 1000, "formats": True, **config}, context)
    return made


def problems(directory: Path, value: object) -> list[tuple[str, str]]:
    return plugin(directory, schema=ORDER).problems(json.dumps(value).encode())


def test_problems_are_named(tmp_path: Path) -> None:
    """Each has a JSON Pointer and a sentence, which does not show the value."""
    assert problems(tmp_path, {"name": "aa", "items": [{"a/b~c é": 1}], "when": "2026-01-31"}) == []
    found = problems(tmp_path, {"name": "secret", "items": [{}, {"a/b~c é": "x"}], "when": "now"})
    assert sorted(found) == [
        ("#/items/1/a~1b~0c%20%C3%A9", 'the value is not of type "integer"'),
        ("#/name", 'the value does not match "^(a+)+$"'),
        ("#/when", 'the value is not a "date"'),
    ]
    assert problems(tmp_path, []) == [("#", 'the value is not of type "object"')]


def test_expressions_take_no_time(tmp_path: Path) -> None:
    """One that others go back and forth in for ever is decided at once."""
    ((pointer, _),) = problems(tmp_path, {"name": "a" * 100_000 + "!"})
    assert pointer == "#/name"


def test_many_problems(tmp_path: Path) -> None:
    """So many are named; of a large body the first, which is found without looking for the others."""
    made = plugin(tmp_path, schema={"items": {"type": "string"}})
    assert len(made.problems(b"[" + b"1," * (ALL_NAMED // 2) + b"1]")) == MOST_PROBLEMS
    assert len(made.problems(b"[" + b"1," * ALL_NAMED + b"1]")) == 1


def test_problems_take_no_time(tmp_path: Path) -> None:
    """Neither the first, which may have a problem of each value and each way to try it within, nor all of them."""
    ways: list[Any] = [
        {"type": "object", "required": ["kind"], "properties": {"kind": {"const": number}}} for number in range(20)
    ]
    flat = plugin(tmp_path, schema={"items": {"oneOf": ways}})
    tree = {"anyOf": [{"type": "array", "items": {"$ref": "#/$defs/tree"}}, *ways]}
    nested = plugin(tmp_path, schema={"$ref": "#/$defs/tree", "$defs": {"tree": tree}})
    began = time.process_time()
    for size in (1000, 10_000):
        assert flat.problems(b"[" + b"{}," * size + b"{}]") == [
            ("#", "the value is not valid, and too large to say where")
        ]
        assert nested.problems(b"[" + b"[{}]," * size + b"{}]")[0][0] == "#"
    assert time.process_time() - began < 0.5
    assert len(flat.problems(b"[" + b"{}," * 9 + b"{}]")) == MOST_PROBLEMS
    assert [pointer for pointer, _ in flat.problems(b'[{"kind": 1}, {"kind": 20}]')] == ["#/1"]


def recursive(*ways: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"$ref": "#/$defs/a~1b%20c", "$defs": {"a/b c": {"anyOf": [*ways], **more} if ways else more}}


NEXT = {"next": {"$ref": "#/$defs/a~1b%20c"}}
LEAF = {"leaf": {"type": "string"}}


@pytest.mark.parametrize(
    "schema",
    [
        recursive({"properties": NEXT, "required": ["next"]}, {"properties": {**NEXT, **LEAF}}),
        recursive(allOf=[{"properties": NEXT}, {"properties": {**NEXT, **LEAF}}]),
        recursive(properties=NEXT, patternProperties={"^n": {"$ref": "#"}, "^l": {"type": "string"}}),
        recursive(properties={**NEXT, **LEAF}, **{"$ref": "#/$defs/again"})
        | {
            "$defs": {"a/b c": {"$ref": "#/$defs/again", "properties": NEXT}, "again": {"properties": {**NEXT, **LEAF}}}
        },
        {"$dynamicAnchor": "n", "anyOf": [{"properties": {"next": {"$dynamicRef": "#n"}, **LEAF}}] * 2},
        {"$id": "http://a/b", "anyOf": [{"properties": {"next": {"$ref": "http://a/b"}, **LEAF}}] * 2},
        {
            "$ref": "#/$defs/0",
            "$defs": {str(at): {"anyOf": [{"$ref": f"#/$defs/{at + 1}"}] * 2} for at in range(16)} | {"16": False},
        },
    ],
    ids=["anyOf", "allOf", "patternProperties", "beside", "dynamic", "by-id", "many-references"],
)
def test_a_schema_that_refers_to_itself_takes_no_time(tmp_path: Path, schema: dict[str, Any]) -> None:
    """To say what is wrong with a value, where each is tried in several ways, would take twice as long for each
    level: a body of 500 bytes would stop the worker for ever."""
    made = plugin(tmp_path, schema=schema)
    began = time.process_time()
    assert made.problems(b'{"next": ' * 50 + b'{"leaf": 3}' + b"}" * 50) == [
        ("#", "the value is not valid, and too large to say where")
    ]
    assert time.process_time() - began < 1


def test_a_property_may_be_called_definitions(tmp_path: Path) -> None:
    """What is below it counts, as what is below any other."""
    ways = {"anyOf": [{"$ref": "#"}, {"$ref": "#", "type": "object"}]}
    made = plugin(tmp_path, schema={"properties": {"definitions": ways, **LEAF}})
    began = time.process_time()
    assert made.problems(b'{"definitions": ' * 15 + b'{"leaf": 3}' + b"}" * 15) == [
        ("#", "the value is not valid, and too large to say where")
    ]
    assert time.process_time() - began < 1


def test_problems_are_named_where_a_schema_refers_to_itself_once(tmp_path: Path) -> None:
    """As one of trees does; nothing is tried twice."""
    made = plugin(tmp_path, schema=recursive(properties={**NEXT, **LEAF}))
    ((pointer, _),) = made.problems(b'{"next": ' * 50 + b'{"leaf": 3}' + b"}" * 50)
    assert pointer == "#" + "/next" * 50 + "/leaf"


def test_references_that_lead_nowhere(tmp_path: Path) -> None:
    """In values that are compared they are none."""
    made = plugin(tmp_path, schema={"const": [{"$ref": "#/const/x/0"}, {"$ref": "#/const/0/$ref/y"}]})
    assert made.problems(b"1")[0][0] == "#"


def test_comparisons_take_no_time(tmp_path: Path) -> None:
    """No body makes all other requests wait while its numbers are compared, each of which takes up to a tenth of a
    millisecond in code that no other thread interrupts."""
    made = plugin(tmp_path, schema={"items": {"multipleOf": 0.01}})
    began = time.process_time()
    with pytest.raises(Malformed):
        made.problems(b"[" + b"1e300," * 150_000 + b"1e300]")
    made.problems(b"[" + b"1e300," * 999 + b"1e300]")
    assert time.process_time() - began < 1


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({}, "needs file or schema"),
        ({"file": "missing.json"}, "cannot be read"),
        ({"file": "broken.json"}, "is not JSON"),
        ({"schema": {"type": "nonsense"}}, "cannot be used"),
        ({"schema": {"$ref": "http://127.0.0.1:1/s.json"}}, "cannot be used"),
        ({"schema": {"$ref": "file:///etc/passwd"}}, "cannot be used"),
        ({"schema": {"pattern": "(?=a)"}}, "cannot be used"),
    ],
)
def test_schemas_that_cannot_be_used(tmp_path: Path, config: dict[str, Any], sentence: str) -> None:
    """Each is refused, in words."""
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(ValueError, match=sentence):
        plugin(tmp_path, **config)


def test_a_schema_of_a_file(tmp_path: Path) -> None:
    """It is beside the configuration."""
    (tmp_path / "order.json").write_text(json.dumps(ORDER))
    assert plugin(tmp_path, file="order.json").problems(b'{"name": "a"}') == []


class Sent:
    """A view of a request."""

    method = "POST"
    id = "1"

    def __init__(self, body: bytes, *fields: tuple[str, str]) -> None:
        self.body = body
        self.fields = fields or (("Content-Type", "application/json"),)
        self.request = self

    def all(self, name: str) -> list[str]:
        return [value for each, value in self.fields if each == name]

    @property
    def media_type(self) -> MediaType:
        return MediaType(self.all("Content-Type"))

    async def read_body(self, size: int) -> bytes:
        return self.body


def asked(made: JSONSchema, sent: Any) -> Deferred[Any]:
    return Deferred.fromCoroutine(made.on_request(sent))


def test_large_bodies_do_not_pile_up(tmp_path: Path) -> None:
    """What would wait for too long is 503 at once, and no failure of the plugin; what clients left counts."""
    made, place = plugin(tmp_path, schema={}), Place(tmp_path)
    made.threads = place.threads(AT_A_TIME, 1.0)
    body = b'"%b"' % (b"x" * (AT_A_TIME // 4 - 2))
    first, *others = [asked(made, Sent(body)) for _ in range(4)]
    first.addErrback(lambda _: None).cancel()
    refused: Any = failed(asked(made, Sent(body)))
    assert (refused.status, refused.code) == (503, "overloaded")
    place.reactor.end()
    passed = asked(made, Sent(body))
    while place.reactor.waiting:
        place.reactor.end()
    assert [answer.result for answer in (*others, passed)] == [None] * 4


def test_a_check_that_takes_too_long(tmp_path: Path) -> None:
    """It is 503 before it would be a failure of the plugin, with which a body may pass unchecked."""
    place = Place(tmp_path)
    made = plugin(tmp_path, place, schema={})
    answer = asked(made, Sent(b" " * IN_THREAD))
    place.reactor.advance(place.timeout * 0.8)
    refused: Any = failed(answer)
    assert (refused.status, refused.code) == (503, "overloaded")


def failed(answer: Deferred[Any]) -> BaseException | None:
    errors: list[Failure] = []
    answer.addErrback(errors.append)
    return errors[0].value


@pytest.mark.parametrize(
    ("fields", "good"),
    [
        ((("Content-Type", 'application/json; profile="x"; charset="UTF-8"'),), True),
        ((("Content-Type", "application/json"), ("Content-Encoding", "identity")), True),
        ((("Content-Type", "application/json; charset=utf-7"),), False),
        ((("Content-Type", "application/json; charset=utf-8; charset=utf-16"),), False),
        ((("Content-Type", "application/json; charset*=utf-16''x"),), False),
        ((("Content-Type", "application/json"), ("Content-Type", "text/plain")), False),
        ((("Content-Type", "application/json"), ("Content-Encoding", "identity"), ("Content-Encoding", "br")), False),
        ((("Content-Length", "2"),), False),
    ],
    ids=lambda value: "; ".join(each for _, each in value) if isinstance(value, tuple) else None,
)
def test_a_body_that_a_service_could_read_in_another_way(
    tmp_path: Path, fields: tuple[tuple[str, str], ...], good: bool
) -> None:
    """It is 415: another charset, or coding, or another type beside the right one."""
    answer = asked(plugin(tmp_path, schema={}), Sent(b"{}", *fields))
    error: Any = None if good else failed(answer)
    assert (answer.result is None) if good else error.status == 415
