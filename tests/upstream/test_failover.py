"""Whether an exchange that failed is sent again: a table of cases."""

from __future__ import annotations

from itertools import product

import pytest

from apigw.upstream.failover import is_repeated
from apigw.upstream.retries import IDEMPOTENT
from apigw.wire.errors import UpstreamError, UpstreamLost, UpstreamMalformed, UpstreamTimedOut

SILENT = UpstreamLost("closed", silent=True)
UNSENT = UpstreamLost("closed", silent=True, unsent=True)
BEGUN = UpstreamLost("closed")

CASES = [
    # error, method, kept, repeated, used, elsewhere, is sent again
    (SILENT, b"GET", True, False, True, False, True),  # closed for being idle, most likely
    (SILENT, b"PUT", True, False, True, False, True),
    (SILENT, b"GET", True, False, False, True, True),  # a process that is being killed: another may live
    (SILENT, b"GET", True, False, False, False, False),  # ... and the same will not
    (SILENT, b"POST", True, False, True, True, False),  # may have been done
    (UNSENT, b"POST", True, False, True, False, True),  # cannot have been done
    (UNSENT, b"POST", True, False, False, False, False),
    (SILENT, b"GET", False, False, True, True, False),  # of the body something is gone, or to come
    (UNSENT, b"POST", False, False, True, True, False),
    (SILENT, b"GET", True, True, True, True, False),  # once is enough
    (BEGUN, b"GET", True, False, True, True, False),  # part of an answer has been told
    (UpstreamMalformed("?"), b"GET", True, False, True, True, False),
    (UpstreamTimedOut("late"), b"GET", True, False, True, True, False),
]


@pytest.mark.parametrize(("error", "method", "kept", "repeated", "used", "elsewhere", "sent_again"), CASES)
def test_what_is_sent_again(
    error: UpstreamError, method: bytes, kept: bool, repeated: bool, used: bool, elsewhere: bool, sent_again: bool
) -> None:
    """Only what cannot do harm, and may help."""
    assert is_repeated(error, method, kept, repeated, used, elsewhere) is sent_again


def test_nothing_else_is_sent_again() -> None:
    """Of all cases that there are, every one needs each of its reasons."""
    errors = (SILENT, UNSENT, BEGUN, UpstreamMalformed("?"), UpstreamTimedOut("late"))
    flags = (False, True)
    for error, method, kept, repeated, used, elsewhere in product(
        errors, (*sorted(IDEMPOTENT), b"POST", b"PATCH", b"CONNECT", b"get"), flags, flags, flags, flags
    ):
        harmless = kept and not repeated and (error is UNSENT or (error is SILENT and method in IDEMPOTENT))
        expected = harmless and (used or elsewhere)
        assert is_repeated(error, method, kept, repeated, used, elsewhere) is expected
