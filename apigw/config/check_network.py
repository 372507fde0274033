"""Checks of addresses: of listeners, of Redis, of the targets of a service."""

from __future__ import annotations

import os
from itertools import combinations

from apigw.config import check_targets, endpoints
from apigw.config.files import Files
from apigw.config.forms import name as check_name
from apigw.config.merge import Document
from apigw.config.model import Path
from apigw.config.validate import shown

# Each listener is compared with each other one, up to so many.
_MAX_PAIRED = 500


def listeners(document: Document, files: Files) -> None:
    """Reports listeners with the same address, TLS twice, sockets without a directory, and missing certificates."""
    held: list[tuple[Path, endpoints.Endpoint]] = []
    listed = document.get("gateway", "listen")
    if listed and all(listen is None for listen in listed):
        document.report(("gateway", "listen"), "contains only null, so clients could not connect anywhere")
    for path, listen in document.entries("gateway", "listen"):
        if listen is None:
            continue
        text, at = (listen, path) if isinstance(listen, str) else (listen.get("endpoint"), (*path, "endpoint"))
        if text is None:
            continue
        endpoint = endpoints.parse(text)
        held.append((at, endpoint))
        if isinstance(listen, dict) and listen.get("tls") is not None and endpoint.kind == "ssl":
            tls = (*path, "tls")
            document.report(
                tls, "cannot be combined with an ssl: endpoint, which is TLS already: write tcp:", document.key(tls)
            )
        if document.get(*path, "tls", "client_certificates") == "none" and document.get(*path, "tls", "client_ca_file"):
            at = (*path, "tls", "client_ca_file")
            document.report(at, "has no effect with client_certificates: none", document.key(at))
        if isinstance(listen, dict) and listen.get("proxy_protocol") and endpoint.kind == "ssl":
            at = (*path, "proxy_protocol")
            document.report(at, "would be read within TLS on an ssl: endpoint: write tcp:, with tls", document.key(at))
    admin = document.get("gateway", "admin")
    if isinstance(admin, str):
        held.append((("gateway", "admin"), endpoints.parse(admin)))
    for (first, one), (second, other) in combinations(held[:_MAX_PAIRED], 2):
        if one.clashes(other):
            document.report(second, f"listens on the same address as the one at {document.place(first)}")
    for path, endpoint in held:
        socket = files.absolute(endpoint.get("address"))
        if endpoint.kind == "unix" and not os.path.isdir(os.path.dirname(socket)):
            document.report(path, "has a socket in a directory that does not exist")
        for name in endpoint.files:
            try:
                files.data(name)
            except ValueError as error:
                document.report(path, f"names {shown(document, (), name)}, which {error}")


def redis(document: Document) -> None:
    """Reports Sentinels without the name of a master and the reverse, and ``ca_file`` without TLS."""
    section = document.tree.get("redis")
    if not isinstance(section, dict) or ("redis",) in document.broken:
        return
    sentinels, name, authority = ("redis", "sentinels"), ("redis", "sentinel_name"), ("redis", "ca_file")
    if section.get("sentinels") and section.get("sentinel_name") is None:
        document.report(name, "is missing: sentinels need the name of their master", document.key(sentinels))
    if document.get(*name) and not section.get("sentinels"):
        document.report(name, "has no effect without sentinels", document.key(name))
    url = document.get("redis", "url")
    if document.get(*authority) and url and not url.startswith("rediss://"):
        document.report(authority, "has no effect without TLS: write rediss:// in the url", document.key(authority))


def services(document: Document) -> None:
    """Reports bad names, repeated targets, and ``tls`` without an ``https`` target."""
    for path, service in document.entries("services"):
        try:
            check_name(str(path[-1]))
        except ValueError as error:
            document.report(path, f"{shown(document, (), path[-1])} {error}", document.key(path))
        if isinstance(service, dict):
            schemes = check_targets.targets(document, path)
            check_targets.balance(document, path)
            _tls(document, path, schemes)
            _protocol(document, path, schemes)


def _protocol(document: Document, path: Path, schemes: set[str]) -> None:
    at = (*path, "protocol")
    protocol = document.get(*at)
    needed = {"h2": "https", "h2c": "http"}.get(protocol)
    if needed is not None and schemes - {needed}:
        other = "; theirs is h2c" if schemes == {"http"} else "; theirs is h2" if schemes == {"https"} else ""
        document.report(at, f"{protocol} is for {needed}:// targets only{other}")
    if document.is_sound(at):
        _grpc(document, (*path, "health_check"), protocol or "http1")


def _grpc(document: Document, path: Path, protocol: str) -> None:
    """A health check of gRPC needs HTTP/2, and only such a one asks about a service of gRPC."""
    asked, named = (*path, "grpc"), (*path, "grpc_service")
    is_grpc = document.get(*asked)
    if is_grpc and protocol == "http1":
        document.report(asked, "needs HTTP/2: write protocol: grpc", document.key(asked))
    elif document.get(*named) is not None and not (protocol == "grpc" if is_grpc is None else is_grpc):
        needs = "protocol: grpc" if protocol == "http1" else "grpc: true"
        document.report(named, f"has no effect: the check is a GET without {needs}", document.key(named))


def _tls(document: Document, path: Path, schemes: set[str]) -> None:
    at = (*path, "tls")
    tls = document.get(*at) or {}
    if schemes == {"http"} and any(value is not None for value in tls.values()):
        document.report(at, "has no effect: none of the targets is https://", document.key(at))
    for one, other in (("client_cert_file", "client_key_file"), ("client_key_file", "client_cert_file")):
        if tls.get(one) is not None and tls.get(other) is None:
            document.report((*at, other), f"is missing: {one} needs it", document.key((*at, one)))
