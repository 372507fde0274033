# Compiled: see docs/decisions/compiled.md
"""Hosts of requests, and the choice of what a host names.

A host is as in ``addresses.route_host``: a name in lower case without a dot at its end, an IPv4 address, or an IPv6
address in brackets. A wildcard is ``*.`` and a name, and matches one label or more in place of its ``*``.
"""

from __future__ import annotations

from ipaddress import IPv6Address
from typing import Generic, Literal, TypeVar

V = TypeVar("V")

Overlap = Literal["always", "sometimes", "never"]

LONGEST = 253
"""Bytes of a name without a dot at its end (RFC 1035 §2.3.4, without the lengths of its labels)."""


def host_of(authority: bytes) -> bytes:
    """The host in ``authority``, which is well-formed (``wire.target.check_authority``), for a comparison.

    Without its port, in lower case, without one dot at its end; IPv6 in its shortest form (RFC 5952). Empty if no
    configuration can name it: a longer one, one with an empty label, and none (HTTP/1.0).
    """
    if authority.startswith(b"["):
        try:
            return b"[%b]" % str(IPv6Address(authority[1 : authority.find(b"]")].decode("ascii"))).encode("ascii")
        except ValueError:
            return b""
    colon = authority.find(b":")
    host = authority if colon < 0 else authority[:colon]
    if host.endswith(b"."):
        host = host[:-1]
    if len(host) > LONGEST or host.startswith(b".") or host.find(b"..") >= 0:
        return b""
    return host.lower()


class Hosts(Generic[V]):
    """Values by host and by wildcard. An exact host is preferred, then the longest wildcard."""

    def __init__(self) -> None:
        self._exact: dict[bytes, V] = {}
        self._below: dict[bytes, V] = {}

    def __len__(self) -> int:
        return len(self._exact) + len(self._below)

    def values(self) -> list[V]:
        return [*self._exact.values(), *self._below.values()]

    def get(self, host: str) -> V | None:
        """The value that was set for ``host``, which may be a wildcard."""
        values, key = self._place(host)
        return values.get(key)

    def set(self, host: str, value: V) -> None:
        values, key = self._place(host)
        values[key] = value

    def find(self, authority: bytes) -> V | None:
        """The value for the host in ``authority``, which is as sent; ``None`` if nothing names it.

        Costs one look-up if it is sent as it is written here. No more than 127 for one of the longest.
        """
        found = self._exact.get(authority)
        if found is not None:
            return found
        host = host_of(authority)
        found = self._exact.get(host)
        if found is not None or not self._below:
            return found
        at = host.find(b".")
        while at >= 0:
            found = self._below.get(host[at + 1 :])
            if found is not None:
                return found
            at = host.find(b".", at + 1)
        return None

    def covers(self, host: str) -> Overlap:
        """Whether requests for ``host``, which may be a wildcard, find a value."""
        if not host.startswith("*."):
            return "never" if self.find(host.encode("ascii")) is None else "always"
        name = host[2:].encode("ascii")
        if name in self._below or any(name.endswith(b"." + below) for below in self._below):
            return "always"
        within = b"." + name
        some = any(each.endswith(within) for each in (*self._exact, *self._below))
        return "sometimes" if some else "never"

    def _place(self, host: str) -> tuple[dict[bytes, V], bytes]:
        if host.startswith("*."):
            return self._below, host[2:].encode("ascii")
        return self._exact, host.encode("ascii")


def may_have(wanted: tuple[str, ...], hosts: tuple[str, ...]) -> bool:
    """Whether a request for one of ``hosts`` may be for one of ``wanted``. Without any, either is for all."""
    if not wanted or not hosts:
        return True
    named: Hosts[bool] = Hosts()
    for host in wanted:
        named.set(host, True)
    return any(named.covers(host) != "never" for host in hosts)
