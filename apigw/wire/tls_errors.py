"""Why TLS has failed, in words: OpenSSL's own are a list of (library, function, reason)."""

from __future__ import annotations

from OpenSSL import SSL

_WORDS = {
    "wrong version number": "the other side does not speak TLS (wrong version number)",
    "packet length too long": "the other side does not speak TLS (packet length too long)",
    "record layer failure": "the other side does not speak TLS (record layer failure)",
}


class TLSFailed(SSL.Error):
    def __str__(self) -> str:
        try:
            reasons = [_WORDS.get(reason, reason) for _, _, reason in self.args[0]]
        except (IndexError, TypeError, ValueError):
            return super().__str__()
        return f"TLS failed: {'; '.join(reasons)}" if reasons else "TLS failed"


def in_words(error: Exception) -> Exception:
    """The same error, with a text that can be read. What OpenSSL tells by a type of its own stays as it is."""
    return TLSFailed(*error.args) if type(error) is SSL.Error else error
