"""The gateway and what it stands on mean the same by a method, an endpoint string, a path pattern, a duration."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import endpoints as twisted_endpoints

from apigw.config import endpoints, units
from apigw.config.addresses import host_and_port, network, origin, redis_url, target
from apigw.config.model import Target
from apigw.routing.pattern import Pattern


class _Silent:
    pass


ENDPOINTS = [
    "tcp:8080",
    "tcp:8080:interface=127.0.0.1:backlog=1024",
    "tcp:0",
    "tcp:8080:127.0.0.1",
    "tcp6:8080:interface=\\:\\:1",
    "unix:/tmp/a.sock:mode=660:lockfile=0",
    "unix:address=/tmp/a\\=b.sock",
    "systemd:INET:index=0",
    "systemd:domain=UNIX:name=http",
    "ssl:8443:privateKey=a.key:certKey=a.pem:interface=127.0.0.1",
]


@pytest.mark.parametrize("text", ENDPOINTS)
def test_endpoints_are_read_as_twisted_reads_them(text: str) -> None:
    """An endpoint passes `apigw check`, and then the daemon cannot listen on it."""
    endpoint = endpoints.parse(text)
    args, named = twisted_endpoints._parse(text)
    names = endpoints.KINDS[endpoint.kind]
    assert args[0] == endpoint.kind
    assert dict(endpoint.parts) == {**dict(zip(names, args[1:], strict=False)), **named}
    assert endpoints.parse(endpoint.absolute("/")).kind == endpoint.kind


@given(st.text(st.sampled_from("tcp:=\\80unix/a"), max_size=20).map("tcp:80:interface=".__add__))
def test_any_endpoint_is_read_as_twisted_reads_it(text: str) -> None:
    """A backslash or an equals sign in an endpoint means something else to Twisted."""
    try:
        endpoint = endpoints.parse(text)
    except ValueError:
        return
    args, named = twisted_endpoints._parse(text)
    assert dict(endpoint.parts) == {**dict(zip(endpoints.KINDS["tcp"], args[1:], strict=False)), **named}


def test_file_names_in_endpoints_become_absolute() -> None:
    """A daemon that has changed its directory looks for its socket in another one."""
    assert endpoints.parse("unix:run/a=b".replace("=", "\\=")).absolute("/etc") == "unix:address=/etc/run/a\\=b"
    assert endpoints.parse("ssl:1:a.key:/b.pem").absolute("/etc") == "ssl:port=1:privateKey=/etc/a.key:certKey=/b.pem"


@pytest.mark.parametrize(
    ("text", "seconds"), [("250ms", 0.25), ("30s", 30), ("1.5m", 90), ("1h", 3600), (0, 0), ("0", 0), ("0s", 0)]
)
def test_durations(text: object, seconds: float) -> None:
    """A timeout is a thousand times as long as it was meant."""
    assert units.seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "s", "1 s", "1S", "1d", "1h30m", "-1s", "1e3s", "١s", "1.s", True, None, 0.5, 7])
def test_what_is_no_duration(text: object) -> None:
    """A number without a unit is taken for seconds by one reader and for milliseconds by another."""
    with pytest.raises(ValueError):
        units.seconds(text)


@pytest.mark.parametrize(
    ("text", "size"), [("64KiB", 65536), ("10MiB", 10 << 20), ("2GiB", 2 << 30), ("7B", 7), (5, 5)]
)
def test_sizes(text: object, size: int) -> None:
    """A limit is a thousand times as high as it was meant."""
    assert units.size(text) == size


@pytest.mark.parametrize("text", ["", "1KB", "1kib", "1 KiB", "1.5MiB", "-1", True, None, 1.0, -1])
def test_what_is_no_size(text: object) -> None:
    """1MB is taken for one of two numbers."""
    with pytest.raises(ValueError):
        units.size(text)


@pytest.mark.parametrize(
    ("text", "share"), [("20%", 0.2), ("0.2", 0.2), (0.2, 0.2), (1, 1.0), ("100%", 1.0), ("0.1%", 0.001)]
)
def test_shares(text: object, share: float) -> None:
    """In percent, or as a fraction."""
    assert units.share(text) == share


@pytest.mark.parametrize("text", ["", "%", "-1%", "1,5%", "20 %", "half", 20, True, None, [], "1e2"])
def test_what_is_no_share(text: object) -> None:
    """What would be guessed is refused: 20 may mean 20% or all of it, twenty times."""
    with pytest.raises(ValueError, match=r"share|whole"):
        units.share(text)


@given(st.integers(0, 10**9))
def test_units_are_written_as_they_are_read(number: int) -> None:
    """The reference shows a default that means something else."""
    assert units.seconds(units.duration_text(number / 1000)) == number / 1000
    assert units.size(units.size_text(number)) == number


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("http://a", Target("http", "a", 80)),
        ("https://a.b-c.example:8443", Target("https", "a.b-c.example", 8443)),
        ("http://[::1]", Target("http", "::1", 80)),
        ("http://[0:0:0:0:0:0:0:1]:81", Target("http", "::1", 81)),
        ("http://user_service:80", Target("http", "user_service", 80)),
        ("http://10.0.0.1:80", Target("http", "10.0.0.1", 80)),
    ],
)
def test_targets(text: str, expected: Target) -> None:
    """A target is called at another address than the one that was written."""
    assert target(text) == expected


@pytest.mark.parametrize(
    "text", ["redis://127.0.0.1:6379/0", "redis://127.0.0.1", "redis://127.0.0.1/", "redis://127.0.0.1:6379"]
)
def test_redis_urls(text: str) -> None:
    """Two spellings of one Redis need a restart on reload."""
    assert redis_url(text) == "redis://127.0.0.1:6379/0"


def test_other_addresses() -> None:
    """An address that is right is refused."""
    assert host_and_port("[::1]:26379") == ("::1", 26379)
    assert network("::1/128") == "::1/128"
    for text in ("*", "http://localhost:3000", "https://[::1]:8443", "chrome-extension://abc"):
        assert origin(text) == text


READERS: list[Any] = [target, redis_url, origin, host_and_port, network, Pattern.parse, endpoints.parse]


@given(st.sampled_from(READERS), st.text(st.sampled_from("http://[]:@%?#*.a1-\\ é\n\0redistcp=")) | st.text())
def test_any_text_is_read_or_refused(read: Any, text: str) -> None:
    """A strange address ends in a traceback."""
    for prefix in ("", "http://", "redis://", "tcp:", "/"):
        try:
            read(prefix + text)
        except ValueError as error:
            assert str(error)
