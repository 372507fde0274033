"""Strict parser for token requests: the form and the credentials (RFC 6749 §2.3.1, §3.2)."""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Sequence
from urllib.parse import parse_qsl, unquote, unquote_plus

from attrs import field, frozen
from authlib.oauth2.base import OAuth2Error
from authlib.oauth2.rfc6749.errors import InvalidClientError, InvalidRequestError

MAX_BODY = 8 * 1024

_CLIENT_ID = re.compile(r"[ -9;-~]{1,256}")
_SECRET = re.compile(r"[ -~]{1,1024}")
_READINGS = (unquote_plus, unquote)


def check_client_id(text: str) -> None:
    """RFC 6749 §A.1, without the colon, which ends the id in Basic credentials that are not form-encoded.

    Raises ``ValueError``: the end of a sentence that begins with the id.
    """
    if not _CLIENT_ID.fullmatch(text) or text != text.strip():
        raise ValueError("is not a client id: 1 to 256 printable ASCII characters, no colon, and no space at its ends")


def read_form(headers: Sequence[tuple[bytes, bytes]], body: bytes) -> dict[str, str]:
    """The parameters of the body; those without a value are omitted (§3.2). Raises ``InvalidRequestError``."""
    types = [value for name, value in headers if name.lower() == b"content-type"]
    if len(types) != 1 or types[0].partition(b";")[0].strip().lower() != b"application/x-www-form-urlencoded":
        raise InvalidRequestError("the content type is not application/x-www-form-urlencoded")
    if len(body) > MAX_BODY:
        raise InvalidRequestError("the body is too large")
    try:
        pairs = parse_qsl(body.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=32)
    except ValueError:
        raise InvalidRequestError("the body is not a form in UTF-8") from None
    form = dict(pairs)
    if len(form) != len(pairs):
        raise InvalidRequestError("a parameter occurs twice")
    form = {name: value for name, value in form.items() if value}
    if "grant_type" not in form:
        raise InvalidRequestError("the grant_type is missing")
    return form


@frozen
class Credentials:
    id: str
    secret: str = field(repr=False)


def credentials(authorization: list[bytes], form: dict[str, str]) -> list[Credentials]:
    """Id and secret, from HTTP Basic or the body, in each possible decoding: at least one.

    Raises ``InvalidRequestError`` or ``InvalidClientError``.
    """
    if len(authorization) > 1:
        raise InvalidRequestError("the Authorization header occurs more than once")
    if authorization:
        readings = _basic(authorization[0])
        named = form.get("client_id")
        if "client_secret" in form or (named is not None and all(each.id != named for each in readings)):
            raise InvalidRequestError("there are credentials in the Authorization header and in the body")
        if named is not None:
            readings = [each for each in readings if each.id == named]
    else:
        readings = [Credentials(form.get("client_id", ""), form.get("client_secret", ""))]
    readings = [each for each in readings if _CLIENT_ID.fullmatch(each.id) and _SECRET.fullmatch(each.secret)]
    if not readings:
        raise invalid_client()
    return readings


def _basic(authorization: bytes) -> list[Credentials]:
    """Two decodings: form-encoded, where ``+`` is a space (RFC 6749 §2.3.1, Appendix B), and with ``+`` unchanged.

    Many clients encode nothing, and many secrets are base64, which uses ``+``.
    """
    scheme, _, encoded = authorization.partition(b" ")
    if scheme.lower() != b"basic":
        raise invalid_client()
    try:
        id, _, secret = b64decode(encoded.strip(b" "), validate=True).decode("utf-8").partition(":")
        readings = [Credentials(read(id, errors="strict"), read(secret, errors="strict")) for read in _READINGS]
    except ValueError:
        raise invalid_client() from None
    return readings if readings[0] != readings[1] else readings[:1]


def invalid_client() -> OAuth2Error:
    """The same 401 for every failed authentication: it does not reveal the reason."""
    return InvalidClientError("the client could not be authenticated", status_code=401)
