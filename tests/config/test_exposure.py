"""What a configuration shows to more people than its author may think is said, and nothing else is."""

from __future__ import annotations

import pytest

from apigw.config.load import load
from apigw.process.rules import RULES

from .conftest import Write

TRUSTS = "trusts every client's own word"
CHOOSES = "lets whoever reaches this listener choose its own address"
SHOWS = "shows services, routes and metrics to whoever reaches this machine"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ("trusted_proxies: [10.0.0.0/8, 127.0.0.1, '::1/128']", []),
        ("trusted_proxies: [0.0.0.0/0]", [TRUSTS]),
        ("trusted_proxies: [10.0.0.0/8, '::/0']", [TRUSTS]),
        ("trusted_proxies: [0.0.0.0/1, 128.0.0.0/1, '2000::/3', '::ffff:0:0/96']", [TRUSTS] * 4),
        ("trusted_proxies: ['fc00::/7', '::ffff:10.0.0.0/104', '2001:db8::/32']", []),
        ("admin: tcp:9090", [SHOWS]),
        ("admin: tcp6:9090", [SHOWS]),
        ("admin: tcp:9090:interface=0.0.0.0", [SHOWS]),
        ("admin: tcp:9090:interface=8.8.8.8", [SHOWS]),
        ("admin: tcp:9090:interface=127.0.0.1", []),
        ("admin: tcp:9090:interface=10.1.2.3", []),
        ("admin: tcp:9090\n  admin_token_file: token", []),
        ("admin: null", []),
        ("admin: unix:admin.sock", []),
        ("admin: systemd:INET:index=0", []),
        ("listen: [tcp:8080]", []),
        ("listen: [{endpoint: tcp:8080, proxy_protocol: true}]", [CHOOSES]),
        ("listen: [{endpoint: 'tcp6:8080:interface=\\:\\:', proxy_protocol: true}]", [CHOOSES]),
        ("listen: [{endpoint: tcp:8080:interface=8.8.8.8, proxy_protocol: true}]", [CHOOSES]),
        ("listen: [{endpoint: tcp:8080:interface=10.0.0.5, proxy_protocol: true}]", []),
        ("listen: [{endpoint: tcp:8080, proxy_protocol: false}]", []),
        ("listen: [{endpoint: unix:a.sock, proxy_protocol: true}]", []),
    ],
)
def test_what_is_open(write: Write, settings: str, said: list[str]) -> None:
    """A network of everybody is no proxy; an admin listener for everybody has a token, or is a mistake."""
    directory = write({"token": "a token of 16 characters".replace(" ", "-"), "a.yaml": f"gateway:\n  {settings}\n"})
    warnings = load(directory, {}, RULES).warnings
    assert len(warnings) == len(said)
    for warning, sentence in zip(warnings, said, strict=True):
        assert sentence in str(warning)
        assert str(warning).startswith("etc/a.yaml:2:")
