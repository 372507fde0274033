"""Which trace the headers of a request belong to, and what the service is told."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from apigw.ops.tracing.propagation import Propagation
from apigw.ops.tracing.sampling import Sampler

TRACE, SPAN = b"0af7651916cd43dd8448eb211c80319c", b"b7ad6b7169203331"
PARENT = b"00-" + TRACE + b"-" + SPAN
ALL = Propagation(["w3c", "b3", "b3_multi"])


def read(*headers: tuple[bytes, bytes], propagation: Propagation = ALL) -> tuple[bytes, bytes, int, bytes] | None:
    assert propagation.concerns(list(headers)) or propagation.parent(list(headers)) is None
    parent = propagation.parent(list(headers))
    return None if parent is None else (parent.trace_id, parent.span_id, parent.sampled, parent.state)


@pytest.mark.parametrize(
    ("value", "sampled"),
    [
        (PARENT + b"-01", 1),
        (PARENT + b"-00", 0),
        (PARENT + b"-03", 1),
        (PARENT + b"-fe", 0),
        (b"cc" + PARENT[2:] + b"-01", 1),
        (b"cc" + PARENT[2:] + b"-01-what-comes", 1),
        (b"ff" + PARENT[2:] + b"-01", None),
        (PARENT + b"-01-more", None),
        (PARENT + b"-1", None),
        (PARENT + b"-0g", None),
        (PARENT.upper() + b"-01", None),
        (PARENT, None),
        (b"00-" + b"0" * 32 + b"-" + SPAN + b"-01", None),
        (b"00-" + TRACE + b"-" + b"0" * 16 + b"-01", None),
        (b"00-" + TRACE[1:] + b"-" + SPAN + b"-01", None),
        (b"00-" + TRACE + b"-" + SPAN + b"0-01", None),
        (b"", None),
        (b"-" * 100, None),
        (b"\xff" * 55, None),
    ],
)
def test_traceparent(value: bytes, sampled: int | None) -> None:
    """As Trace Context says; what is malformed counts as none."""
    expected = None if sampled is None else (TRACE, SPAN, sampled, b"a=1")
    assert read((b"traceparent", value), (b"tracestate", b"a=1")) == expected


def test_tracestate() -> None:
    """It goes with traceparent only, several are one list, and a long one is left out."""
    parent = (b"traceparent", PARENT + b"-01")
    assert read(parent, (b"tracestate", b"a=1"), (b"tracestate", b"b=2")) == (TRACE, SPAN, 1, b"a=1,b=2")
    assert read(parent, (b"tracestate", b"a=" + b"x" * 600)) == (TRACE, SPAN, 1, b"")
    assert read((b"tracestate", b"a=1")) is None
    assert read(parent, parent, (b"tracestate", b"a=1")) is None


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (TRACE + b"-" + SPAN, (TRACE, SPAN, -1)),
        (TRACE + b"-" + SPAN + b"-1", (TRACE, SPAN, 1)),
        (TRACE + b"-" + SPAN + b"-0-" + SPAN, (TRACE, SPAN, 0)),
        (TRACE + b"-" + SPAN + b"-d", (TRACE, SPAN, 1)),
        (TRACE[16:].upper() + b"-" + SPAN + b"-1", (b"0" * 16 + TRACE[16:], SPAN, 1)),
        (b"0", (b"", b"", 0)),
        (b"1", (b"", b"", 1)),
        (TRACE, None),
        (b"2", None),
        (b"", None),
        (TRACE + b"-" + SPAN + b"-2", None),
        (TRACE + b"-" + SPAN + b"-1-" + SPAN + b"-1", None),
        (b"x" + TRACE[1:] + b"-" + SPAN + b"-1", None),
        (b"0" * 32 + b"-" + SPAN + b"-1", None),
    ],
)
def test_b3(value: bytes, expected: tuple[bytes, bytes, int] | None) -> None:
    """Its one header, with half of an id, with a decision alone, or with none."""
    found = read((b"b3", value))
    assert found == (None if expected is None else (*expected, b""))
    assert read((b"b3", value), (b"b3", value)) is None


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"traceid": TRACE, "spanid": SPAN}, (TRACE, SPAN, -1)),
        ({"traceid": TRACE, "spanid": SPAN, "sampled": b"1", "parentspanid": SPAN}, (TRACE, SPAN, 1)),
        ({"traceid": TRACE, "spanid": SPAN, "sampled": b"false"}, (TRACE, SPAN, 0)),
        ({"traceid": TRACE, "spanid": SPAN, "flags": b"1"}, (TRACE, SPAN, 1)),
        ({"sampled": b"0"}, (b"", b"", 0)),
        ({"flags": b"1"}, (b"", b"", 1)),
        ({"traceid": TRACE}, None),
        ({"spanid": SPAN}, None),
        ({"sampled": b"maybe"}, None),
    ],
)
def test_b3_in_several(headers: dict[str, bytes], expected: tuple[bytes, bytes, int] | None) -> None:
    """Its several headers."""
    found = read(*((b"x-b3-" + name.encode(), value) for name, value in headers.items()))
    assert found == (None if expected is None else (*expected, b""))


def test_the_first_counts() -> None:
    """Of several formats, the first that is wanted and well-formed; those that are not wanted are not looked at."""
    w3c, b3 = (b"traceparent", PARENT + b"-01"), (b"b3", b"0")
    assert read(b3, w3c) == (TRACE, SPAN, 1, b"")
    assert read(w3c, b3, propagation=Propagation(["b3", "w3c"])) == (b"", b"", 0, b"")
    assert read((b"traceparent", b"x"), b3) == (b"", b"", 0, b"")
    assert read(w3c, propagation=Propagation(["b3"])) is None


def written(wanted: Iterable[str], *values: Any) -> list[tuple[bytes, bytes]]:
    return list(Propagation(wanted).fields(*values))


def test_what_services_get() -> None:
    """Each format that is wanted, with the span that calls."""
    state = b"a=1"
    assert written(["w3c"], TRACE, SPAN, b"", False, state) == [
        (b"traceparent", PARENT + b"-00"),
        (b"tracestate", state),
    ]
    assert written(["b3", "b3_multi"], TRACE, SPAN[:14], SPAN[14:], True, state) == [
        (b"b3", TRACE + b"-" + SPAN + b"-1-" + SPAN[:14] + b"00"),
        (b"x-b3-traceid", TRACE),
        (b"x-b3-spanid", SPAN),
        (b"x-b3-parentspanid", SPAN[:14] + b"00"),
        (b"x-b3-sampled", b"1"),
    ]
    for wanted in ("w3c", "b3", "b3_multi"):
        propagation = Propagation([wanted])
        for sampled in (True, False):
            found = read(*written([wanted], TRACE, SPAN, b"", sampled, b""), propagation=propagation)
            assert found == (TRACE, SPAN, int(sampled), b"")


def test_ids_are_different() -> None:
    """Each exchange has seven bytes of its own."""
    made = [ALL.new_spans() for _ in range(1000)]
    assert all(digits == raw.hex().encode() for raw, digits in made)
    ids = {raw for raw, _ in made}
    assert len(ids) == 1000
    assert {len(each) for each in ids} == {7}


def test_shares() -> None:
    """A share of all traces is recorded, the same by each program."""
    traces = [b"%032x" % (number * 0x9E3779B97F4A7C15F39CC0605CEDC835 % 2**128) for number in range(10_000)]
    for share in (0.0, 0.01, 0.5, 1.0):
        chosen = [each for each in traces if Sampler(share).chooses(each)]
        assert len(chosen) == pytest.approx(10_000 * share, rel=0.2)
        assert chosen == [each for each in traces if Sampler(share).chooses(each)]
    assert {each for each in traces if Sampler(0.1).chooses(each)} < {
        each for each in traces if Sampler(0.2).chooses(each)
    }
