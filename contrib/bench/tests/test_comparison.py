"""The comparison with the neighbours: their configurations, what the tools print, offered load, and the plot."""

from __future__ import annotations

import json
import re
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from bench import envoy, full, h2load, nginx, node, plot, tokens
from bench.compare import verdicts as compare_verdicts
from bench.figures import Sample
from bench.ground import Ground
from bench.latency import Endured, Point, endured_verdict, point
from bench.latency import verdicts as latency_verdicts
from bench.machine import Cores
from bench.neighbours import NEIGHBOURS
from bench.offered import Offered, at_random, evenly, offer
from bench.part import Part
from bench.programs import GATEWAY, Place, Program
from bench.result import NoResult, quantile
from bench.rounds import contestant_name, missing
from bench.scenarios import ALL, SCENARIOS, TARGETS

PLACE = Place(Path("/tmp/place"), 8080, (9001,))
PROGRAMS = [one.program for one in NEIGHBOURS] + [nginx.TLS, nginx.ORIGIN]


class TestNeighbours:
    @pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: str(program.name))
    def test_listens_where_it_is_told(self, program: Program) -> None:
        """A neighbour's configuration has a placeholder left in it, or listens on another port."""
        told = " ".join((*program.files(PLACE).values(), *program.argv(PLACE)))
        assert "8080" in told
        assert ("9001" in told) == (program is not nginx.ORIGIN)
        assert not re.search(r"\{\{|\{(host|port|origin)\}", told)

    def test_names_are_unique(self) -> None:
        """Two neighbours are added up as one."""
        names = [one.program.name for one in NEIGHBOURS]
        assert len(set(names)) == len(names)

    def test_every_target_names_something_that_can_run(self) -> None:
        """A promise is never checked, because nothing has the name that it is about."""
        scenarios = {scenario.name for scenario in SCENARIOS}
        known = scenarios | {one.program.name for one in NEIGHBOURS}
        assert all(target.scenario in scenarios and target.against in known for target in TARGETS)

    def test_only_nginx_with_tls_has_a_certificate(self) -> None:
        """nginx does not start over TLS, or speaks TLS where none is measured."""
        assert set(nginx.TLS.files(PLACE)) == {"nginx.conf", "cert.pem", "key.pem"}
        assert "ssl http2" in nginx.TLS.files(PLACE)["nginx.conf"]
        assert set(nginx.BARE.files(PLACE)) == {"nginx.conf"}
        assert "ssl" not in nginx.BARE.files(PLACE)["nginx.conf"]

    def test_nginx_logs_and_limits_in_the_server(self) -> None:
        """nginx with an access log has none: beside an `access_log off` any other is off too, without a word."""
        _, _, server = nginx.LIMIT_AND_LOG.files(PLACE)["nginx.conf"].partition("    server {")
        assert "access_log access.log" in server
        assert "limit_req zone=" in server

    def test_envoy_has_the_policies_of_the_gateway(self) -> None:
        """The gateway with every policy is compared with an Envoy that has fewer."""
        (listener,) = envoy.everything(PLACE)["static_resources"]["listeners"]
        manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
        routes = manager["route_config"]["virtual_hosts"][0]["routes"]
        assert len({route["name"] for route in routes}) == 100
        assert routes[50]["name"] == "/api/v1/users/{id}"
        assert [one["name"].rpartition(".")[2] for one in manager["http_filters"]] == [
            "jwt_authn",
            "rbac",
            "local_ratelimit",
            "router",
        ]
        assert manager["generate_request_id"]
        assert manager["access_log"]
        (cluster,) = envoy.everything(PLACE)["static_resources"]["clusters"]
        assert cluster["outlier_detection"]

    def test_key_set_holds_the_public_key_alone(self) -> None:
        """Envoy refuses every token, or the private key is written into its configuration."""
        (key,) = json.loads(tokens.key_set())["keys"]
        assert (key["kty"], key["alg"]) == ("RSA", "RS256")
        assert "d" not in key

    def test_npm_packages_are_pinned(self) -> None:
        """Another day measures other versions, or the lockfile names the registry that somebody once had."""
        wanted = json.loads((node.SOURCE / "package.json").read_text())["dependencies"]
        assert all(re.fullmatch(r"[\d.]+", version) for version in wanted.values())
        lock = (node.SOURCE / "package-lock.json").read_text()
        assert json.loads(lock)["packages"][""]["dependencies"] == wanted
        assert '"resolved"' not in lock

    def test_express_gateway_only_proxies(self) -> None:
        """Its configuration enables more than is compared."""
        assert node.gateway_config(PLACE)["policies"] == ["proxy"]
        assert node.gateway_config(PLACE)["serviceEndpoints"]["origin"]["url"] == "http://127.0.0.1:9001"


H2LOAD = """\
starting benchmark...
Application protocol: h2
finished in 2.00s, 1500.00 req/s, 1.2MB/s
requests: 3001 total, 3001 started, 3000 done, 2999 succeeded, 1 failed, 1 errored, 0 timeout
status codes: 2998 2xx, 0 3xx, 0 4xx, 1 5xx
traffic: 1.28MB (1340196) total, 527.34KB (540000) headers (space savings 48.57%), 605.47KB (620000) data
"""


class TestH2load:
    def test_result(self) -> None:
        """What failed over HTTP/2 is not counted, or milliseconds are taken for microseconds."""
        lines = [f"1700000000000000\t200\t{number * 1000}" for number in range(100)]
        result = h2load.parse(H2LOAD, lines, "h2")
        assert (result.requests, result.bytes, result.seconds) == (3000, 1_340_196, 2.0)
        assert (result.p50, result.p99) == (50.0, 99.0)
        assert result.errors == {"failed": 1, "errored": 1, "status": 1}

    def test_another_protocol(self) -> None:
        """HTTP/1.1 is measured and called HTTP/2."""
        with pytest.raises(NoResult, match=r"to speak h2, and http/1\.1"):
            h2load.parse(H2LOAD.replace("protocol: h2", "protocol: http/1.1"), [], "h2")

    def test_no_result(self) -> None:
        """h2load could not connect, and nobody learns why."""
        with pytest.raises(NoResult, match="Could not resolve"):
            h2load.parse("Could not resolve host\n", [], "h2")


@contextmanager
def answering(answer: bytes) -> Iterator[tuple[str, int]]:
    """A server on loopback that answers everything with these bytes."""

    def talk(connected: socket.socket) -> None:
        with connected:
            while connected.recv(65536):
                connected.sendall(answer)

    def accept(listening: socket.socket) -> None:
        while True:
            try:
                connected, _ = listening.accept()
            except OSError:
                return
            Thread(target=talk, args=(connected,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = Thread(target=accept, args=(listening,), daemon=True)
        thread.start()
        yield listening.getsockname()
        listening.shutdown(socket.SHUT_RDWR)
        thread.join()


class TestOffered:
    @pytest.mark.parametrize("moments", [at_random, evenly])
    def test_moments(self, moments: Any) -> None:
        """Fewer requests are offered than the report says."""
        due = list(moments(1000, 10))
        assert len(due) == pytest.approx(10_000, rel=0.05)
        assert all(first <= then for first, then in pairwise(due))
        assert 0 <= due[0] <= due[-1] < 10
        assert list(moments(1000, 10)) == due

    def test_every_request_is_answered(self) -> None:
        """Requests that were due are lost in the count."""
        with answering(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok") as address:
            done = offer(address, b"GET / HTTP/1.1\r\n\r\n", b"ok", 1000, 0.05, 2, "even")
        assert (done.due, len(done.latencies), done.failed) == (50, 50, 0)
        assert list(done.latencies) == sorted(done.latencies)

    def test_what_is_refused_has_failed(self) -> None:
        """A gateway that answers 503 in time is called fast."""
        with answering(b"HTTP/1.1 503 No\r\nContent-Length: 2\r\n\r\nok") as address:
            done = offer(address, b"GET / HTTP/1.1\r\n\r\n", b"ok", 1000, 0.02, 2, "even")
        assert (done.due, len(done.latencies), done.failed) == (20, 0, 20)

    def test_quantile(self) -> None:
        """A latency that nobody saw is reported."""
        assert quantile([], 0.5) == 0.0
        assert quantile([1.0, 2.0, 3.0], 0.5) == 2.0
        assert quantile([1.0, 2.0, 3.0], 1.0) == 3.0


def at(contestant: str, p95: float, share: float = 0.5, capacity_of: str = "apigw", failed: int = 0) -> Point:
    return Point(contestant, capacity_of, share, 20_000 * share, 0.1, p95, 9.0, 0.0, failed)


class TestLatency:
    def test_point_is_of_medians(self) -> None:
        """One odd round decides over a promise."""
        runs = [Offered(100.0, 1, failed, 1.0, 0.0, [seconds]) for seconds, failed in ((1.0, 0), (9.0, 1), (2.0, 1))]  # type: ignore[arg-type]
        assert point("apigw", "apigw", 0.5, runs) == Point("apigw", "apigw", 0.5, 100.0, 2e3, 2e3, 2e3, 0.0, 2)

    def test_verdict_is_on_half_of_the_capacity_against_nginx_there(self) -> None:
        """The promise is checked at another rate, or against nginx at another one."""
        points = [
            at("apigw", 0.4), at("nginx", 0.21), at("apigw", 9.0, 0.9), at("nginx", 0.1, 0.9),
            at("apigw all", 0.5, capacity_of="apigw all"), at("nginx", 0.2, capacity_of="apigw all"),
        ]  # fmt: skip
        kept, missed = latency_verdicts(points)
        assert kept.kept
        assert "apigw against nginx: 0.40 ms, 1.90 times" in str(kept)
        assert not missed.kept
        assert "apigw all against nginx" in str(missed)

    def test_errors_are_a_verdict(self) -> None:
        """Requests failed under offered load, and nobody is told."""
        (verdict,) = latency_verdicts([at("nginx", 0.2, failed=2)])
        assert not verdict.kept

    @pytest.mark.parametrize(
        ("p95", "failed", "answered", "kept"),
        [(49.0, 0, 100, True), (50.0, 0, 100, False), (1.0, 1, 99, False), (1.0, 0, 99, False)],
    )
    def test_endurance(self, p95: float, failed: int, answered: int, kept: bool) -> None:
        """A run with an error, or too slow, counts as endured."""
        one = Endured("apigw all", 10_000, 60, 100, answered, failed, 1.0, p95, 60.0, 70.0, 0.1, 0.5, 0, 0)
        assert endured_verdict(one).kept is kept


class TestCompare:
    def test_verdicts_on_what_ran(self) -> None:
        """A target that was missed is not reported, or one is reported of which a side did not run."""
        costs = {"nginx": 10.0, "envoy all": 60.0, "apigw": 25.0, "apigw all": 55.0}
        samples = [Sample(name, 0, 1000, 0, 0, 4.0, cost / 1e3, 1.0, 1.0, 1.0, 1, 1, 1) for name, cost in costs.items()]
        found = compare_verdicts(samples, [GATEWAY])
        said = {f"{verdict.promise} {verdict.wanted}": verdict.kept for verdict in found}
        assert said == {
            "CPU per request, apigw against nginx at most 3.00": True,
            "CPU per request, apigw against nginx at most 2.20": False,
            "CPU per request, apigw all against envoy all at most 0.900": False,
        }

    def test_a_gateway_that_does_not_run_is_missed(self) -> None:
        """Nothing was measured, and the run is called a success."""
        program = GATEWAY.program(ALL.config, contestant_name(GATEWAY.name, ALL))
        (verdict,) = missing([], [(program, ALL)])
        assert str(verdict) == "FAIL  apigw all runs: it was left out, see above (wanted: runs)"

    def test_settings_are_those_of_the_part_unless_given(self) -> None:
        """A smoke run takes a quarter of an hour, or a full one measures for a second."""
        assert full.settings("endurance", None, None, None).seconds == 60
        assert full.settings("endurance", 1, 2, 3) == full.Settings(1, 2, 3)
        assert set(full.COMMANDS["full"]) == {part for parts in full.COMMANDS.values() for part in parts}

    def test_a_part_that_breaks_off_does_not_take_the_others_with_it(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """After ten minutes one tool fails, and what comes after it is never measured."""

        def broken(*_: object) -> Part:
            raise NoResult("h2load printed no result")

        done = Part("routes", "Routes", "", {})
        kinds = {
            "http2": full.Kind(broken, full.Settings(1, 1), sys.executable),
            "routes": full.Kind(lambda *_: done, full.Settings(1, 1), sys.executable),
            "bodies": full.Kind(broken, full.Settings(1, 1), "/no/such/tool"),
        }
        monkeypatch.setattr(full, "KINDS", kinds)
        monkeypatch.setattr(full, "start_origin", lambda *_: None)
        said: list[str] = []
        with ExitStack() as stack:
            ground = Ground(GATEWAY, Cores(0, 0), tmp_path, stack, said.append)
            first, second = full.run(tuple(kinds), ground, full.Asked([GATEWAY]), lambda name: full.Settings(1, 1))
        assert [str(verdict) for verdict in first.verdicts] == [
            "FAIL  http2 can be measured: h2load printed no result (wanted: a result)"
        ]
        assert second is done
        assert said == ["left out: bodies (/no/such/tool is not installed)"]

    def test_part_is_markdown(self) -> None:
        """A report cannot be pasted into a page."""
        assert str(Part("x", "Title", "Text.", {})) == "\n## Title\n\nText.\n"


RESULTS: dict[str, Any] = {
    "compare": {
        "medians": [
            {"contestant": name, "cost": cost}
            for name, cost in (
                ("nginx", 10.0), ("envoy", 40.0), ("express-gateway", 500.0), ("envoy all", 60.0),
                ("apigw", 25.0), ("apigw jwt", 30.0), ("apigw all", 50.0),
            )
        ]
    },
    "latency": {
        "points": [
            {"contestant": name, "rate": rate, "p50": 0.2, "p95": 0.4}
            for name, rate in (("apigw all", 2000), ("nginx", 3000), ("apigw", 3000), ("nginx", 2000), ("apigw", 1000))
        ]
    },
}  # fmt: skip


class TestPlot:
    def test_groups(self) -> None:
        """A program stands in the wrong group, or one that was not measured stands in the plot."""
        bare, every = plot.groups(RESULTS, plot.gateway_name(RESULTS))
        assert [(bar.label, bar.ours) for bar in bare[1]] == [
            ("nginx", False),
            ("apigw", True),
            ("envoy", False),
            ("express-gateway", False),
        ]
        assert [(bar.label, bar.cost) for bar in every[1]] == [("apigw", 50.0), ("envoy", 60.0)]

    def test_axis_is_not_made_for_one_bar(self) -> None:
        """One slow program makes all the others look alike."""
        assert plot.axis_end([10.0, 100.0, 500.0]) == pytest.approx(118.0)
        assert plot.axis_end([10.0, 100.0, 200.0]) == pytest.approx(236.0)
        assert plot.axis_end([10.0]) == pytest.approx(11.8)

    def test_lines_go_from_left_to_right(self) -> None:
        """A line goes back and forth between rates, because a program was measured beside two others."""
        found = {line.label: list(line.rates) for line in plot.lines(RESULTS)}
        assert found == {"apigw, every policy on": [2000], "nginx": [2000, 3000], "apigw, bare": [1000, 3000]}

    def test_picture(self, tmp_path: Path) -> None:
        """A run of a quarter of an hour ends without its plot."""
        pytest.importorskip("matplotlib")
        plot.draw(RESULTS, tmp_path / "both.png")
        plot.draw({"compare": RESULTS["compare"]}, tmp_path / "one.png")
        assert (tmp_path / "both.png").read_bytes().startswith(b"\x89PNG")
        assert (tmp_path / "one.png").stat().st_size < (tmp_path / "both.png").stat().st_size

    def test_nothing_to_draw(self, tmp_path: Path) -> None:
        """A run without costs ends with a traceback."""
        with pytest.raises(LookupError, match="neither costs nor latencies"):
            plot.draw({}, tmp_path / "none.png")
