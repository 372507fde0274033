"""DNS: the addresses of a name, and what its SRV records say, from ``/etc/hosts`` and the name servers of
``/etc/resolv.conf``. Decided in docs/decisions/target-names.md.

``domain``, ``search`` and the options ``ndots``, ``timeout`` and ``attempts`` have the meaning of resolv.conf(5).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from ipaddress import ip_address
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred, DeferredList, DeferredSemaphore, TimeoutError, inlineCallbacks
from twisted.internet.error import ConnectError
from twisted.names import dns
from twisted.names.hosts import searchFileForAll
from twisted.python.failure import Failure
from twisted.python.filepath import FilePath

from apigw.upstream.dns_query import Broken, ask

AT_ONCE = 16
"""Questions that are asked at a time, each from a socket of its own."""
MOST = 256
"""Records of one answer that are used."""
HOSTS_TTL = 60.0
"""Seconds after which ``/etc/hosts`` is read again."""
LONGEST = 30.0
"""Seconds that all attempts for one question may take together."""
CHAIN = 16
"""CNAME records that lead from one to the next, as other resolvers follow at most."""

LOCALHOST = ("127.0.0.1", "::1")
"""RFC 6761 §6.3."""


_NAME = re.compile(rb"[A-Za-z0-9_-][A-Za-z0-9._-]{0,252}").fullmatch
"""A target of SRV. The target "." says that there is none; what is no name of a host is left out, too."""


class NotAnswered(Exception):
    """No name server gives an answer that can be used; the text says why."""


@frozen
class Address:
    """``port`` and ``weight`` are of a SRV record, else 0. ``trusted``: this machine's files say so, and not DNS."""

    host: str
    port: int = 0
    weight: int = 0
    trusted: bool = False

    @property
    def family(self) -> int:
        return 6 if ":" in self.host else 4


@frozen
class Found:
    """The addresses of a name, which may be none; valid for ``ttl`` seconds. ``unknown`` are the families (4, 6) about
    which no name server has said anything."""

    addresses: tuple[Address, ...]
    ttl: float
    unknown: tuple[int, ...] = ()


@frozen
class Settings:
    """Of resolv.conf. ``timeout`` is in seconds, for one attempt at one server."""

    servers: tuple[tuple[str, int], ...] = (("127.0.0.1", dns.PORT),)
    search: tuple[str, ...] = ()
    ndots: int = 1
    timeout: float = 5.0
    attempts: int = 2


def settings_in(text: str) -> Settings:
    """What a resolv.conf says, within the bounds of glibc. What cannot be understood is skipped, as there."""
    servers: list[tuple[str, int]] = []
    search: tuple[str, ...] = ()
    options: dict[str, int] = {}
    for line in text.splitlines():
        key, *values = line.split("#")[0].split(";")[0].split() or [""]
        if key == "nameserver" and values and _is_address(values[0]) and len(servers) < 3:
            servers.append((values[0], dns.PORT))
        elif key in ("search", "domain"):
            search = tuple(each.strip(".") for each in values[: 1 if key == "domain" else 32] if each.strip("."))
        elif key == "options":
            options |= {found[1]: int(found[2]) for each in values if (found := re.fullmatch(r"(\w+):(\d{1,4})", each))}
    return Settings(
        tuple(servers) or Settings().servers,
        search,
        min(options.get("ndots", 1), 15),
        min(max(options.get("timeout", 5), 1), 30),
        min(max(options.get("attempts", 2), 1), 5),
    )


class NameServers:
    """Asks them. ``settings`` replaces what ``resolv`` says."""

    def __init__(
        self,
        reactor: Any,
        hosts: str = "/etc/hosts",
        resolv: str = "/etc/resolv.conf",
        settings: Settings | None = None,
    ) -> None:
        self._reactor = reactor
        self._hosts = FilePath(hosts)
        self._resolv = resolv
        self._settings = settings
        self._turns = DeferredSemaphore(AT_ONCE)

    def look_up(self, kind: str, name: str) -> Deferred[Found]:
        """``kind`` is ``dns`` or ``srv``. Fails with ``NotAnswered``."""
        looking: Deferred[Found] = (self._services if kind == "srv" else self._addresses)(name)
        return looking

    @inlineCallbacks
    def _addresses(self, name: str) -> Any:
        own = searchFileForAll(self._hosts, name.rstrip(".").encode("ascii"))
        if not own and name.lower().rstrip(".") == "localhost":
            own = list(LOCALHOST)
        if own:
            return Found(tuple(Address(canonical(each), trusted=True) for each in own[:MOST]), HOSTS_TTL)
        both = yield DeferredList([self._ask(name, dns.A), self._ask(name, dns.AAAA)], consumeErrors=True)
        addresses: list[Address] = []
        ttls: list[float] = []
        unknown: list[int] = []
        reason: Failure | None = None
        for family, (answered, result) in zip((4, 6), both, strict=True):
            if not answered:
                unknown.append(family)
                reason = result
                continue
            records, ttl = result
            if records:
                ttls.append(ttl)
            addresses += [Address(canonical(record.address)) for record in records]
        if reason is not None and not addresses:
            return reason
        return Found(tuple(addresses), min(ttls, default=0.0), tuple(unknown))

    @inlineCallbacks
    def _services(self, name: str) -> Any:
        records, ttl = yield self._ask(name, dns.SRV)
        records = [record for record in records if _NAME(record.target.name) and record.port][:MOST]
        some_are_zero = any(not record.weight for record in records)
        reason: Failure | None = None
        for priority in sorted({record.priority for record in records}):
            alike = [record for record in records if record.priority == priority]
            hosts = yield DeferredList([self._addresses(str(each.target)) for each in alike], consumeErrors=True)
            found: list[Address] = []
            unknown: set[int] = set()
            for record, (answered, result) in zip(alike, hosts, strict=True):
                if not answered:
                    reason = result
                    unknown |= {4, 6}
                    continue
                ttl = min(ttl, result.ttl) if result.addresses else ttl
                unknown |= set(result.unknown)
                # RFC 2782: one of weight 0 gets very few, but some.
                weight = (10 * record.weight or 1) if some_are_zero else record.weight
                found += [Address(each.host, record.port, weight, each.trusted) for each in result.addresses]
            if found:
                return Found(tuple(found), ttl, tuple(sorted(unknown)))
        return Found((), ttl) if reason is None else reason

    @inlineCallbacks
    def _ask(self, name: str, kind: int) -> Any:
        """The records of this kind, and their TTL. Of the names that may be meant, the first that has some."""
        settings = self._current()
        reason: Exception | None = None
        for meant in candidates(name, settings):
            try:
                records, ttl = yield self._turns.run(self._ask_servers, meant, kind, settings)
            except NotAnswered as error:
                reason = error
                continue
            if records:
                return records, ttl
        if reason is not None:
            raise reason
        return [], 0.0

    @inlineCallbacks
    def _ask_servers(self, name: str, kind: int, settings: Settings) -> Any:
        ends = self._reactor.seconds() + LONGEST
        why = "no name server answers"
        for server in settings.servers * settings.attempts:
            left = min(settings.timeout, ends - self._reactor.seconds())
            if left <= 0:
                break
            try:
                message = yield ask(self._reactor, server, name, kind, left)
            except (TimeoutError, OSError, ConnectError, Broken):
                continue
            if message.rCode in (dns.OK, dns.ENAME):
                return records_of(message.answers, name, kind)
            why = f"{server[0]} answers with the code {message.rCode}"
        raise NotAnswered(why)

    def _current(self) -> Settings:
        if self._settings is not None:
            return self._settings
        try:
            with open(self._resolv, encoding="ascii", errors="replace") as file:
                return settings_in(file.read(65536))
        except OSError:
            return Settings()


def candidates(name: str, settings: Settings) -> Iterator[str]:
    """The full names that a name may mean, in the order in which they are tried."""
    if name.endswith("."):
        yield name.rstrip(".")
        return
    as_it_is_first = name.count(".") >= settings.ndots
    if as_it_is_first:
        yield name
    for domain in settings.search:
        if len(name) + 1 + len(domain) <= 253:
            yield f"{name}.{domain}"
    if not as_it_is_first:
        yield name


def records_of(answers: Sequence[Any], name: str, kind: int) -> tuple[list[Any], float]:
    """The payloads of this kind that an answer has for the name, or for that which it is an alias of; and the TTL."""
    wanted = name.lower().encode("ascii")
    aliases = {each.name.name.lower(): each for each in answers if each.type == dns.CNAME}
    ttls: list[float] = []
    for _ in range(CHAIN):
        alias = aliases.get(wanted)
        if alias is None:
            break
        ttls.append(alias.ttl)
        wanted = alias.payload.name.name.lower()
    found = [each for each in answers if each.type == kind and each.name.name.lower() == wanted]
    ttls += [each.ttl for each in found]
    return [each.payload for each in found[: 4 * MOST]], min(ttls, default=0.0)


def canonical(address: str | bytes) -> str:
    """One text for each host: an IPv4 address that is written as IPv6 (RFC 4291 §2.5.5.2) is that IPv4 address."""
    parsed = ip_address(address)
    return str(getattr(parsed, "ipv4_mapped", None) or parsed)


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True
