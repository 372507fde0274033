"""How the gateway fetches a document for itself: by name, in bounded size, and nothing but what it asked for."""

from __future__ import annotations

import gzip
import subprocess
import sys
import zlib
from collections.abc import Iterator
from typing import Any

import pytest
from support.awaiting import wait_for, waiting
from support.services import Behaviour, Received, Service
from treq import collect
from treq.client import HTTPClient
from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.web.http_headers import Headers

import apigw
from apigw.wire.agent import Agent
from apigw.wire.deadlines import Deadlines
from apigw.wire.fetch import Ask, Fetch, FetchFailed, Uncompressed

reactor: Any = global_reactor
LIMIT = 1000


@pytest.fixture
def service() -> Iterator[Service]:
    service = Service()
    yield service
    service.close()
    assert service.failures == []


@pytest.fixture
def agent() -> Iterator[Agent]:
    def no_tls(host: str) -> Any:
        raise ValueError(f"no TLS to {host}")

    agent = Agent(reactor, Deadlines(reactor), no_tls)
    yield agent
    agent.close()


def answering(status: int, *headers: str, body: bytes = b"") -> Behaviour:
    def behave(received: Received) -> None:
        received.conversation.answer(status, *headers, body=body)

    return behave


def fetched(agent: Agent, url: str) -> tuple[bytes, dict[str, str]]:
    content, headers = wait_for(Deferred.fromCoroutine(Fetch(agent, LIMIT)(url)))
    return content, dict(headers)


@waiting
def test_it_says_who_asks(service: Service, agent: Agent) -> None:
    """And asks for JSON, as it is: a User-Agent is what firewalls in front of providers look for."""
    service.behave = answering(200, "Cache-Control: max-age=5", body=b"{}")
    content, headers = fetched(agent, f"{service.url}/keys?a=b")
    assert (content, headers["cache-control"]) == (b"{}", "max-age=5")
    asked = service.last
    assert (asked.method, asked.target) == ("GET", "/keys?a=b")
    assert asked.get("user-agent") == f"apigw/{apigw.__version__}"
    assert asked.get("accept") == "application/json"
    assert asked.get("accept-encoding") == "identity"


BOMB = gzip.compress(bytes(50_000_000))


@waiting
@pytest.mark.parametrize(
    ("coding", "body"), [("gzip", BOMB), ("GZIP", BOMB), ("deflate", zlib.compress(b"{}")), ("br, gzip", BOMB)]
)
def test_a_compressed_answer_is_not_unpacked(service: Service, agent: Agent, coding: str, body: bytes) -> None:
    """Whatever is in it, and however much: it was not asked for, and its connection is given up."""
    service.behave = answering(200, f"Content-Encoding: {coding}", body=body)
    with pytest.raises(FetchFailed, match="compressed"):
        fetched(agent, service.url)
    service.behave = answering(200, "Content-Encoding: identity", body=b"{}")
    assert fetched(agent, service.url)[0] == b"{}"


@waiting
@pytest.mark.parametrize(
    "fields", [[], ["set-cookie: who=J\xe4rg"], ["content-encoding: identity", "x-a: 1", "x-a: 2"]]
)
def test_the_fields_of_an_answer_are_those_that_came(service: Service, agent: Agent, fields: list[str]) -> None:
    """No others, and whatever is in them."""
    service.behave = answering(302, *fields, body=b"{}")
    answered = wait_for(Deferred.fromCoroutine(Ask(agent, LIMIT)(service.url, Headers())))
    came = [f"{name.decode()}: {value.decode('latin-1')}" for name, value in answered.fields]
    assert sorted(came) == sorted([*fields, "content-length: 2"])


@waiting
def test_who_does_not_look_at_a_body_has_it_as_it_came(service: Service, agent: Agent) -> None:
    """As of an answer to a health check, or of a collector: it may be a bomb, or no stream of what it is called."""
    for body in (BOMB, b"not packed"):
        service.behave = answering(200, "Content-Encoding: gzip", "Set-Cookie: who=J\xe4rg", body=body)
        client = HTTPClient(Uncompressed(agent))
        answer = wait_for(ensureDeferred(client.get(service.url, unbuffered=True)))
        assert service.last.get("accept-encoding") == "identity"
        pieces: list[bytes] = []
        wait_for(collect(answer, pieces.append))
        assert b"".join(pieces) == body


@waiting
@pytest.mark.parametrize("excess", [0, 1, 5_000_000])
def test_a_document_is_bounded(service: Service, agent: Agent, excess: int) -> None:
    """Of the limit it is read, and of one byte more it is not."""
    service.behave = answering(200, body=b"x" * (LIMIT + excess))
    if not excess:
        assert len(fetched(agent, service.url)[0]) == LIMIT
        return
    with pytest.raises(FetchFailed, match="larger than 1000 bytes"):
        fetched(agent, service.url)


@waiting
@pytest.mark.parametrize(
    ("status", "location", "says"),
    [
        (301, "https://user:password@id.example/keys?token=hidden", "a redirect to https://id.example/keys;"),
        (302, "/elsewhere", "a redirect to http://127.0.0.1:{port}/elsewhere;"),
        (308, "//[::1", "a redirect to an address that cannot be read;"),
        (307, "https://id.example:99999/keys", "a redirect to an address that cannot be read;"),
        (301, None, "answered with 301$"),
        (304, "/x", "answered with 304$"),
        (500, "/x", "answered with 500$"),
    ],
)
def test_a_redirect_says_what_to_configure(
    service: Service, agent: Agent, status: int, location: str | None, says: str
) -> None:
    """It is not followed; its address is told without what may be secret in it."""
    service.behave = answering(status, *([] if location is None else [f"Location: {location}"]))
    with pytest.raises(FetchFailed, match=says.replace("{port}", str(service.port))) as caught:
        fetched(agent, service.url)
    assert ("configure the address itself" in str(caught.value)) == ("redirect" in says)
    assert "password" not in str(caught.value)
    assert len(service.requests) == 1


REHEARSED = """
import sys
from collections.abc import Sized
from apigw.wire.fetch import _Nobody, rehearse
from treq.client import HTTPClient
Sized.register(type("Last", (), {{}}))  # as the imports of a program do, after which Python looks up anew
{rehearse}
looked_up = []
sys.setprofile(lambda frame, event, _: looked_up.append(frame.f_code.co_name) if event == "call" else None)
HTTPClient(_Nobody()).request("GET", "http://other.example/path?x=1", allow_redirects=False, unbuffered=True)
print(looked_up.count("__subclasscheck__"))
"""


@pytest.mark.parametrize(("rehearse", "kept"), [("rehearse()", True), ("", False)])
def test_a_rehearsal_leaves_nothing_to_look_up(rehearse: str, kept: bool) -> None:
    """A process that is forked after it has, from its parent, what the first request looks up in others."""
    program = REHEARSED.format(rehearse=rehearse)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert (int(done.stdout) == 0) is kept
