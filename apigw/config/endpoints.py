"""A parser of Twisted's endpoint strings, such as ``tcp:8080:interface=127.0.0.1``, that explains mistakes.

Parts are separated by ``:``, named parts have a ``=``, and ``\\`` escapes the next character.
"""

from __future__ import annotations

import os
import re
from functools import lru_cache
from ipaddress import ip_address

from attrs import frozen

from apigw.config.nearest import hint

KINDS: dict[str, tuple[str, ...]] = {
    "tcp": ("port", "interface", "backlog"),
    "tcp6": ("port", "backlog", "interface"),
    "ssl": ("port", "privateKey", "certKey", "sslmethod", "interface", "backlog", "extraCertChain", "dhParameters"),
    "unix": ("address", "mode", "backlog", "lockfile"),
    "systemd": ("domain", "index", "name"),
}
_FILES = ("address", "privateKey", "certKey", "extraCertChain", "dhParameters")
_MAX_UNIX = 107
_HOST_AND_PORT = re.compile(r"(?:(?:tcp|https?):(?://)?)?([0-9]+(?:\.[0-9]+){3}|localhost|\*|):([0-9]+)")
"""As other programs write where they listen."""


@frozen
class Endpoint:
    kind: str
    parts: tuple[tuple[str, str], ...]

    def get(self, name: str, default: str = "") -> str:
        return dict(self.parts).get(name, default)

    @property
    def files(self) -> tuple[str, ...]:
        """The names of the files that the endpoint reads."""
        return tuple(value for name, value in self.parts if name in _FILES and name != "address")

    def absolute(self, directory: str) -> str:
        """The endpoint string, with file names relative to ``directory`` made absolute."""
        parts = ((name, os.path.join(directory, value) if name in _FILES else value) for name, value in self.parts)
        return ":".join([self.kind, *(f"{name}={_escaped(value)}" for name, value in parts)])

    def clashes(self, other: Endpoint) -> bool:
        """Whether the two cannot listen at the same time. Port 0 (any free port) never clashes."""
        if self.kind in ("unix", "systemd") or other.kind in ("unix", "systemd"):
            return self == other or (self.kind == other.kind == "unix" and self.get("address") == other.get("address"))
        if self.get("port") == "0" or int(self.get("port")) != int(other.get("port")):
            return False
        mine, theirs = self._interface, other._interface
        if (":" in mine) != (":" in theirs):
            return False
        return mine == theirs or bool({mine, theirs} & {"0.0.0.0", "::"})

    @property
    def _interface(self) -> str:
        return self.get("interface") or ("::" if self.kind == "tcp6" else "0.0.0.0")


def private(text: str) -> str:
    """The same, with a unix socket for the process's own user and group alone, where it does not say for whom."""
    endpoint = parse(text)
    return f"{text}:mode=660" if endpoint.kind == "unix" and not endpoint.get("mode") else text


def _escaped(value: str) -> str:
    return re.sub(r"([:=\\])", r"\\\1", value)


@lru_cache(64)
def parse(text: str) -> Endpoint:
    """Parse an endpoint string. Cached: each of the workers asks for those that their master has parsed.

    Raises ``ValueError`` with a sentence fragment that follows the string: "has no port from 0 to 65535".
    """
    as_others = _HOST_AND_PORT.fullmatch(text)
    if as_others:
        host, port = as_others.groups()
        interface = {"localhost": "127.0.0.1", "*": "", "0.0.0.0": ""}.get(host, host)
        raise ValueError(f"is not an endpoint: write tcp:{port}" + (f":interface={interface}" if interface else ""))
    kind, *rest = _split(text)
    if len(kind) != 1 or kind[0] not in KINDS:
        if kind == ["tls"]:
            raise ValueError("is a tls: endpoint: write tcp: and give the certificates in the listener's tls")
        if re.fullmatch(r"[0-9]+", text):
            raise ValueError(f"is not an endpoint: write tcp:{text}")
        raise ValueError(f"is not an endpoint such as tcp:8080{hint(kind[0], KINDS)}")
    names = KINDS[kind[0]]
    parts: dict[str, str] = {}
    position = 0
    for part in rest:
        if len(part) > 2:
            raise ValueError("has a part with more than one = (write \\= for the character)")
        if len(part) == 1:
            if position == len(names):
                raise ValueError("has too many parts (write \\: for a colon in a value, as in interface=\\:\\:1)")
            part = [names[position], part[0]]
            position += 1
        if part[0] not in names:
            raise ValueError(f"has an unknown part {part[0]!r}{hint(part[0], names)}")
        if part[0] in parts:
            raise ValueError(f"has {part[0]} twice")
        parts[part[0]] = part[1]
    endpoint = Endpoint(kind[0], tuple(parts.items()))
    _check(endpoint)
    return endpoint


def _split(text: str) -> list[list[str]]:
    parts, escaped = [[""]], False
    for character in text:
        if not escaped and character == "\\":
            escaped = True
            continue
        if not escaped and character == ":":
            parts.append([""])
        elif not escaped and character == "=":
            parts[-1].append("")
        else:
            parts[-1][-1] += character
        escaped = False
    if escaped:
        raise ValueError("ends in a backslash")
    return parts


def _check(endpoint: Endpoint) -> None:
    get = endpoint.get
    if endpoint.kind == "ssl" and not get("privateKey"):
        raise ValueError(
            "names no privateKey: write tcp: in place of ssl:, and give the certificates in the listener's tls"
        )
    if endpoint.kind in ("tcp", "tcp6", "ssl"):
        if not re.fullmatch(r"[0-9]{1,5}", get("port")) or int(get("port")) > 65535:
            raise ValueError("has no port from 0 to 65535")
        if get("interface"):
            _check_interface(endpoint.kind, get("interface"))
    elif endpoint.kind == "unix":
        if not get("address"):
            raise ValueError("has no path for its socket")
        if len(get("address").encode()) > _MAX_UNIX:
            raise ValueError(f"has a path longer than {_MAX_UNIX} bytes, which a socket cannot have")
        if not re.fullmatch(r"[0-7]{3,4}", get("mode", "666")):
            raise ValueError("has a mode that is not octal, such as 660")
    else:
        if get("domain") not in ("INET", "INET6", "UNIX"):
            raise ValueError("has no domain INET, INET6 or UNIX")
        if ("index" in dict(endpoint.parts)) == ("name" in dict(endpoint.parts)):
            raise ValueError("needs one of index and name")
        if not re.fullmatch(r"[0-9]{1,4}", get("index", "0")):
            raise ValueError("has an index that is not a number")
    if not re.fullmatch(r"[1-9][0-9]{0,5}", get("backlog", "50")):
        raise ValueError("has a backlog that is not a number")
    if any(value == "" for name, value in endpoint.parts if name != "interface"):
        raise ValueError("has an empty part")


def _check_interface(kind: str, interface: str) -> None:
    try:
        version = ip_address(interface).version
    except ValueError:
        raise ValueError("has an interface that is not an IP address") from None
    if kind == "tcp6" and version == 4:
        raise ValueError("has an IPv4 interface: write tcp instead of tcp6")
