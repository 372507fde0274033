"""HTTP/2 towards clients: whatever happens to a stream, in whatever order, the tables of its states hold."""

from __future__ import annotations

import random

import pytest
from hyperframe.frame import RstStreamFrame
from support.http2_client import Client, Recorder, Server, get, listen, post
from support.state_tables import HTTP2, held_to

from apigw import is_compiled
from apigw.wire.http2.states import READING, WRITING
from apigw.wire.request import Request


class Pausing(Recorder):
    """Pauses at every piece."""

    def __init__(self, request: Request) -> None:
        super().__init__()
        self._request = request

    def body_received(self, data: bytes) -> None:
        super().body_received(data)
        self._request.pause_body()


def step(chance: random.Random, client: Client, requests: list[Request]) -> None:
    """Something that a client or an application may do."""
    request = chance.choice(requests) if requests else None
    number = chance.choice(sorted(client.channel.streams) or [1])
    match chance.randrange(14):
        case 0 | 1:
            number = client.channel.numbers.last + 1 | 1
            fields = chance.choice(
                [get(), get(b"//"), post(), post((b"expect", b"100-continue")), post((b"content-length", b"3"))]
            )
            client.ask(number, fields, end=chance.random() < 0.3)
        case 2 | 3:
            client.put(number, b"123"[: chance.randrange(4)], end=chance.random() < 0.5)
        case 4:
            client.send(RstStreamFrame(number, error_code=8))
        case 5:
            client.open_window(number, chance.choice([1, 70_000]))
            client.open_window(0, 70_000)
        case 6:
            client.receive()
        case _ if request is None:
            pass
        case 7 if request.listener is None:
            listen(request)
        case 8 if request.listener is None:
            request.listener = Pausing(request)
            request.read_body()
        case 7 | 8:
            request.resume_body()
        case 9:
            request.pause_body()
        case 10 if not (request.started or request.finished):
            request.start(chance.choice([200, 204]), [])
        case 11 if request.started:
            request.write(b"x" * chance.choice([1, 100_000]))
            request.flush()
        case 12 if request.started:
            request.finish()
        case 13 if not request.started:
            request.respond(200, [], b"x" * chance.choice([0, 1, 70_000]))
        case _ if chance.random() < 0.1:
            request.abort()


@pytest.mark.skipif(is_compiled(), reason="nobody can look into what is compiled")
def test_any_walk_keeps_to_the_tables_and_all_of_them_is_walked() -> None:
    """No change of state but those in the tables, and none there that cannot happen."""
    with held_to(HTTP2) as (reading, writing):
        for seed in range(1500):
            chance = random.Random(seed)
            requests: list[Request] = []
            client = Server(on_request=requests.append).connect()
            for _ in range(chance.randrange(2, 25)):
                step(chance, client, requests)
    for table, made in ((READING, reading), (WRITING, writing)):
        possible = {(before, after) for before, those in table.items() for after in those}
        assert made == possible, possible - made
