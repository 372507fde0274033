"""The bench: its arithmetic, its configurations, and that its load tells truly what failed."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Callable
from itertools import count, repeat
from pathlib import Path

import pytest
from bench import callers_cost, ops_cost, origin, plugins_cost, tokens, wrk
from bench.figures import (
    Sample,
    Verdict,
    added_verdict,
    as_json,
    cost_verdict,
    failures,
    memory_report,
    ratio,
    report,
    summarize,
    table,
)
from bench.load import Failure, Load, Request, Tally, encode, explain
from bench.machine import MIB, choose_cores, parse_kilobytes, parse_stat
from bench.programs import REDIS, Place, Variant, parse_variant
from bench.result import NoResult
from bench.scenarios import SCENARIOS, document, many_routes
from bench.transfers import TransferFailed, download, upload
from prometheus_client import CollectorRegistry

from apigw.config.load import load as load_config
from apigw.contract.principal import Principal
from apigw.ops.metrics import Metrics
from apigw.plugins.compression.encoders import CODINGS
from apigw.policy.auth.jwt.tokens import CACHED_TOKENS, Tokens
from apigw.policy.auth.model import auth_of
from apigw.process.rules import RULES
from apigw.proxy.accounting import Accounting


def sample(contestant: str, number: int, cost: float, requests: int = 1_000_000, failed: int = 0) -> Sample:
    """``cost`` in microseconds per request."""
    return Sample(
        contestant=contestant,
        round=number,
        requests=requests,
        bytes=requests * 100,
        failed=failed,
        seconds=4.0,
        cpu=cost * requests / 1e6,
        p50=1.0,
        p95=2.0,
        p99=float(number),
        rss=20 * MIB,
        pss=10 * MIB,
        rss_at_rest=15 * MIB,
    )


def cells(row: str) -> list[str]:
    return [cell.strip() for cell in row.strip("|").split("|")]


class TestFigures:
    def test_ratio_is_taken_within_a_round(self) -> None:
        """A machine that was slow for one round makes a neighbour look better than it is."""
        samples = [
            *(sample("nginx", number, cost) for number, cost in enumerate((10, 30, 10))),
            *(sample("apigw", number, cost) for number, cost in enumerate((20, 60, 21))),
        ]
        assert ratio(samples, "apigw", "nginx") == pytest.approx(2.0)
        assert ratio(samples, "nginx", "nginx") == 1.0

    def test_no_ratio_without_a_common_round(self) -> None:
        """Without nginx on the machine the table breaks instead of leaving a column empty."""
        assert ratio([sample("apigw", 0, 20)], "apigw", "nginx") is None
        assert ratio([sample("apigw", 0, 20), sample("nginx", 1, 10)], "apigw", "nginx") is None
        assert ratio([sample("apigw", 0, 20), sample("nginx", 0, 10, requests=0)], "apigw", "nginx") is None

    def test_summaries_are_medians_and_failures_are_sums(self) -> None:
        """One odd round changes the result, or failed requests of a round are lost."""
        samples = [sample("apigw", number, cost, failed=1) for number, cost in enumerate((20, 99, 21))]
        (one,) = summarize(samples, "nginx")
        assert one.cost == pytest.approx(21)
        assert (one.rate, one.p99, one.failed, one.ratio) == (250_000, 1.0, 3, None)

    def test_report_shows_every_contestant_in_order(self) -> None:
        """The table lacks a program, or the ratio to nginx stands in another's row."""
        samples = [sample("nginx", 0, 10), sample("apigw", 0, 25)]
        head, _, first, second = report(summarize(samples, "nginx")).splitlines()
        assert "requests/s" in head
        assert cells(first) == ["nginx", "10.0", "1.00", "250,000", "250%", "1.00", "2.00", "0.00", "0"]
        assert cells(second)[:4] == ["apigw", "25.0", "2.50", "250,000"]

    def test_report_of_memory(self) -> None:
        """Memory after the load is shown as that at rest."""
        *_, row = memory_report(summarize([sample("apigw", 0, 25)], "nginx")).splitlines()
        assert cells(row) == ["apigw", "15", "20", "10"]

    def test_cost_by_size_does_not_count_requests(self) -> None:
        """A large body that was cut off when the load ended makes the others look dearer."""
        few, many = sample("apigw", 0, 20, requests=1000), sample("nginx", 0, 10, requests=1000)
        assert few.cost_of_mib == pytest.approx(20 * MIB / 100)
        assert ratio([few, many], "apigw", "nginx", lambda one: one.cost_of_mib) == pytest.approx(2.0)

    def test_failures_are_verdicts(self) -> None:
        """Requests failed, and the run is called a success."""
        (verdict,) = failures(summarize([sample("nginx", 0, 10), sample("apigw", 0, 20, failed=3)], "nginx"))
        assert str(verdict) == "FAIL  errors, apigw: 3 requests failed (wanted: none)"

    def test_table_is_markdown_with_numbers_to_the_right(self) -> None:
        """Columns of figures cannot be read, or the table falls apart when it is pasted into a page."""
        assert table([["", "n"], ["a", "1.00"], ["long", "12.00"]]) == (
            "|      |     n |\n| ---- | ----: |\n| a    |  1.00 |\n| long | 12.00 |"
        )

    def test_verdict_on_a_cost(self) -> None:
        """A target that was missed is reported as reached, or one that was not measured at all."""
        samples = [sample("nginx", 0, 10), sample("apigw", 0, 31)]
        missed = cost_verdict(samples, "apigw", "nginx", 3.0)
        assert missed is not None
        assert str(missed).startswith("FAIL  CPU per request, apigw against nginx: 3.10 times")
        reached = cost_verdict(samples, "apigw", "nginx", 3.1)
        assert reached is not None
        assert reached.kept
        assert cost_verdict(samples, "apigw", "haproxy", 3.0) is None

    def test_verdict_on_what_is_added(self) -> None:
        """What a feature costs is set against the wrong program, or a missed target is reported as reached."""
        rounds = ((10, 30, 32), (20, 60, 64), (10, 30, 90))
        names = ("nginx", "apigw", "apigw jwt")
        samples = [sample(names[at], one, cost) for one, costs in enumerate(rounds) for at, cost in enumerate(costs)]
        missed = added_verdict(samples, "apigw jwt", "apigw", "nginx", 0.1)
        assert str(missed) == "FAIL  added CPU per request, apigw jwt over apigw: 0.20 n (wanted: at most 0.10 n)"
        reached = added_verdict(samples, "apigw jwt", "apigw", "nginx", 0.25)
        assert reached is not None
        assert reached.kept
        assert added_verdict(samples, "apigw jwt", "apigw", "haproxy", 0.25) is None

    def test_verdict_puts_details_below(self) -> None:
        """What failed is buried in the middle of a line."""
        text = str(Verdict("p", False, "1 failed", "none", ("1 x reset",)))
        assert text == "FAIL  p: 1 failed (wanted: none)\n      1 x reset"

    def test_json_holds_every_sample_with_what_follows_from_it(self) -> None:
        """A plot cannot be drawn from what was written."""
        samples = [sample("nginx", 0, 10), sample("nginx", 1, 12)]
        said = json.loads(json.dumps(as_json(samples, summarize(samples, "nginx"))))
        assert [one["cost"] for one in said["samples"]] == [10.0, 12.0]
        assert said["medians"][0]["contestant"] == "nginx"


class TestMachine:
    def test_stat_of_a_process_with_an_odd_name(self) -> None:
        """CPU time is read from the wrong fields once a process's name has spaces or parentheses."""
        fields = "S 1 77 55 0 -1 4194560 0 0 0 0 100 20 3 4 20 0 1 0 999"
        stat = parse_stat(f"42 (nginx: (worker) x) {fields}")
        assert (stat.pid, stat.state, stat.session, stat.ticks) == (42, "S", 55, 127)

    def test_kilobytes(self) -> None:
        """Memory is off by 1024, or a kernel without PSS stops the bench."""
        assert parse_kilobytes("Name:\tx\nVmRSS:\t  20480 kB\n", "VmRSS") == 20 * MIB
        assert parse_kilobytes("Pss_Anon: 4 kB\n", "Pss") == 0

    def test_cores(self) -> None:
        """Proxy and load fight for one core although there are two."""
        assert (choose_cores({0, 1, 2}).proxy, choose_cores({0, 1, 2}).load) == (2, 0)
        assert choose_cores({3}).shared


class TestWrk:
    def test_result_line(self) -> None:
        """The figures of a run are lost among what else wrk prints."""
        line = (
            'RESULT {"requests": 3000, "bytes": 600000, "seconds": 2.001, "p50": 0.61, "p95": 0.9, "p99": 1.5, '
            '"errors": {"connect": 0, "read": 1, "write": 0, "status": 2, "timeout": 0}}'
        )
        result = wrk.parse(f"Running 2s test\n  1 threads and 64 connections\n{line}\nTransfer/sec: 1MB\n")
        assert (result.requests, result.p99, result.failed) == (3000, 1.5, 3)

    def test_no_result(self) -> None:
        """wrk could not connect, and the bench says something about JSON instead."""
        with pytest.raises(NoResult, match="unable to connect"):
            wrk.parse("unable to connect to 127.0.0.1:1 Connection refused\n")


class TestPrograms:
    place = Place(Path("/tmp/with space"), 8080, (9001, 9002))

    def test_variant_fills_in_its_command(self) -> None:
        """A gateway given on the command line starts with the wrong port, or a path with a space falls apart."""
        variant = parse_variant("other=/opt/gw {profile} -p {port} --config={config} 'x y' {origin}")
        assert variant.name == "other"
        words = ["/opt/gw", "-p", "8080", "--config=/tmp/with space", "x y", "9001"]
        assert variant.program(document).argv(self.place) == words
        assert variant.program(document, profile=("--a", "--b")).argv(self.place)[1:3] == ["--a", "--b"]
        assert variant.profiles_itself

    def test_variant_without_a_name(self) -> None:
        """A command whose arguments hold an equals sign is cut in two."""
        variant = parse_variant("/opt/gw --config={config}")
        assert (variant.name, variant.command) == ("gw", "/opt/gw --config={config}")

    def test_what_is_not_there_is_not_installed(self) -> None:
        """A missing neighbour ends the whole run instead of being left out."""
        absent = Variant("absent", "/no/such/program {config}").program(document)
        assert not absent.installed
        assert absent.said_version() == ""


class TestScenarios:
    def test_many_routes(self) -> None:
        """The comparison with ten thousand routes measures fewer of them, or none that is asked for."""
        routes = many_routes(1000)
        assert len({route["path"] for route in routes}) == 1000
        assert "/api/v1/users/:id" in {route["path"] for route in routes}

    @pytest.mark.parametrize("name", [scenario.name for scenario in SCENARIOS if scenario.name != "routes-10000"])
    def test_gateway_accepts_the_configuration(self, name: str, tmp_path: Path) -> None:
        """The gateway refuses to start in the bench."""
        (scenario,) = (scenario for scenario in SCENARIOS if scenario.name == name)
        (tmp_path / "gateway.yaml").write_text(json.dumps(scenario.config(Place(tmp_path, 8080, (9001, 9002)))))
        config = load_config(os.fspath(tmp_path), {}, RULES)
        assert [target.port for target in config.services[0].targets] == (
            [9001] if REDIS in scenario.beside else [9001, 9002]
        )

    @pytest.mark.parametrize(("name", "algorithm"), [("jwt", "RS256"), ("all-es256-first-seen", "ES256")])
    def test_tokens_are_those_of_the_configuration(
        self, tmp_path: Path, name: str, algorithm: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The bench measures how fast the gateway refuses tokens, or the same few tokens instead of many."""
        many = tokens.MANY
        monkeypatch.setattr(tokens, "MANY", 5)
        (scenario,) = (scenario for scenario in SCENARIOS if scenario.name == name)
        (tmp_path / "gateway.yaml").write_text(json.dumps(scenario.config(Place(tmp_path, 8080, (9001,)))))
        auth = auth_of(load_config(os.fspath(tmp_path), {}, RULES))
        assert auth is not None
        authenticator, values = Tokens(auth), tokens.authorizations(5, algorithm)
        for value in (*values, *scenario.authorizations()):
            principal = authenticator.authenticate([value.encode()], time.time())
            assert isinstance(principal, Principal)
            assert principal.roles == ("user",)
        assert len(set(values)) == 5
        assert many > CACHED_TOKENS

    def test_gateway_accepts_many_routes(self, tmp_path: Path) -> None:
        """Two of the made-up routes have the same shape, and the gateway refuses to start."""
        (tmp_path / "gateway.yaml").write_text(json.dumps(document(Place(tmp_path, 8080, (9001,)), many_routes(200))))
        assert len(load_config(os.fspath(tmp_path), {}, RULES).routes) == 200


async def load_until(done: Callable[[Tally], bool], load: Load) -> Tally:
    running = asyncio.create_task(load.run())
    while not done(load.tally):
        await asyncio.sleep(0)
    load.stop()
    return await running


async def against(answer: bytes, close: bool = False, expect: bytes | None = None) -> Failure:
    """The first failure of a load against a server that always answers with these bytes."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(answer)
                if close:
                    break
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        load = Load(("127.0.0.1", origin.port_of(server)), repeat(Request(encode("/"), expect)), 1)
        tally = await load_until(lambda tally: bool(tally.failures), load)
        return tally.failures[0]


class TestLoad:
    def test_every_answer_is_the_one_that_was_asked_for(self) -> None:
        """The load counts an answer that belongs to another request."""

        async def run() -> Tally:
            async with await origin.listen() as server:
                requests = (Request(encode(f"/{number}"), origin.answer(f"/{number}")) for number in count())
                load = Load(("127.0.0.1", origin.port_of(server)), requests, 8)
                return await load_until(lambda tally: tally.answered >= 200, load)

        tally = asyncio.run(run())
        assert not tally.failures, explain(tally.failures)
        assert len(tally.latencies) == tally.answered == tally.statuses[200] >= 200

    @pytest.mark.parametrize(
        ("answer", "close", "kind"),
        [
            (b"HTTP/1.1 502 Bad\r\nContent-Length: 2\r\n\r\nno", False, "status 502"),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nbad", False, "wrong body"),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\ncut", True, "closed in the middle of the answer"),
            (b"", True, "closed before the answer"),
            (b"SSH-2.0\r\n\r\n", False, "malformed answer"),
            (
                b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n",
                False,
                "an answer that nobody asked for",
            ),
        ],
    )
    def test_failures_are_told_apart(self, answer: bytes, close: bool, kind: str) -> None:
        """A request that failed is counted as answered, or nobody can tell what happened to it."""
        failure = asyncio.run(against(answer, close, b"ok"))
        assert failure.kind == kind
        assert failure.sent is not None

    def test_failures_before_a_moment(self) -> None:
        """A request that came after the signal is held against the gateway, or one before it is forgiven."""
        failures = [Failure("reset", "", sent, 9.0, False) for sent in (None, 1.0, 2.0)]
        assert Tally(failures=failures).sent_before(2.0) == [failures[1]]

    def test_percentile(self) -> None:
        """A latency that nobody saw is reported."""
        tally = Tally()
        assert tally.percentile(0.99) == 0.0
        tally.latencies.extend(float(number) for number in range(100))
        assert (tally.percentile(0.5), tally.percentile(0.99), tally.percentile(1.0)) == (50.0, 99.0, 99.0)


class TestTransfers:
    def test_both_ways(self) -> None:
        """The memory check reports a whole body as broken."""

        async def run() -> None:
            async with await origin.listen() as server:
                address = ("127.0.0.1", origin.port_of(server))
                await download(address, "/", MIB + 1, 0.0)
                await upload(address, "/", MIB + 1, 0.0)

        asyncio.run(run())

    def test_a_body_that_was_changed(self) -> None:
        """A gateway that loses bytes, or repeats them, passes the memory check."""

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n" + bytes(8))
            writer.close()

        async def run() -> None:
            server = await asyncio.start_server(serve, "127.0.0.1", 0)
            async with server:
                await download(("127.0.0.1", origin.port_of(server)), "/", 8, 0.0)

        with pytest.raises(TransferFailed, match="not the same"):
            asyncio.run(run())


def test_plugins_are_timed_on_the_real_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """``plugins_cost`` times plugins that fail, and so do nothing."""
    monkeypatch.setattr(plugins_cost, "REQUESTS", 10)
    sent = plugins_cost.Sent()
    plugins = [plugins_cost.Stamp("X-Tenant"), plugins_cost.AsyncStamp("X-Plan")]
    assert plugins_cost.microseconds(plugins_cost.pipeline(plugins, sent)) > 0
    assert sent.fields[-2:] == [(b"x-tenant", b"acme"), (b"x-plan", b"acme")]


def test_callers_are_timed_who_are_let_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """``callers_cost`` times refusals, or a stage that nobody goes through."""
    monkeypatch.setattr(callers_cost, "REQUESTS", 10)
    monkeypatch.setattr(callers_cost, "PAIRS", 2)
    for kind in callers_cost.kinds(tmp_path, 100):
        assert len(callers_cost.differences(kind)) == 2


@pytest.mark.parametrize("coding", CODINGS)
def test_turns_are_timed_one_by_one(coding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A MiB takes more than one turn, of which the longest is told."""
    readings = iter(range(1_000_000))
    monkeypatch.setattr(time, "thread_time", lambda: next(readings) / 1000)
    assert plugins_cost.held(coding) == pytest.approx(1)
    assert next(readings) > 2 * 16


def test_what_operators_see_is_timed_on_the_real_parts() -> None:
    """``ops_cost`` times an exchange that no gateway ever has, or none at all."""
    metrics = Metrics(CollectorRegistry(), "test")
    Accounting(metrics, None, lambda: 0.0, lambda: 0.0).exchange_ended(ops_cost.exchange(metrics))
    assert b'path="/api/v1/users/:id",route="/api/v1/users/:id",status="200"} 1' in metrics.render()[1]
