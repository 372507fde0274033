"""Request targets and the Host."""

from __future__ import annotations

import re

from hypothesis import strategies as st
from support.oracle import Malformed, Message, origin_form
from wire.test_target import PARTS, plainly_safe

from apigw.wire.errors import Refused
from apigw.wire.target import check_authority, check_target, split_absolute
from fuzz.target import Target


def check(data: bytes) -> None:
    """The first line is a target, the second a Host: what is taken is safe by the plain rules, and is not changed."""
    target, _, host = data.partition(b"\n")
    try:
        path, query = check_target(target)
    except Refused as refused:
        assert refused.status == 400
        assert not plainly_safe(target)
    else:
        assert plainly_safe(target)
        assert path + query == target
    try:
        check_authority(host)
    except Refused:
        return
    assert re.fullmatch(rb"[\x21-\x7e]+", host)
    assert not set(host) & set(b"/?#@\\ ")
    if target.startswith(b"/"):
        return
    try:
        origin, authority = split_absolute(target, host)
    except Refused as refused:
        assert refused.status == 400
        return
    assert origin.startswith((b"/", b"?"))
    check_authority(authority)
    try:
        strict = origin_form(Message(b"GET", target, b"1.1", ((b"Host", host),), b"", True))
    except Malformed:
        # What follows is checked as a path: a fragment, or bytes that no URI has.
        assert not plainly_safe(origin)
    else:
        assert strict == origin


HOSTS = [
    b"a",
    b"a:80",
    b"a:",
    b"A.example:443",
    b"[::1]",
    b"[::1]:80",
    b"a@b",
    b"%41",
    b"a:99999",
    b"",
    b":",
    b"[",
    b"a/b",
]
ABSOLUTE = st.tuples(
    st.sampled_from([b"http://", b"HTTPS://", b"ftp://", b"http:/", b"//", b"http://u@"]),
    st.sampled_from(HOSTS),
    st.lists(st.sampled_from(PARTS), max_size=6).map(b"".join),
).map(b"".join)
ORIGIN = st.lists(st.sampled_from(PARTS), max_size=10).map(lambda parts: b"/" + b"".join(parts))
TARGET = Target(
    "targets",
    check,
    st.tuples(st.one_of(ORIGIN, ABSOLUTE), st.sampled_from(HOSTS)).map(b"\n".join),
    (*PARTS, b"\n", *HOSTS, b"http://", b"/a" * 50, b"%41" * 50, b";" * 50),
    base=2_000,
    slope=40,
)
