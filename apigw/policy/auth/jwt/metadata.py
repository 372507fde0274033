"""Where an issuer publishes its keys: metadata of OpenID providers (OpenID Connect Discovery 1.0) and of OAuth
authorization servers (RFC 8414).
"""

from __future__ import annotations

from urllib.parse import urlsplit

from apigw.contract.policy import Fetch
from apigw.policy.auth.strict_json import parse_object

OPENID = "/.well-known/openid-configuration"
OAUTH = "/.well-known/oauth-authorization-server"


class BadMetadata(Exception):
    """The metadata is not usable, or is that of another issuer."""


def metadata_urls(issuer: str) -> tuple[str, str]:
    """Where the metadata may be: behind the issuer's path (OpenID), or before it (RFC 8414 §3.1)."""
    parts = urlsplit(issuer)
    origin, path = f"{parts.scheme}://{parts.netloc}", parts.path.removesuffix("/")
    return f"{origin}{path}{OPENID}", f"{origin}{OAUTH}{path}"


async def keys_url(issuer: str, fetch: Fetch) -> str:
    """The ``jwks_uri`` of an issuer. Raises what ``fetch`` raises, and ``BadMetadata``.

    The ``issuer`` in the metadata must be the configured one, to the letter (RFC 8414 §3.3): otherwise a provider could
    speak for another one. The keys may be on another host, as with Google, but not without TLS.
    """
    openid, oauth = metadata_urls(issuer)
    try:
        body, _ = await fetch(openid)
    except Exception as first:
        try:
            body, _ = await fetch(oauth)
        except Exception as second:
            raise BadMetadata(f"{OPENID}: {first}; {OAUTH}: {second}") from None
    try:
        metadata = parse_object(body)
    except ValueError as error:
        raise BadMetadata(f"the metadata is {error}") from None
    if metadata.get("issuer") != issuer:
        said = repr(metadata.get("issuer"))[:200]
        raise BadMetadata(f"the metadata is that of another issuer: it says {said}, and the configuration {issuer!r}")
    url = metadata.get("jwks_uri")
    if not isinstance(url, str) or not is_fetchable(url, issuer):
        raise BadMetadata("the metadata has no usable jwks_uri: an https:// URL without credentials")
    return url


def is_fetchable(url: str, issuer: str) -> bool:
    """Whether keys may be fetched there: https, or http where the issuer itself is configured so."""
    schemes = ("https", "http") if issuer.startswith("http://") else ("https",)
    if not url.isascii() or not url.isprintable() or " " in url or len(url) > 2000:
        return False
    try:
        parts = urlsplit(url)
        return parts.scheme in schemes and bool(parts.hostname) and "@" not in parts.netloc and parts.port != 0
    except ValueError:
        return False
