"""Warnings about what a configuration shows to more people than its author may think. What to
do instead is in docs/howto/harden.md."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from apigw.config import endpoints
from apigw.config.merge import Document
from apigw.config.validate import shown

_OF_SITES = IPv6Network("fc00::/7")
"""What sites use among themselves (RFC 4193)."""


def proxies(document: Document) -> None:
    """Who trusts everybody lets every client choose its own address."""
    for path, network in document.entries("gateway", "trusted_proxies"):
        if isinstance(network, str) and network != "unix:" and _is_of_anybody(ip_network(network, strict=False)):
            document.warn(
                path,
                f"{shown(document, path, network)} trusts every client's own word on its address: name your proxies",
            )


def _is_of_anybody(network: IPv4Network | IPv6Network) -> bool:
    """Whether it is wider than any operator's network: a /8 of IPv4, and the /16 that the largest providers have."""
    bits, least = network.prefixlen, 8
    if isinstance(network, IPv6Network):
        if bits >= 96 and network.network_address.ipv4_mapped is not None:
            bits -= 96
        elif network.subnet_of(_OF_SITES):
            return False
        else:
            least = 16
    return bits < least


def announced(document: Document) -> None:
    """Whoever reaches a listener with ``proxy_protocol`` says himself which address he has."""
    for path, listen in document.entries("gateway", "listen"):
        if not isinstance(listen, dict) or listen.get("proxy_protocol") is not True or "endpoint" not in listen:
            continue
        endpoint = endpoints.parse(listen["endpoint"])
        if endpoint.kind in ("tcp", "tcp6") and _is_open(endpoint):
            at = (*path, "proxy_protocol")
            document.warn(
                at,
                "lets whoever reaches this listener choose its own address: name a private interface, as in "
                "tcp:8080:interface=10.0.0.5, or see to it that only your load balancers reach the port",
                document.key(at),
            )


def admin(document: Document) -> None:
    """The admin listener is for operators. Where it has no token, nothing tells that it is meant to be reached."""
    path = ("gateway", "admin")
    text = document.get(*path)
    if not isinstance(text, str) or document.get("gateway", "admin_token_file"):
        return
    endpoint = endpoints.parse(text)
    if endpoint.kind in ("tcp", "tcp6", "ssl") and _is_open(endpoint):
        document.warn(
            path,
            "shows services, routes and metrics to whoever reaches this machine: "
            "name a private interface, as in tcp:9090:interface=127.0.0.1, or set admin_token_file if it is meant",
        )


def _is_open(endpoint: endpoints.Endpoint) -> bool:
    address = ip_address(endpoint.get("interface") or "0.0.0.0")
    return address.is_unspecified or address.is_global
