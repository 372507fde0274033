"""What gRPC writes into fields: a status for each of HTTP, times, messages."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from twisted.internet.task import Clock

from apigw import errors, is_compiled
from apigw.contract.exchange import Exchange, OnLasting, Route
from apigw.contract.peers import Peers
from apigw.errors import GatewayError
from apigw.ops.metrics import Metrics
from apigw.proxy import grpc
from apigw.wire.deadlines import Deadlines
from apigw.wire.headers import Headers
from apigw.wire.request import Request, Stream


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.BadRequest, 13),
        (errors.Unauthorized, 16),
        (errors.Forbidden, 7),
        (errors.NotFound, 12),
        (errors.MethodNotAllowed, 12),
        (errors.BodyTooLarge, 8),
        (errors.UnsupportedMediaType, 2),
        (errors.RateLimited, 14),
        (errors.GatewayError, 13),
        (errors.NotImplementedMethod, 12),
        (errors.UpstreamUnreachable, 14),
        (errors.CircuitOpen, 14),
        (errors.UpstreamTimeout, 4),
        (errors.DeadlineExceeded, 4),
    ],
)
def test_each_error_has_a_status(error: type[errors.GatewayError], status: int) -> None:
    """As the gRPC project maps those of HTTP, but for what it calls UNKNOWN."""
    assert grpc.status_of(error("why")) == status
    assert grpc.trailers_of(error("why"))[0] == (b"grpc-status", b"%d" % status)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (b"1H", 3600.0),
        (b"2M", 120.0),
        (b"99999999S", 99_999_999.0),
        (b"100m", 0.1),
        (b"5u", 5e-6),
        (b"0n", 0.0),
        (b"", None),
        (b"1", None),
        (b"1s", None),
        (b"-1S", None),
        (b"100000000S", None),
        (b"1.5S", None),
    ],
)
def test_a_timeout_is_a_number_with_a_unit(value: bytes, seconds: float | None) -> None:
    """Of at most eight digits."""
    assert grpc.timeout_in([(b"a", b"b"), (b"grpc-timeout", value)]) == (
        None if seconds is None else pytest.approx(seconds)
    )


@given(st.floats(0, 1e9))
def test_a_timeout_that_goes_on_is_not_longer(seconds: float) -> None:
    """And at most a thousandth shorter, where it can be written at all."""
    fields: Headers = [(b"a", b"b"), (b"grpc-timeout", b"1H")]
    written = grpc.timeout_in(grpc.with_less_time(fields, seconds))
    assert written is not None
    assert written <= max(seconds * (1 + 1e-9), 1e-6)
    assert written >= min(seconds, 99_999_999) * 0.999 - 1e-6


@given(st.text())
def test_a_message_is_percent_encoded(text: str) -> None:
    """What is read of it is what was written."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return
    encoded = grpc.message(text)
    assert all(0x20 <= byte < 0x7F for byte in encoded)
    assert unquote(encoded.decode("ascii")) == text


@pytest.mark.parametrize(("value", "status"), [(b"0", 0), (b"14", 14), (b"", None), (b"x", None), (b"-1", None)])
def test_a_status_is_a_number(value: bytes, status: int | None) -> None:
    """Anything else says nothing."""
    assert grpc.status_in([(b"grpc-status", value)]) == status
    assert grpc.status_in([]) is None


class Lasts(OnLasting):
    def __init__(self) -> None:
        self.told = 0

    def run(self, exchange: Exchange) -> None:
        self.told += 1


class Refusing:
    def __init__(self) -> None:
        self.refused: list[GatewayError] = []

    def refuse(self, exchange: Exchange, error: GatewayError) -> None:
        self.refused.append(error)


@pytest.mark.skipif(is_compiled(), reason="what is compiled knows an actor from the real part")
@pytest.mark.parametrize("timeout", [None, b"90S", b"30S"])
def test_a_call_that_goes_on_lasts(timeout: bytes | None) -> None:
    """After a minute it is a stream, of which it is looked at whether its caller may still call; one that has ended
    before, or ends at its deadline, is none."""
    clock, lasts = Clock(), Lasts()
    driver: Any = Refusing()
    deadlines = Deadlines(clock)
    series = Metrics(CollectorRegistry(), "0").route("/a")
    headers = [(b"content-type", b"application/grpc"), *([] if timeout is None else [(b"grpc-timeout", timeout)])]

    def begun() -> Exchange:
        request = Request(Stream(b"192.0.2.1", False), b"POST", b"/a", b"/a", b"", b"x", headers, b"HTTP/2", None)
        exchange = Exchange(driver, request, Peers(), clock.seconds())
        exchange.route = Route("/a", None, "main", series, (), on_lasting=(lasts,))
        grpc.begin_call(exchange, deadlines)
        return exchange

    running, ended = begun(), begun()
    for each in ended.at_end:
        each.run(ended)
    for seconds, told, refused in ((59.9, 0, timeout == b"30S"), (0.2, 1, timeout == b"30S"), (31.0, 1, True)):
        clock.advance(seconds)
        deadlines.check()
        assert lasts.told == (0 if timeout == b"30S" else told)
        assert bool(driver.refused) == (refused and timeout is not None)
    assert running.at_end
