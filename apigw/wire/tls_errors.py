"""Why TLS has failed, in words: OpenSSL's own are a list of (library, function, reason)."""

from __future__ import annotations

from OpenSSL import SSL

_WORDS = {
    "wrong version number": "the other side does not speak TLS (wrong version number)",
    "packet length too long": "the other side does not speak TLS (packet length too long)",
    "record layer failure": "the other side does not speak TLS (record layer failure)",
    "tlsv13 alert certificate required": "the other side demands a client certificate (alert certificate required)",
    "key values mismatch": "the key is not that of the certificate",
    "ee key too small": "a key is too small: RSA needs 2048 bits",  # ee: end entity
}
"""For texts of OpenSSL that are unclear."""


def words_of(error: SSL.Error) -> str:
    """OpenSSL's reasons, in words where its own are unclear; empty where it gives none."""
    told = error.args[0] if error.args and isinstance(error.args[0], list) else []
    return "; ".join(_WORDS.get(reason, reason) for _, _, reason in told)


class TLSFailed(SSL.Error):
    def __str__(self) -> str:
        why = words_of(self)
        return f"TLS failed: {why}" if why else "TLS failed"


def why_lost(error: BaseException | None) -> str:
    """How a connection was lost, with the reason where TLS has one, such as a certificate that was not shown."""
    return f"the connection closed: {error}" if isinstance(error, TLSFailed) else "the connection closed"


def in_words(error: Exception) -> Exception:
    """The same error, with a text that can be read. What OpenSSL tells by a type of its own stays as it is."""
    return TLSFailed(*error.args) if type(error) is SSL.Error else error
