"""TLS to the targets of a service: reads the files of its configuration."""

from __future__ import annotations

from typing import NoReturn

from apigw.config.model import UpstreamTLS
from apigw.wire.agent import TLSFor
from apigw.wire.client_tls import ClientTLS
from apigw.wire.tls import KeyPair


def tls_for(tls: UpstreamTLS, protocols: list[bytes] | None = None) -> TLSFor:
    """A function from a target's host to its TLS options. ``protocols`` are offered by ALPN.

    Raises what ``ClientTLS`` raises for unusable files.
    """
    own = None
    if tls.client_cert_file is not None and tls.client_key_file is not None:
        own = KeyPair(tls.client_cert_file, tls.client_key_file)
    client_tls = ClientTLS(tls.ca_file, own, protocols)
    return lambda host: client_tls.to(tls.server_name or host)


def no_tls(host: str) -> NoReturn:
    """Used for a service without https targets, so that no files are read."""
    raise ValueError(f"{host} is not spoken to by TLS")
