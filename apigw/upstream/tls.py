"""How a service's targets are spoken to by TLS: reads the files that its configuration names."""

from __future__ import annotations

from typing import NoReturn

from apigw.config.model import UpstreamTLS
from apigw.wire.agent import TLSFor
from apigw.wire.client_tls import ClientTLS
from apigw.wire.tls import KeyPair


def tls_for(tls: UpstreamTLS, protocols: list[bytes] | None = None) -> TLSFor:
    """Given a target's host, how to verify it. ``protocols`` are offered by ALPN.

    Raises what ``ClientTLS`` does for files that cannot be used.
    """
    own = None
    if tls.client_cert_file is not None and tls.client_key_file is not None:
        own = KeyPair(tls.client_cert_file, tls.client_key_file)
    client_tls = ClientTLS(tls.ca_file, own, protocols)
    return lambda host: client_tls.to(tls.server_name or host)


def no_tls(host: str) -> NoReturn:
    """For a service without https, so that no file is read for it."""
    raise ValueError(f"{host} is not spoken to by TLS")
