"""The head of a request to a service, as HTTP/1.1 writes it."""

from __future__ import annotations

import pytest

from apigw.wire.http1.write_head import request_head


@pytest.mark.parametrize("number", range(10))
def test_all_fields_are_written_in_their_order(number: int) -> None:
    """Each once, however many there are."""
    fields = [(b"x-%d" % at, b"value %d" % at) for at in range(number)]
    lines = [b"GET /a HTTP/1.1", b"host: a", *(b"%b: %b" % field for field in fields), b"", b""]
    assert request_head(b"GET", b"/a", b"a", fields, 0, False) == b"\r\n".join(lines)
