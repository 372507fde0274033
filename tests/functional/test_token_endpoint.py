"""Partners get tokens from the gateway: with real clients, with every mistake, and while others guess at secrets."""

from __future__ import annotations

import threading
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlencode

import pytest
from authlib.integrations.requests_client import OAuth2Session as AuthlibSession
from oauthlib.oauth2 import BackendApplicationClient
from requests_oauthlib import OAuth2Session as OauthlibSession
from support.client import Answer, encode
from support.daemon import Daemon
from support.guarded import ACME, CHOSEN, FORM, GATEWAY, SECRET, Guarded, basic, check_silent, identity, with_auth
from support.services import Service
from support.tokens import Provider, bearer
from support.waiting import eventually

from apigw.policy.auth.secrets import new_secret

from .conftest import Start


@pytest.fixture(scope="module")
def daemon(guarded: Guarded) -> Daemon:
    return guarded.daemon


@pytest.fixture(scope="module")
def provider(guarded: Guarded) -> Provider:
    return guarded.provider


@pytest.fixture
def insecure(monkeypatch: pytest.MonkeyPatch) -> None:
    """Client libraries want https, even on loopback."""
    monkeypatch.setenv("OAUTHLIB_INSECURE_TRANSPORT", "1")
    monkeypatch.setenv("AUTHLIB_INSECURE_TRANSPORT", "1")


def url(daemon: Daemon, path: str) -> str:
    return "http://{}:{}{}".format(*daemon.address, path)


@pytest.mark.usefixtures("insecure")
@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post"])
def test_authlibs_session(daemon: Daemon, service: Service, guarded: Guarded, method: str) -> None:
    """A partner that uses authlib gets a token, calls with it and renews it."""
    with AuthlibSession("acme", SECRET, scope="orders.read", token_endpoint_auth_method=method) as session:
        token = session.fetch_token(url(daemon, "/oauth/token"), grant_type="client_credentials")
        guarded.told(token["access_token"])
        guarded.told(token["refresh_token"])
        assert (token["token_type"], token["expires_in"], token["scope"]) == ("Bearer", 3600, "orders.read")
        assert session.get(url(daemon, "/partner/a")).status_code == 200
        assert identity(service) == {"x-user-id": ["acme"], "x-user-roles": ["partner"], "x-auth-provider": ["oauth"]}
        again = session.refresh_token(url(daemon, "/oauth/token"))
        assert again["access_token"] != token["access_token"]
        assert guarded.told(again["refresh_token"]) != token["refresh_token"]
        assert session.get(url(daemon, "/partner/b")).status_code == 200


@pytest.mark.usefixtures("insecure")
@pytest.mark.parametrize("in_body", [False, True])
def test_requests_oauthlibs_session(daemon: Daemon, service: Service, guarded: Guarded, in_body: bool) -> None:
    """A partner that uses requests-oauthlib gets a token and calls with it."""
    with OauthlibSession(client=BackendApplicationClient("choosy")) as session:
        token = session.fetch_token(
            url(daemon, "/oauth/token"), client_id="choosy", client_secret=CHOSEN, include_client_id=in_body
        )
        guarded.told(token["access_token"])
        guarded.told(token["refresh_token"])
        assert session.get(url(daemon, "/api/a")).status_code == 200
        assert identity(service) == {"x-user-id": ["choosy"], "x-user-roles": [""], "x-auth-provider": ["oauth"]}
        assert session.get(url(daemon, "/partner/a")).status_code == 403


def test_the_documents_about_it(daemon: Daemon) -> None:
    """Others find the endpoint, and the keys that verify its tokens."""
    keys = daemon.get("/.well-known/jwks.json").json["keys"]
    assert [(key["kid"], key["kty"], key["alg"], "d" in key) for key in keys] == [("k1", "RSA", "RS256", False)]
    metadata = daemon.get("/.well-known/oauth-authorization-server").json
    assert (metadata["issuer"], metadata["token_endpoint"]) == (GATEWAY, f"{GATEWAY}/oauth/token")
    for method in ("GET", "HEAD", "PUT", "DELETE"):
        answer = daemon.request(method, "/oauth/token")
        assert (answer.status, answer.get("allow")) == (405, "POST")


GRANT = "grant_type=client_credentials"
IN_BODY = urlencode({"client_id": "acme", "client_secret": SECRET})
WRONG = new_secret()
WRONG_REQUESTS = {
    "JSON": (("Content-Type: application/json", ACME), '{"grant_type": "client_credentials"}', 400, "invalid_request"),
    "two Authorization headers": ((FORM, ACME, ACME), GRANT, 400, "invalid_request"),
    "oversized": ((FORM, ACME), f"{GRANT}&x={'x' * 9000}", 400, "invalid_request"),
    "wrong secret": ((FORM, basic("acme", WRONG)), GRANT, 401, "invalid_client"),
    "wrong secret in the body": ((FORM,), f"{GRANT}&client_id=acme&client_secret={WRONG}", 401, "invalid_client"),
    "foreign refresh token": ((FORM, ACME), "grant_type=refresh_token&refresh_token=abc", 400, "invalid_grant"),
}  # fmt: skip


@pytest.mark.parametrize(
    ("headers", "body", "status", "error"), [pytest.param(*case, id=name) for name, case in WRONG_REQUESTS.items()]
)
def test_a_wrong_request_for_a_token(
    daemon: Daemon, guarded: Guarded, headers: tuple[str, ...], body: str, status: int, error: str
) -> None:
    """A partner's mistake is answered as RFC 6749 says, without a secret in the answer."""
    guarded.told(WRONG)
    answer = daemon.request("POST", "/oauth/token", *headers, body=body.encode())
    assert (answer.status, answer.json["error"]) == (status, error), answer
    assert answer.get("content-type") == "application/json"
    assert answer.get("cache-control") == "no-store"
    assert set(answer.json) <= {"error", "error_description"}
    assert (answer.get("www-authenticate") or "").startswith("Basic ") == (status == 401)
    check_silent(answer, SECRET, WRONG)


def test_credentials_in_the_query_are_none(daemon: Daemon) -> None:
    """What stands in the query is no credential."""
    for headers, body in (((FORM,), GRANT.encode()), ((FORM,), b"")):
        answer = daemon.request("POST", f"/oauth/token?{GRANT}&{IN_BODY}", *headers, body=body)
        assert answer.status in (400, 401)
        check_silent(answer, SECRET)


# Guessing at secrets.


class Guesses:
    """Clients that never pause, each with a wrong secret, for clients that exist and for others.

    Where ``proxied``, from another address each time, as a proxy says.
    """

    def __init__(self, daemon: Daemon, clients: int = 8, proxied: bool = False) -> None:
        self.answers: list[Answer] = []
        self._proxied = proxied
        self._daemon = daemon
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._guess, args=(n,), daemon=True) for n in range(clients)]

    def __enter__(self) -> Guesses:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _guess(self, number: int) -> None:
        with self._daemon.connect() as client:
            guessed = 0
            while not self._stop.is_set():
                guessed += 1
                who = ("choosy", "acme", f"nobody{number}-{guessed}")[guessed % 3]
                body = f"{GRANT}&client_id={who}&client_secret={new_secret()}".encode()
                far = [f"X-Forwarded-For: 198.51.{number}.{guessed % 250}"] if self._proxied else []
                self.answers.append(client.request("POST", "/oauth/token", FORM, *far, body=body))

    @property
    def statuses(self) -> Counter[int]:
        return Counter(answer.status for answer in list(self.answers))


def test_hashing_keeps_nobody_waiting(start: Start, service: Service, provider: Provider, tmp_path: Path) -> None:
    """A flood of wrong secrets, where limits are wide, leaves everybody else served."""
    daemon = start(with_auth(tmp_path, provider, service))
    token = bearer(provider.token())
    with Guesses(daemon, clients=48) as guesses, daemon.connect() as client:
        others = [client.get("/api/a", token).status]
        while len(guesses.answers) < 60 or len(others) < 300:
            others.append(client.get("/api/a", token).status)
    assert set(others) == {200}
    # At most so many wait for a thread; who comes then is told to come again, in no time
    assert set(guesses.statuses) <= {401, 503}
    assert guesses.statuses[503] > 0
    assert all(answer.get("retry-after") == "1" for answer in guesses.answers if answer.status == 503)
    right = daemon.request("POST", "/oauth/token", FORM, ACME, body=GRANT.encode())
    assert right.status in (200, 503)


def test_who_is_right_is_served_while_others_guess_from_everywhere(
    start: Start, service: Service, provider: Provider, tmp_path: Path
) -> None:
    """A partner with a generated secret, and one that was right before, need no thread that guessing could take."""
    document = with_auth(tmp_path, provider, service)
    document["gateway"]["trusted_proxies"] = ["127.0.0.1"]
    document["auth"]["oauth"]["rate_limit"] = {"limit": 500, "window": "1m"}
    daemon = start(document)
    chosen = basic("choosy", CHOSEN)
    assert daemon.request("POST", "/oauth/token", FORM, chosen, body=GRANT.encode()).status == 200
    with Guesses(daemon, clients=48, proxied=True) as guesses, daemon.connect() as client:
        eventually(lambda: guesses.statuses[503] >= 20)
        partners = [
            client.request("POST", "/oauth/token", FORM, who, body=GRANT.encode()).status
            for _ in range(20)
            for who in (ACME, chosen)
        ]
    assert partners == [200] * 40
    assert set(guesses.statuses) <= {401, 503}


@pytest.mark.parametrize("who", ["choosy", "nobody"])
def test_many_guesses_at_once_do_not_tell_who_exists(daemon: Daemon, who: str) -> None:
    """Of 32 wrong secrets for one client at once, no more are checked for one that exists than for one that does
    not."""
    body = f"{GRANT}&client_id={who}&client_secret={new_secret()}".encode()
    with ExitStack() as stack:
        clients = [stack.enter_context(daemon.connect()) for _ in range(32)]
        for client in clients:
            client.send(encode("POST", "/oauth/token", FORM, body=body))
        statuses = Counter(client.answer().status for client in clients)
    assert statuses[503] > 0
    assert statuses[401] >= 8
