"""What a target that is ejected, or was lately, has answered with a failure: another one answers instead."""

from __future__ import annotations

from collections import Counter

import pytest

from apigw import is_compiled

from .test_repeat import BUSY, CALL, GET, OK, POST, UNBUFFERED, Scene

pytestmark = pytest.mark.skipif(is_compiled(), reason="what is compiled knows an actor from the real part")

NO = b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n"
BEGUN = b"HTTP/1.1 503 Busy\r\nContent-Length: 400\r\n\r\nbusy"
PUT = b"PUT /a HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody"
FAILURES = 5
"""In a row: the default of ``ejection``."""


class Pair(Scene):
    """Two targets, of which the first answers as the test says and the second always well. No ``retry``."""

    def __init__(self) -> None:
        super().__init__(retries=False)
        self.bad = BUSY
        self.upstream.start()

    def served(self, request: bytes = GET) -> int:
        """The status that a new client gets."""
        self.client = self.connect()
        self.ask(request)
        self.relay()
        return self.status()

    def relay(self) -> None:
        for _ in range(2):
            for machine, said in zip(self.machines, (self.bad, OK), strict=True):
                for line, _request in machine.requests():
                    line.deliver(said)
                    self.clock.advance(0)

    def eject(self) -> None:
        while not self.upstream.targets[0].ejected:
            self.served()

    def end_ejection(self) -> None:
        self.clock.advance(self.upstream.targets[0].standing.until - self.clock.seconds())
        self.wait(1)


def test_the_failure_that_ejects_a_target_reaches_no_client() -> None:
    """Those before it do: they may be the requests' own fault."""
    scene = Pair()
    assert Counter(scene.served() for _ in range(20)) == {503: FAILURES - 1, 200: 20 - FAILURES + 1}
    assert (scene.retried("503"), scene.pipeline.in_flight, scene.upstream.amended) == (1, 0, 0)


def test_what_was_in_flight_at_an_ejection_goes_elsewhere() -> None:
    """However much it is."""
    scene = Pair()
    clients = [scene.connect() for _ in range(60)]
    for client in clients:
        client.deliver(GET)
    scene.relay()
    statuses = Counter(client.take()[9:12] for client in clients)
    assert statuses == {b"503": FAILURES - 1, b"200": 60 - FAILURES + 1}
    assert scene.upstream.amended == 0


@pytest.mark.parametrize(
    ("request_", "said", "status"),
    [
        pytest.param(GET, BUSY, 200, id="get"),
        pytest.param(PUT, BUSY, 200, id="idempotent, with a body"),
        pytest.param(GET, BEGUN, 200, id="answer in pieces"),
        pytest.param(POST, BUSY, 503, id="may have been done"),
        pytest.param(GET, NO, 500, id="the request's own fault"),
        pytest.param(CALL, BUSY, 503, id="call"),
    ],
)
def test_a_probe_that_fails(request_: bytes, said: bytes, status: int) -> None:
    """It is answered by another target, if that can do no harm and may help. The next ejection begins."""
    scene = Pair()
    scene.eject()
    scene.end_ejection()
    scene.bad = said
    statuses = {scene.served(request_), scene.served(request_)}
    assert statuses == {200, status}
    assert scene.upstream.targets[0].standing.until > scene.clock.seconds()


def test_a_large_body_is_not_sent_twice() -> None:
    """A probe whose body is no longer there ends as it ends."""
    scene = Pair()
    scene.eject()
    scene.end_ejection()
    assert 503 in {scene.served(UNBUFFERED), scene.served(UNBUFFERED)}


def test_an_outage_is_not_made_worse() -> None:
    """Of what fails at a target that is in use again, three are sent elsewhere at a time; after five minutes none."""
    scene = Pair()
    scene.eject()
    scene.bad = OK
    scene.end_ejection()
    for _ in range(4):
        assert scene.served() == 200
    scene.bad = BUSY
    clients = [scene.connect() for _ in range(2 * (FAILURES - 1))]
    for client in clients:
        client.deliver(GET)
    for line, _ in scene.machines[0].requests():
        line.deliver(BUSY)
    assert scene.upstream.amended == 3
    assert sum(client.take().startswith(b"HTTP/1.1 503") for client in clients) == 1
    scene.relay()
    assert (scene.upstream.amended, scene.pipeline.in_flight) == (0, 0)
    scene.bad = OK
    assert {scene.served(), scene.served()} == {200}
    scene.clock.advance(301)
    scene.bad = BUSY
    assert 503 in {scene.served(), scene.served()}


@pytest.mark.parametrize("phase", [0.0, 0.5, 1.3])
def test_a_target_that_comes_and_goes_every_second(phase: float) -> None:
    """Clients see at most 5 errors in a minute of 50 requests a second, without ``retry``. Within two seconds after
    an ejection it is used again, unless its probe fails."""
    scene = Pair()
    target = scene.upstream.targets[0]
    statuses: Counter[int] = Counter()
    ended = 0.0
    for tick in range(3000):
        now = tick / 50
        scene.bad = OK if (now + phase) % 2 < 1 else BUSY
        statuses[scene.served()] += 1
        scene.clock.advance(0.02)
        if target.ejected:
            ended = max(ended, target.standing.until)
            assert scene.clock.seconds() < ended + 2
    assert statuses[200] + statuses[503] == 3000
    assert statuses[503] <= 5
