"""One address of a service, as it is named."""

from __future__ import annotations

from typing import Any

import pytest

from apigw import is_compiled
from apigw.config.model import Target as TargetConfig
from apigw.upstream.target import Target

pytestmark = pytest.mark.skipif(is_compiled(), reason="what is compiled knows an actor from the real part")


@pytest.mark.parametrize(
    ("target", "name"),
    [
        (TargetConfig("http", "127.0.0.1", 9001), "http://127.0.0.1:9001"),
        (TargetConfig("http", "svc", 80), "http://svc"),
        (TargetConfig("https", "svc", 443), "https://svc"),
        (TargetConfig("https", "svc", 80), "https://svc:80"),
        (TargetConfig("http", "::1", 9001), "http://[::1]:9001"),
    ],
)
def test_the_host_that_a_target_is_sent(target: TargetConfig, name: str) -> None:
    """A service does not recognise its own name."""
    pool: Any = None
    made = Target(target, pool)
    assert made.name == name
    assert made.authority == name.partition("://")[2].encode()
