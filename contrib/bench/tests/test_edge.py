"""The bench's measurements of the edge: what is asked, what is compared, and what is promised."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from bench import wrk
from bench.command import parser
from bench.edge import bodies, doors, lasting, programs
from bench.edge.parts import PARTS
from bench.figures import Sample
from bench.h2load import H2load
from bench.machine import MIB
from bench.programs import Place, Running
from bench.result import NoResult
from bench.rounds import Contestant
from bench.scenarios import BARE

PLACE = Place(Path("/somewhere"), 8443, (9000, 9001))


def sample(contestant: str, cost: float) -> Sample:
    """``cost`` in microseconds per request."""
    return Sample(contestant, 0, 1_000, 0, 0, 1.0, cost * 1e-3, p50=1, p95=2, p99=3, rss=0, pss=0, rss_at_rest=0)


class TestDoors:
    def test_each_program_comes_through_each_door_of_its_scheme(self) -> None:
        """A door has its own tool, connections and headers; the name of a program is the same at all of them."""
        running = Running("nginx", PLACE, None)  # type: ignore[arg-type]  # it is not run
        one = Contestant("apigw tls", running, BARE, scheme="https")
        made = {each.name: each for each in doors.contestants([one], "https")}
        assert set(made) == {f"apigw, {door.name}" for door in doors.DOORS if door.scheme == "https"}
        assert doors.CLOSE in made["apigw, TLS, a new connection each"].scenario.headers
        assert made["apigw, HTTP/2, 16 x 16"].tool == H2load("h2", 16)
        assert made["apigw, HTTP/2, 16 x 16"].connections == 16

    def test_each_is_judged_against_nginx_at_the_same_door(self) -> None:
        samples = [
            sample("nginx, plain, kept alive", 10),
            sample("apigw, plain, kept alive", 16),
            sample("nginx, TLS, a new connection each", 100),
            sample("apigw, TLS, a new connection each", 190),
        ]
        plain, tls = doors.verdicts(samples, "apigw")
        assert (plain.kept, plain.seen) == (False, "1.60 times")
        assert (tls.kept, tls.seen) == (True, "1.90 times")


class TestPrograms:
    def test_haproxy_has_its_certificate_and_its_key_in_one_file(self) -> None:
        files = programs.HAPROXY_TLS.files(PLACE)
        assert "bind 127.0.0.1:8443 ssl crt both.pem alpn h2,http/1.1\n" in files["haproxy.cfg"]
        assert "CERTIFICATE" in files["both.pem"]
        assert "PRIVATE KEY" in files["both.pem"]

    def test_http2_goes_to_the_last_of_the_origins(self) -> None:
        """For the gateway and for Envoy; the first speaks HTTP/1.1, and answers the check before a run."""
        ours = programs.with_grpc(PLACE)["services"]["origin"]
        assert ours == {"targets": ["http://127.0.0.1:9001"], "protocol": "grpc"}
        envoy = programs.ENVOY_GRPC.files(PLACE)["envoy.json"]
        assert '"port_value": 9001' in envoy
        assert '"port_value": 9000' not in envoy
        assert "http2_protocol_options" in envoy

    def test_a_message_is_framed(self) -> None:
        """One byte for no compression, four for the length."""
        assert programs.MESSAGE[:5] == b"\0" + (len(programs.MESSAGE) - 5).to_bytes(4, "big")


class TestTools:
    def test_wrk_sends_a_body(self) -> None:
        """Also where there are no authorizations: their place is kept."""
        assert wrk.argv("http://a/", 1, 8, body=Path("body"))[-3:] == ["--", "", "body"]
        both = wrk.argv("http://a/", 1, 8, authorizations=Path("all"), body=Path("body"))
        assert both[-3:] == ["--", "all", "body"]

    def test_h2load_speaks_http2_without_tls(self) -> None:
        argv = H2load("h2c", 4).argv("http://a/", 1, 8, (), Path("log"))
        assert "--no-tls-proto=h2c" in argv
        assert not [piece for piece in argv if piece.startswith("--npn-list")]


@pytest.fixture
def reader() -> Iterator[tuple[tuple[str, int], list[bytes]]]:
    """A service of one connection that writes down each piece that it reads, and answers complete requests."""
    listening = socket.create_server(("127.0.0.1", 0))
    pieces: list[bytes] = []

    def serve() -> None:
        client, _ = listening.accept()
        came = b""
        with client:
            while piece := client.recv(65536):
                pieces.append(piece)
                came += piece
                if came.endswith(bodies.BODY):
                    came = b""
                    status = b"200 OK" if len(pieces) < 6 else b"500 Oh"
                    client.sendall(b"HTTP/1.1 %b\r\nContent-Length: 2\r\n\r\n{}" % status)

    thread = threading.Thread(target=serve)
    thread.start()
    yield listening.getsockname(), pieces
    thread.join(10)
    listening.close()


class TestPosts:
    def test_two_pieces_are_a_head_and_a_body(self, reader: tuple[tuple[str, int], list[bytes]]) -> None:
        address, pieces = reader
        took = bodies.posts(address, 2, pieces=2)
        assert 0 < took.p50 <= took.p99
        assert b"".join(pieces).count(bodies.BODY) == 2

    def test_another_answer_is_no_result(self, reader: tuple[tuple[str, int], list[bytes]]) -> None:
        address, _ = reader
        with pytest.raises(NoResult, match="500"):
            bodies.posts(address, 20, pieces=1)


class TestLasting:
    def test_memory_is_that_after_the_first_seconds(self) -> None:
        """It may rise by little, and messages must have come both ways."""
        whole, memory = lasting.verdicts([50 * MIB, 51 * MIB, 50 * MIB], 60, 1_100, [])
        assert whole.kept
        assert (memory.kept, memory.seen) == (True, "grew by 1.00 MiB from 50.0")
        assert not lasting.verdicts([50 * MIB, 60 * MIB], 60, 1_100, [])[1].kept
        assert not lasting.verdicts([50 * MIB], 60, 500, [])[0].kept
        assert not lasting.verdicts([50 * MIB], 60, 1_100, ["reset"])[0].kept
        assert not lasting.verdicts([], 60, 1_100, [])[1].kept


def test_parts_are_chosen_by_name() -> None:
    """An unknown one is named, beside those that there are."""
    assert parser().parse_args(["edge", "--only", "doors,unary"]).only == ["doors", "unary"]
    assert set(PARTS) == {"doors", "h2-h2", "bodies", "posts", "unary", "streams"}
    with pytest.raises(SystemExit):
        parser().parse_args(["edge", "--only", "windows"])
