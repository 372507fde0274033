"""What the names in a certificate say of its holder (RFC 5280 §4.1.2.6, §4.2.1.6)."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from cryptography.x509 import (
    Certificate,
    DNSName,
    ExtensionNotFound,
    Name,
    RFC822Name,
    SubjectAlternativeName,
    UniformResourceIdentifier,
)
from cryptography.x509.oid import NameOID

from apigw.policy.auth.jwt.claims import is_name, is_role
from apigw.policy.auth.refusals import Refusal

CHALLENGE = b'Certificate realm="apigw"'
"""No scheme for certificates is registered; a 401 must have a challenge (RFC 9110 §15.5.2)."""

NONE = Refusal("names", "the certificate has no name of the kind that identifies callers")
SEVERAL = Refusal("names", "the certificate has several names of the kind that identifies callers")
BAD = Refusal("names", "the name in the certificate cannot identify a caller")

_Find = Callable[[Certificate], Sequence[str]]
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[!-~]+")
_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_DNS = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_EMAIL = re.compile(r"[!-?A-~]+@[!-?A-~]+")


def id_of(certificate: Certificate, kind: str) -> str:
    """The id of a certificate's holder. Raises ``Unauthorized`` unless exactly one name says it.

    A wildcard, or a name with a NUL or another control character, is none. Capitals in DNS names do not count.
    """
    found = _FOUND[kind](certificate)
    if len(found) != 1:
        raise (SEVERAL if found else NONE).by(CHALLENGE)
    name, form = found[0], _FORMS.get(kind)
    if not is_name(name) or (form is not None and form.fullmatch(name) is None):
        raise BAD.by(CHALLENGE)
    return name.lower() if kind == "dns" else name


def roles_of(certificate: Certificate) -> tuple[str, ...]:
    """The organizational units of the subject. If one of them cannot be a role, there are none."""
    units = [each.value for each in certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATIONAL_UNIT_NAME)]
    return tuple(str(unit) for unit in units) if all(map(is_role, units)) else ()


def _alternative(kind: type[UniformResourceIdentifier | DNSName | RFC822Name]) -> _Find:
    def names(certificate: Certificate) -> Sequence[str]:
        try:
            found = certificate.extensions.get_extension_for_class(SubjectAlternativeName).value
        except ExtensionNotFound:
            return ()
        return found.get_values_for_type(kind)

    return names


def _subject(certificate: Certificate) -> Sequence[str]:
    """As a text of RFC 4514, such as ``CN=ada,OU=ops,O=Acme``: from the last part to the first."""
    subject: Name = certificate.subject
    values = [each.value for each in subject]
    if not all(isinstance(value, str) and value.isprintable() for value in values):
        raise BAD.by(CHALLENGE)
    return (subject.rfc4514_string(),) if values else ()


_FOUND: dict[str, _Find] = {
    "uri": _alternative(UniformResourceIdentifier),
    "dns": _alternative(DNSName),
    "email": _alternative(RFC822Name),
    "subject": _subject,
}
_FORMS = {"uri": _URI, "dns": _DNS, "email": _EMAIL}
