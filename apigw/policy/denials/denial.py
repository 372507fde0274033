"""One denial: who is refused, until when, and why."""

from __future__ import annotations

import re
from ipaddress import ip_address, ip_network
from json import dumps, loads
from typing import Any

from attrs import asdict, evolve, frozen

KINDS = ("address", "subject", "key", "token")

MOST = 4096
"""Denials at a time: more networks than that belong into the configuration."""

LONGEST = 31 * 86_400.0
"""Seconds."""

LEAST_BITS = {4: 8, 6: 16}
"""Of a network, by the version of IP. A mistyped prefix would refuse everybody."""

MAX_TEXT = 256
MAX_REASON = 200
MAX_PROVIDER = 64
MAX_RECORD = 3072
"""Bytes of a packed denial: each character of its texts takes four at most."""

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}").fullmatch
_NO_TIME = 2**40
"""Unix seconds beyond those of any denial."""


@frozen
class Denial:
    """``value`` is a network or an address in its shortest form, a caller's id, or ``sha256:`` and a hash.

    ``provider`` is that of a subject, None for any. ``until`` and ``since`` are Unix seconds. ``by`` is who asked for
    it. ``everywhere``: whether all gateways have it that share a Redis.
    """

    kind: str
    value: str
    until: float
    provider: str | None = None
    since: float = 0.0
    reason: str = ""
    by: str = ""
    everywhere: bool = False

    @property
    def name(self) -> bytes:
        """Two denials of the same have the same."""
        return dumps([self.kind, self.value, self.provider]).encode("ascii")

    def packed(self) -> bytes:
        return dumps(asdict(self), ensure_ascii=False).encode()

    def shown(self) -> dict[str, Any]:
        return asdict(self)


def denial(kind: object, value: object, provider: object, seconds: object, reason: object, now: float) -> Denial:
    """Checks what an operator asks for. Raises ``ValueError`` with a sentence."""
    if kind not in KINDS or not isinstance(kind, str):
        raise ValueError(f"The kind must be one of {', '.join(KINDS)}.")
    text = value_of(kind, value)
    if provider is not None and (kind != "subject" or not _is_text(provider, MAX_PROVIDER)):
        raise ValueError("A provider is the name of one, and for a subject only.")
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 1 <= seconds <= LONGEST:
        raise ValueError(f"The time must be 1 to {LONGEST:.0f} seconds.")
    if not isinstance(reason, str) or len(reason) > MAX_REASON or not reason.isprintable():
        raise ValueError(f"The reason may have up to {MAX_REASON} printable characters.")
    named = provider if isinstance(provider, str) else None
    return Denial(kind, text, now + seconds, named, now, reason)


def value_of(kind: str, value: object) -> str:
    """Raises ``ValueError`` with a sentence."""
    if not isinstance(value, str):
        raise ValueError("The value must be text.")
    if kind == "address":
        return _network(value)
    if kind == "subject":
        if not _is_text(value, MAX_TEXT):
            raise ValueError(f"The subject must be a caller's id: 1 to {MAX_TEXT} printable characters.")
        return value
    if not _DIGEST(value):
        raise ValueError(f"The value of a {kind} must be sha256: and its hash, 64 hexadecimal digits.")
    return value


def _network(text: str) -> str:
    try:
        if "/" not in text:
            address = ip_address(text)
            return str(getattr(address, "ipv4_mapped", None) or address)
        network = ip_network(text)
    except ValueError:
        raise ValueError("The address must be an IP address, or a network such as 192.0.2.0/24.") from None
    mapped = getattr(network.network_address, "ipv4_mapped", None)
    if mapped is not None and network.prefixlen >= 96:
        network = ip_network(f"{mapped}/{network.prefixlen - 96}")
    if network.prefixlen < LEAST_BITS[network.version]:
        least = LEAST_BITS[network.version]
        raise ValueError(f"The network is larger than a /{least}: it would refuse too many clients.")
    return str(network.network_address) if network.num_addresses == 1 else str(network)


def unpacked(record: bytes) -> Denial | None:
    """None for what is no ``packed`` denial."""
    if len(record) > MAX_RECORD:
        return None
    try:
        found = loads(record)
        made = Denial(**found)
        checked = denial(made.kind, made.value, made.provider, 1, made.reason, 0.0)
        times = all(type(each) in (int, float) and 0 <= each < _NO_TIME for each in (made.until, made.since))
        if not times or not isinstance(made.by, str) or not isinstance(made.everywhere, bool):
            return None
    except (TypeError, ValueError, RecursionError):
        return None
    return evolve(made, value=checked.value)


def _is_text(value: object, most: int) -> bool:
    return isinstance(value, str) and 0 < len(value) <= most and value.isprintable()
