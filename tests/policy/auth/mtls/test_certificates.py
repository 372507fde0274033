"""Client certificates as identity: whose are taken, for how long, and what of them says who calls."""

from __future__ import annotations

import datetime
import ssl
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from support.certificates import Authority, Pair

from apigw.contract.principal import Principal
from apigw.errors import Unauthorized
from apigw.policy.auth.mtls.authorities import Authorities
from apigw.policy.auth.mtls.certificates import Certificates
from apigw.policy.auth.mtls.model import CertificateProvider

NOW = datetime.datetime(2026, 11, 1, tzinfo=datetime.UTC).timestamp()
CHALLENGE = (b"www-authenticate", b'Certificate realm="apigw"')


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mtls")


@pytest.fixture(scope="module")
def authority(directory: Path) -> Authority:
    return Authority(directory, "mesh")


@pytest.fixture(scope="module")
def stranger(directory: Path) -> Authority:
    return Authority(directory, "stranger")


def provider(authority: Authority, id: str = "uri", name: str = "mesh", **more: Any) -> Authorities:
    return Authorities(CertificateProvider(name, authority.file, id, **more), Path(authority.file).read_bytes())


def shown(*files: str) -> list[bytes]:
    """What a connection keeps of a handshake in which these were shown."""
    found = [ssl.PEM_cert_to_DER_cert(Path(file).read_text()) for file in files]
    return [sha256(b"".join(found)).digest(), *found]


def verified(method: Certificates, sent: Sequence[bytes], now: float = NOW) -> Principal | str:
    """Who it is, or the reason for a 401, twice: the second time it is remembered."""
    answers: list[Principal | str] = []
    for _ in range(2):
        try:
            found = method.authenticate(sent, now)
            assert isinstance(found, Principal)
            answers.append(found)
        except Unauthorized as error:
            assert error.headers == [CHALLENGE]
            answers.append(error.reason or "")
    assert answers[0] == answers[1]
    return answers[0]


def uri(text: str) -> x509.GeneralName:
    return x509.UniformResourceIdentifier(text)


SPIFFE = uri("spiffe://mesh.example/orders")
LONG = "a" * 257
CASES: dict[str, tuple[str, Sequence[x509.GeneralName], str | None]] = {
    "a URI": ("uri", [SPIFFE], "spiffe://mesh.example/orders"),
    "a URI beside names of other kinds": ("uri", [x509.DNSName("a.example"), SPIFFE], "spiffe://mesh.example/orders"),
    "two URIs": ("uri", [SPIFFE, uri("spiffe://mesh.example/other")], None),
    "the same URI twice": ("uri", [SPIFFE, SPIFFE], None),
    "no URI": ("uri", [x509.DNSName("a.example")], None),
    "no names": ("uri", [], None),
    "a URI without a scheme": ("uri", [uri("orders")], None),
    "a URI with a space": ("uri", [uri("spiffe://mesh.example/or ders")], None),
    "a URI with a NUL": ("uri", [uri("spiffe://mesh.example/admin\0.evil.example")], None),
    "a URI with a line's end": ("uri", [uri("spiffe://mesh.example/a\r\nX-User-Roles: admin")], None),
    "a URI that is too long": ("uri", [uri(f"spiffe://{LONG}")], None),
    "a DNS name": ("dns", [x509.DNSName("Orders.Example")], "orders.example"),
    "a URI beside a thousand DNS names": (
        "uri",
        [SPIFFE, *(x509.DNSName(f"{number}.example") for number in range(1000))],
        "spiffe://mesh.example/orders",
    ),
    "a thousand URIs": ("uri", [uri(f"spiffe://mesh.example/{number}") for number in range(1000)], None),
    "two DNS names": ("dns", [x509.DNSName("a.example"), x509.DNSName("b.example")], None),
    "a wildcard": ("dns", [x509.DNSName("*.example")], None),
    "a wildcard in a label": ("dns", [x509.DNSName("a*.example")], None),
    "an empty DNS name": ("dns", [x509.DNSName("")], None),
    "a DNS name with a NUL": ("dns", [x509.DNSName("admin\0.evil.example")], None),
    "a DNS name with a space": ("dns", [x509.DNSName("a.example ")], None),
    "no DNS name, but a common name": ("dns", [SPIFFE], None),
    "an e-mail address": ("email", [x509.RFC822Name("Ada@example.com")], "Ada@example.com"),
    "two e-mail addresses": ("email", [x509.RFC822Name("a@b"), x509.RFC822Name("c@d")], None),
    "an e-mail address without @": ("email", [x509.RFC822Name("ada")], None),
    "an e-mail address with two @": ("email", [x509.RFC822Name._init_without_validation("ada@a@b")], None),
    "a subject": ("subject", [SPIFFE], "CN=holder"),
}


@pytest.mark.parametrize(("kind", "names", "id"), [pytest.param(*case, id=name) for name, case in CASES.items()])
def test_exactly_one_name_is_the_id(
    authority: Authority, kind: str, names: Sequence[x509.GeneralName], id: str | None
) -> None:
    """Or 401: none, several, wildcards, and what a reader could take for another name."""
    pair = authority.sign("holder", *names)
    found = verified(Certificates([provider(authority, kind)]), shown(pair.certificate))
    if id is None:
        assert found == "names"
    else:
        assert isinstance(found, Principal)
        assert (found.provider, found.id, found.roles) == ("mesh", id, ())
        assert (found.begins, found.expires) == (_BEGIN, _END)


_BEGIN = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC).timestamp()
_END = datetime.datetime(2120, 1, 1, tzinfo=datetime.UTC).timestamp() + 1


def subject(*pairs: tuple[x509.ObjectIdentifier, str]) -> x509.Name:
    return x509.Name([x509.NameAttribute(kind, value) for kind, value in pairs])


CN, OU, ORGANIZATION = NameOID.COMMON_NAME, NameOID.ORGANIZATIONAL_UNIT_NAME, NameOID.ORGANIZATION_NAME
SUBJECTS: dict[str, tuple[list[tuple[x509.ObjectIdentifier, str]], tuple[str, tuple[str, ...]] | None]] = {
    "units are roles": ([(ORGANIZATION, "Acme"), (OU, "ops"), (CN, "ada")], ("CN=ada,OU=ops,O=Acme", ("ops",))),
    "several units": ([(OU, "ops"), (OU, "dev"), (CN, "ada")], ("CN=ada,OU=dev,OU=ops", ("ops", "dev"))),
    "no unit": ([(CN, "ada")], ("CN=ada", ())),
    "a unit with a comma": ([(OU, "ops,admin"), (CN, "ada")], ("CN=ada,OU=ops\\,admin", ())),
    "a comma is escaped": ([(CN, "ada,OU=admin")], ("CN=ada\\,OU=admin", ())),
    "nothing": ([], None),
    "a NUL": ([(CN, "admin\0.evil")], None),
    "a line's end": ([(CN, "a\r\nX-User-Roles: admin")], None),
}


@pytest.mark.parametrize(("parts", "caller"), [pytest.param(*case, id=name) for name, case in SUBJECTS.items()])
def test_subjects(
    authority: Authority,
    parts: list[tuple[x509.ObjectIdentifier, str]],
    caller: tuple[str, tuple[str, ...]] | None,
) -> None:
    """The whole subject is an id, and its units are roles, unless one of them is none."""
    pair = authority.sign("holder", subject=subject(*parts))
    found = verified(Certificates([provider(authority, "subject", roles_from="ou")]), shown(pair.certificate))
    assert (found if isinstance(found, str) else (found.id, found.roles)) == (caller or "names")


def test_whose_authority(authority: Authority, stranger: Authority, directory: Path) -> None:
    """Each provider takes the certificates of its own authority alone, whatever the handshake has taken."""
    mesh, other = provider(authority), provider(stranger, name="other")
    mine, others = (shown(each.sign("a", SPIFFE).certificate) for each in (authority, stranger))
    assert mine != others
    both = Certificates([mesh, other])
    found = [both.authenticate(sent, NOW) for sent in (mine, others)]
    assert [each.provider for each in found if isinstance(each, Principal)] == ["mesh", "other"]
    assert verified(Certificates([mesh]), others) == "authority"
    with pytest.raises(Unauthorized) as refused:
        both.verify(mine, NOW, {"other"})
    assert refused.value.reason == "authority"
    assert both.authenticate([], NOW) is None


def test_a_namesake_is_not_the_authority(authority: Authority, tmp_path: Path) -> None:
    """An authority is known by its key, and not by its name."""
    forged = Authority(tmp_path, "mesh").sign("a", SPIFFE)
    assert verified(Certificates([provider(authority)]), shown(forged.certificate)) == "authority"


def test_intermediate_authorities(authority: Authority, directory: Path) -> None:
    """A client sends them; one that is listed is trusted without its root, and without others below that."""
    teams = [Authority(directory, name, authority) for name in ("orders", "billing")]
    pairs = [each.sign("a", SPIFFE, file=f"a{index}") for index, each in enumerate(teams)]
    root, orders = Certificates([provider(authority)]), Certificates([provider(teams[0], name="orders")])
    assert isinstance(verified(root, shown(pairs[0].certificate, teams[0].file)), Principal)
    assert verified(root, shown(pairs[0].certificate)) == "authority"
    assert isinstance(verified(orders, shown(pairs[0].certificate)), Principal)
    for sent in (shown(pairs[1].certificate), shown(pairs[1].certificate, teams[1].file, authority.file)):
        assert verified(orders, sent) == "authority"


def test_who_is_no_authority_signs_for_nobody(authority: Authority, directory: Path) -> None:
    """A holder of a certificate cannot make others with its key."""
    holder = authority.sign("holder", SPIFFE, file="no-authority")
    forger = Authority(directory, "forger")
    forger._name = subject((CN, "holder"))
    forger._key = x509_key(holder)
    forged = forger.sign("a", uri("spiffe://mesh.example/admin"), file="forged")
    sent = shown(forged.certificate, holder.certificate)
    assert verified(Certificates([provider(authority)]), sent) == "authority"


def x509_key(pair: Pair) -> Any:
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    return load_pem_private_key(Path(pair.key).read_bytes(), None)


@pytest.mark.parametrize(
    ("usage", "taken"),
    [
        ([], True),
        ([ExtendedKeyUsageOID.CLIENT_AUTH], True),
        ([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH], True),
        ([ExtendedKeyUsageOID.SERVER_AUTH], False),
        ([ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE], False),
    ],
    ids=["no usage", "clients", "servers and clients", "servers", "anything"],
)
def test_what_a_certificate_is_for(authority: Authority, usage: list[x509.ObjectIdentifier], taken: bool) -> None:
    """If it says so, it is for clients; OpenSSL does not take `anyExtendedKeyUsage` for it, either."""
    found = verified(Certificates([provider(authority)]), shown(authority.sign("a", SPIFFE, usage=usage).certificate))
    assert isinstance(found, Principal) if taken else found == "purpose"


def test_validity_is_looked_at_each_time(authority: Authority) -> None:
    """On a connection of days, too."""
    begin, end = datetime.datetime(2026, 10, 1), datetime.datetime(2026, 12, 1)
    method = Certificates([provider(authority)])
    sent = shown(authority.sign("a", SPIFFE, begin=begin, end=end).certificate)
    first, last = (each.replace(tzinfo=datetime.UTC).timestamp() for each in (begin, end))
    assert [verified(method, sent, now) for now in (first - 1, last + 1)] == ["not_yet_valid", "expired"]
    assert all(isinstance(verified(method, sent, now), Principal) for now in (first, NOW, last))
    assert [verified(method, sent, now) for now in (first - 1, last + 1)] == ["not_yet_valid", "expired"]


@pytest.mark.parametrize("sent", [[b"d", b""], [b"d", b"\x30\x03\x02\x01\x01"], [b"d"]], ids=["empty", "odd", "none"])
def test_what_cannot_be_read(authority: Authority, sent: list[bytes]) -> None:
    """Whatever it is, it is 401."""
    assert verified(Certificates([provider(authority)]), sent) == "malformed"


def test_reloads(authority: Authority, stranger: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    """Callers stay remembered where no provider has changed, and are verified anew where one has."""
    sent = shown(authority.sign("a", SPIFFE).certificate)
    before = Certificates([provider(authority)])
    known = before.authenticate(sent, NOW)
    same, other_id, other_file = (
        Certificates([each]) for each in (provider(authority), provider(authority, "subject"), provider(stranger))
    )
    other_id.take_over(before)
    other_file.take_over(before)
    assert [other_id.remembered(sent, NOW), other_file.remembered(sent, NOW)] == [None, None]
    assert verified(other_file, sent) == "authority"
    same.take_over(before)
    assert same.remembered(sent, NOW) is known
