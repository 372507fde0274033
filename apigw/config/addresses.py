"""Parsers of URLs, origins, hosts and networks.

Each raises ``ValueError`` for a wrong text, with a sentence fragment that follows the text: "has no port". It does not
quote the text, which may contain a password.
"""

from __future__ import annotations

import re
from ipaddress import AddressValueError, IPv6Address, ip_address, ip_network
from urllib.parse import SplitResult, urlsplit

import idna
from attrs import evolve

from apigw.config.model import Target

DEFAULT_PORTS = {"http": 80, "https": 443, "redis": 6379, "rediss": 6379}

_AS_HTTP = {
    **dict.fromkeys(("ws", "wss"), "WebSockets need no more than that"),
    **dict.fromkeys(("grpc", "grpcs"), "write that, and protocol: grpc beside targets"),
    **dict.fromkeys(("h2", "h2c"), "write that, and protocol: h2 or h2c beside targets"),
    "unix": "unix sockets are not among targets",
}
"""Schemes that people give to targets, and what to say of them."""

_HOST = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)(?:\.(?!-)[A-Za-z0-9_-]{1,63}(?<!-))*\.?")
_BARE = re.compile(r"(localhost|[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*):[0-9]{1,5}")
_PORT = re.compile(r"[0-9]{1,5}")


def target(text: str, weight: int = 1) -> Target:
    """``http://host:port`` or ``https://[::1]:port`` and nothing else. Raises ``ValueError`` (see above)."""
    scheme = text.partition(":")[0]
    if scheme in _AS_HTTP:
        raise ValueError(f"does not begin with http:// or https://: {_AS_HTTP[scheme]}")
    parts, host, port = _split(text, ("http", "https"))
    if parts.path or parts.query or parts.fragment or text[-1] in "?#":
        more = "; a path is for rewrite, of a route" if parts.path not in ("", "/") else ""
        raise ValueError(f"has a path, query or fragment: a target is only scheme, host and port{more}")
    return Target(parts.scheme, host, port, weight)


def dns_target(text: str) -> Target:
    """``http://name:port``, for the addresses that the name has. Raises ``ValueError`` (see above)."""
    return _named(target(text), "dns")


def srv_target(text: str) -> Target:
    """``http://_service._tcp.name``, for what its SRV records say (RFC 2782). Raises ``ValueError`` (see above)."""
    if text.partition("://")[2].rpartition(":")[2].isdigit():
        raise ValueError("has a port: those of SRV records are in the records")
    return _named(target(text), "srv")


def _named(found: Target, lookup: str) -> Target:
    if ":" in found.host or found.host.replace(".", "").isdigit():
        raise ValueError("has an address and not a name: write it as url")
    return evolve(found, lookup=lookup)


def redis_url(text: str) -> str:
    """``redis://host:port/db`` or ``rediss://``, in canonical form. Raises ``ValueError`` (see above)."""
    parts, host, port = _split(text, ("redis", "rediss"))
    if parts.query or parts.fragment or text[-1] in "?#":
        raise ValueError("has a query or a fragment, which have no effect here")
    database = parts.path.removeprefix("/")
    if not re.fullmatch(r"[0-9]{0,5}", database):
        raise ValueError("has no database number after its slash, such as /0")
    shown = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{shown}:{port}/{int(database or 0)}"


def web_url(text: str) -> str:
    """An absolute ``https`` or ``http`` URL without user or fragment. Raises ``ValueError`` (see above)."""
    parts, _, _ = _split(text, ("https", "http"))
    if parts.fragment:
        raise ValueError("has a fragment, which is never sent")
    return text


def origin(text: str) -> str:
    """An origin as browsers send it (RFC 6454 §6.2), or ``*``. Raises ``ValueError`` (see above)."""
    if text == "*":
        return text
    if not re.match(r"[a-z][a-z0-9+.-]*://", text):
        raise ValueError("is not an origin such as https://app.example.com")
    if "*" in text:
        raise ValueError("contains a *: write each origin out, or * alone")
    parts, host, port = _split(text, ())
    if parts.path or parts.query or parts.fragment or text[-1] in "?#":
        raise ValueError("is not an origin: nothing may follow host and port, not even a slash")
    if host != host.lower():
        raise ValueError("has capital letters in its host: browsers send it in lower case")
    if parts.port is not None and port == DEFAULT_PORTS.get(parts.scheme):
        raise ValueError(f"names the default port: browsers leave :{port} out")
    return text


def host_and_port(text: str) -> tuple[str, int]:
    """``host:port``. Raises ``ValueError`` (see above)."""
    host, colon, port = text.rpartition(":")
    if not colon:
        raise ValueError("has no port: write host:port")
    return _host(host), _port(port)


def network(text: str) -> str:
    """A CIDR such as ``10.0.0.0/8``, or one address. Raises ``ValueError`` (see above)."""
    try:
        ip_network(text)
    except ValueError:
        try:
            meant = ip_network(text, strict=False)
        except ValueError:
            raise ValueError("is not a network such as 10.0.0.0/8 or ::1/128") from None
        raise ValueError(f"has bits set beyond its prefix: write {meant}") from None
    return text


def proxy(text: str) -> str:
    """A network, or ``unix:`` for all peers of a unix socket. Raises ``ValueError`` (see above)."""
    if text == "unix":
        raise ValueError("is not a network: write 'unix:', in quotes, for the peers of unix sockets")
    return text if text == "unix:" else network(text)


def host(text: str) -> str:
    """A name or an address, as a TLS server name. Raises ``ValueError`` (see above)."""
    return _host(text)


def route_host(text: str) -> str:
    """A host of requests: a name, an address, or ``*.`` and a name. Raises ``ValueError`` (see above).

    Names in lower case, without a dot at the end, as A-labels (IDNA 2008, RFC 5891); IPv6 in brackets and its shortest
    form.
    """
    if text in ("*", "*."):
        raise ValueError("is every host: leave hosts out")
    if "://" in text:
        raise ValueError("has a scheme: write only the host")
    if "/" in text:
        raise ValueError("has a slash: write only the host")
    if text.startswith("."):
        raise ValueError(f"begins with a dot: write *{text}")
    wildcard = "*." if text.startswith("*.") else ""
    name = text.removeprefix("*.")
    if "*" in name:
        raise ValueError("has a * that is not its whole first label, as in *.example.com")
    if name.startswith("[") or name.count(":") > 1:
        address, _, port = name.removeprefix("[").partition("]")
        if port.startswith(":"):
            raise ValueError("has a port: leave it out, ports are not compared")
        found = _host(f"[{address}]{port}")
    else:
        if ":" in name:
            raise ValueError("has a port: leave it out, ports are not compared")
        found = _host(_ascii(name).lower().removesuffix("."))
    if wildcard and re.fullmatch(r"[0-9a-f:]*:[0-9a-f:.]*|[0-9.]+", found):
        raise ValueError("is a wildcard of an address")
    return f"[{found}]" if ":" in found else wildcard + found


def _ascii(name: str) -> str:
    if name.isascii():
        return name
    try:
        return idna.encode(name, uts46=True).decode("ascii")
    except UnicodeError:
        raise ValueError("is not a name that IDNA 2008 allows") from None


def _split(text: str, schemes: tuple[str, ...]) -> tuple[SplitResult, str, int]:
    if re.search(r"[\s\x00-\x20\x7f\\]", text):
        raise ValueError("has white space or a backslash, which no URL has")
    scheme, separator, rest = text.partition("://")
    if not separator or (schemes and scheme not in schemes):
        begins = " or ".join(f"{each}://" for each in schemes)
        bare = not separator and schemes[0] in ("http", "redis") and _BARE.fullmatch(text)
        raise ValueError(f"does not begin with {begins}" + (f": write {schemes[0]}://{text}" if bare else ""))
    if "@" in rest.partition("?")[0]:
        advice = ": give the password in password_file" if scheme.startswith("redis") else ""
        raise ValueError(f"contains a user name or password, which do not belong in a URL{advice}")
    try:
        parts = urlsplit(text)
    except ValueError:
        raise ValueError("has brackets around what is not an IPv6 address") from None
    location = parts.netloc
    match = re.fullmatch(r"(\[.*\]|[^:]*)(?::([^:]*))?", location)
    if match is None:
        raise ValueError("has more than one colon: an IPv6 address is written in brackets, as in [::1]")
    name, port = match[1], match[2]
    default = DEFAULT_PORTS.get(scheme, 0)
    return parts, _host(name), _port(port) if port is not None else default


def _host(text: str) -> str:
    if not text:
        raise ValueError("has no host")
    if text.startswith("["):
        try:
            return str(IPv6Address(text[1:-1])) if "%" not in text else _no_zone()
        except AddressValueError:
            raise ValueError("has brackets around what is not an IPv6 address") from None
    if not text.isascii():
        raise ValueError("has a host that is not ASCII: write the name as xn--…")
    if re.fullmatch(r"[0-9.]+", text):
        try:
            return str(ip_address(text))
        except ValueError:
            raise ValueError("has a host of digits that is not an IPv4 address") from None
    if not _HOST.fullmatch(text) or len(text) > 253:
        raise ValueError("has a host that is neither a name nor an address")
    return text


def _no_zone() -> str:
    raise ValueError("has a zone in its IPv6 address, which is not supported")


def _port(text: str) -> int:
    if not _PORT.fullmatch(text) or not 1 <= int(text) <= 65535:
        raise ValueError("has a port that is not from 1 to 65535")
    return int(text)
