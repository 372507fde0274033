"""The certificates that the other side of a TLS connection has shown."""

from __future__ import annotations

from hashlib import sha256

from OpenSSL import SSL
from OpenSSL.crypto import FILETYPE_ASN1, dump_certificate


def shown(tls: SSL.Connection) -> list[bytes]:
    """A digest of all of them, then each in DER: that of the other side itself, and the intermediate ones that it sent.

    Empty if it has shown none. OpenSSL has verified that the other side has the key of the first, and whatever else the
    context demands.
    """
    own = tls.get_peer_certificate()
    if own is None:
        return []
    found = [dump_certificate(FILETYPE_ASN1, each) for each in (own, *(tls.get_peer_cert_chain() or ()))]
    digest = sha256()
    for each in found:
        digest.update(b"%d:" % len(each))
        digest.update(each)
    return [digest.digest(), *found]
