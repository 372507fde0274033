"""Where Redis is, as a URL says it."""

from __future__ import annotations

import pytest

from apigw.redis.address import Address


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("redis://cache", Address("cache", 6379, None, False)),
        ("redis://127.0.0.1:7000/0", Address("127.0.0.1", 7000, None, False)),
        ("rediss://[::1]:7000/3", Address("::1", 7000, 3, True)),
    ],
)
def test_a_url_names_host_port_and_database(url: str, address: Address) -> None:
    """What is left out is the port 6379 and the first database; `rediss` is TLS."""
    assert Address.parse(url) == address


@pytest.mark.parametrize("url", ["http://localhost", "localhost:6379", "redis://localhost/nine", "redis://localhost:x"])
def test_a_url_that_says_nothing_is_refused(url: str) -> None:
    """A mistake in the URL shows at once."""
    with pytest.raises(ValueError, match=r"scheme|database|[Pp]ort"):
        Address.parse(url)
