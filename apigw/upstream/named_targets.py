"""The targets of a service that come from names: which addresses are used, and what they are called."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from ipaddress import IPv4Network, ip_address

from twisted.logger import Logger

from apigw.config.endpoints import parse
from apigw.config.model import Target
from apigw.upstream.name_servers import Address
from apigw.upstream.names import Following, Names
from apigw.upstream.upstream import Upstream

THIS_NETWORK = IPv4Network("0.0.0.0/8")
"""RFC 6890 §2.2.2. Linux takes 0.0.0.0 for the machine itself."""

MOST_REPORTED = 8
"""Refused addresses that are logged at a time."""

log = Logger()

IsOwn = Callable[[str, int], bool]
"""Whether the gateway itself listens on an address and port."""


class NamedTargets:
    """Keeps the targets of one upstream as the names have them, from ``start`` to ``stop``."""

    def __init__(self, upstream: Upstream, names: Names, is_own: IsOwn) -> None:
        self._upstream = upstream
        self._names = names
        self._is_own = is_own
        self._found: dict[Target, tuple[Address, ...]] = {}
        self._refused: frozenset[tuple[str, str]] = frozenset()
        self._following: list[Following] = []

    def start(self) -> None:
        for target in self._upstream.service.targets:
            if target.lookup:
                told = partial(self._told, target)
                self._following.append(self._names.follow(target.lookup, target.host, told))

    def stop(self) -> None:
        """The service was removed or replaced. Requests that wait for the first lookup get its answer still."""
        if self._upstream.resolving:
            self._upstream.when_resolved().addBoth(lambda _: self._leave())
        else:
            self._leave()

    def _leave(self) -> None:
        following, self._following = self._following, []
        for each in following:
            self._names.leave(each)

    def _told(self, target: Target, found: tuple[Address, ...]) -> None:
        upstream = self._upstream
        self._found[target] = found
        refused: set[tuple[str, str]] = set()
        wanted: dict[tuple[str, str, int], Target] = {}
        for each in self._all(refused):
            wanted.setdefault((each.scheme, each.host, each.port), each)
        self._report(frozenset(refused))
        before = {each.config for each in upstream.targets}
        after = set(wanted.values())
        if before != after:
            upstream.replace_targets(wanted.values())
            log.info(
                "{service}: the names of its targets have other addresses: {come} new, {go} gone, {now} in all",
                service=upstream.name,
                come=len(after - before),
                go=len(before - after),
                now=len(after),
            )
        if after or all(each in self._found for each in upstream.service.targets if each.lookup):
            upstream.names_known()

    def _all(self, refused: set[tuple[str, str]]) -> Iterator[Target]:
        """Adds the addresses that are refused, with the reason."""
        for target in self._upstream.service.targets:
            if not target.lookup:
                yield target
                continue
            name = called(target)
            for address in self._found.get(target, ()):
                port = address.port or target.port
                why = why_not(address, target.allow_local)
                if not why and self._is_own(address.host, port):
                    why = "the gateway itself listens there"
                if why:
                    refused.add((f"{target.host}: {address.host}", why))
                    continue
                weight = address.weight if target.lookup == "srv" else target.weight
                yield Target(target.scheme, address.host, port, weight, called=name)

    def _report(self, refused: frozenset[tuple[str, str]]) -> None:
        """Log each refusal once, while it lasts; of many at a time a few, as others write what is in DNS."""
        new = sorted(refused - self._refused)
        service = self._upstream.name
        for where, why in new[:MOST_REPORTED]:
            log.warn("{service}: an address of {where} is not used: {why}", service=service, where=where, why=why)
        if len(new) > MOST_REPORTED:
            log.warn("{service}: nor are {more} others", service=service, more=len(new) - MOST_REPORTED)
        self._refused = refused


def called(target: Target) -> str:
    """The name for TLS and ``Host``: of ``_service._proto.name`` the name, as of a host (RFC 6125 §6.2.1)."""
    labels = target.host.rstrip(".").split(".")
    if target.lookup == "srv":
        while len(labels) > 1 and labels[0].startswith("_"):
            labels.pop(0)
    return ".".join(labels)


def why_not(address: Address, allow_local: bool) -> str:
    """Why an address is refused; empty if it is not."""
    parsed = ip_address(address.host)
    parsed = getattr(parsed, "ipv4_mapped", None) or parsed
    if parsed.is_unspecified or parsed.is_multicast or (parsed.version == 4 and _is_special(str(parsed))):
        return "it is no address of a host"
    if (parsed.is_loopback or parsed.is_link_local) and not (address.trusted or allow_local):
        return "it is local to this machine; allow_local: true would allow that"
    return ""


def _is_special(host: str) -> bool:
    parsed = ip_address(host)
    return parsed.is_reserved or parsed in THIS_NETWORK


def own_listeners(endpoints: Iterable[str]) -> IsOwn:
    """``endpoints`` are the strings of the listeners, the admin listener's too."""
    own: list[tuple[str, int]] = []
    for text in endpoints:
        endpoint = parse(text)
        if endpoint.kind in ("tcp", "tcp6", "ssl"):
            own.append((endpoint.get("interface"), int(endpoint.get("port"))))

    def is_own(host: str, port: int) -> bool:
        alike = [interface for interface, listens in own if listens == port]
        if any(interface and ip_address(interface) == ip_address(host) for interface in alike):
            return True
        return any(interface in ("", "0.0.0.0", "::") for interface in alike) and _is_of_this_machine(host)

    return is_own


def _is_of_this_machine(host: str) -> bool:
    """Whether an address is one of this machine: only to those can a socket be bound."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((host, 0))
    except OSError:
        return False
    return True
