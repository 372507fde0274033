"""The bench's measurements of several workers: their arithmetic, and that the load tells what failed."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from bench.arriving import Arrived, Arriving
from bench.command import parser
from bench.figures import Sample, interval
from bench.load import Failure
from bench.machine import MIB, private
from bench.result import NoResult
from bench.workers import admitted, changes, commit, cost, death, evenly, weight
from bench.workers.changes import Outcome, schedule, upgraded
from bench.workers.death import Death
from bench.workers.parts import PARTS
from bench.workers.several import Waits, counter, with_workers

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def sample(contestant: str, number: int, cost: float, requests: int = 1_000_000) -> Sample:
    """``cost`` in microseconds per request."""
    spent = cost * requests / 1e6
    return Sample(contestant, number, requests, 0, 0, 4.0, spent, p50=1, p95=2, p99=3, rss=0, pss=0, rss_at_rest=0)


class TestInterval:
    def test_is_of_the_ranks_of_the_sign_test(self) -> None:
        """Of twenty values it goes from the sixth to the fifteenth, of six over all of them."""
        assert interval([float(number) for number in range(20)]) == (5.0, 14.0)
        assert interval([3.0, 1.0, 2.0, 6.0, 5.0, 4.0]) == (1.0, 6.0)

    def test_few_values_are_all_of_their_range(self) -> None:
        assert interval([2.0]) == (2.0, 2.0)
        assert interval([2.0, 1.0]) == (1.0, 2.0)


class TestCost:
    def test_each_is_judged_against_one_process_in_the_same_round(self) -> None:
        names = ("nginx", cost.ONE, cost.TWO, cost.EIGHT_OF_MANY, cost.FOUR, cost.FOUR_LIMITED, cost.ONE_OF_MANY)
        rounds = ((10, 20, 20.8, 22.4, 21, 22, 20), (20, 40, 41.6, 44.8, 42, 44, 40))
        samples = [
            sample(names[at], number, one) for number, costs in enumerate(rounds) for at, one in enumerate(costs)
        ]
        two, eight = cost.number_verdicts(samples)
        limit = cost.limit_verdict(samples)
        assert two.kept
        assert two.seen == "1.040 times (95 %: 1.040 to 1.040, 2 rounds)"
        assert not eight.kept
        assert eight.seen.startswith("1.120 times")
        assert limit.kept
        assert limit.seen.startswith("0.100 n")

    def test_waits_are_of_a_million_requests(self) -> None:
        samples = [sample(cost.FOUR, number, 20, requests=1_000_000) for number in range(2)]
        *_, row = cost.lock_report(samples, {cost.FOUR: Waits(30, 1)}).splitlines()
        assert [cell.strip() for cell in row.strip("|").split("|")] == [cost.FOUR, "2,000,000", "30", "15", "1"]

    def test_a_counter_is_the_sum_of_its_series(self) -> None:
        text = '# TYPE a counter\na_total{x="1"} 2.0\na_total{x="2"} 3.0\na_totals 9.0\nb_total 4.0\n'
        assert (counter(text, "a_total"), counter(text, "b_total"), counter(text, "c_total")) == (5.0, 4.0, 0.0)

    def test_workers_and_the_admin_listener_are_added_to_a_configuration(self) -> None:
        whole = with_workers({"gateway": {"listen": ["tcp:1"]}, "routes": []}, 4, 9)
        more = {"listen": ["tcp:1"], "workers": 4, "admin": "tcp:9:interface=127.0.0.1"}
        assert whole == {"gateway": more, "routes": []}


class TestEvenly:
    def test_the_worst_spread_is_judged(self) -> None:
        good, bad = [8] * 8, [11, 5, *[8] * 6]
        assert evenly.verdict([good, [10, 6, *[8] * 6]]).kept
        missed = evenly.verdict([good, bad, good])
        assert not missed.kept
        assert missed.seen == "busiest 1.000 of the mean, at worst 1.375, 3 times"

    def test_a_spread_that_lacks_connections_is_not_kept(self) -> None:
        assert not evenly.verdict([[1] * 8]).kept
        assert not evenly.verdict([[16] * 4]).kept


class TestAdmitted:
    def test_as_many_as_allowed_are_admitted(self) -> None:
        assert admitted.verdict("log", 100_000, 60_000, 0, Waits(3, 0)).kept
        assert not admitted.verdict("log", 100_001, 59_999, 0, Waits(3, 1)).kept

    def test_a_request_without_an_answer_has_failed(self) -> None:
        short = admitted.verdict("log", 100_000, 59_990, 2, Waits(0, 0))
        assert not short.kept
        assert "10 failed" in short.seen

    def test_what_h2load_prints_is_read(self) -> None:
        said = "requests: 160000 total\nstatus codes: 100000 2xx, 0 3xx, 59999 4xx, 1 5xx\ntraffic: …"
        assert admitted.parse(said) == (100_000, 59_999, 1)
        with pytest.raises(NoResult, match="cannot connect"):
            admitted.parse("cannot connect")


class TestWeight:
    def test_private_memory_is_clean_and_dirty(self) -> None:
        rollup = "Rss: 900 kB\nShared_Clean: 5 kB\nPrivate_Clean: 1 kB\nPrivate_Dirty: 20 kB\nPrivate_Hugetlb: 0 kB\n"
        assert private(rollup) == 21 * 1024

    def test_the_heaviest_worker_is_judged(self) -> None:
        missed = weight.verdict("at start", [13 * MIB, 15 * MIB], 14 * MIB)
        assert not missed.kept
        assert missed.seen == "13.0, 15.0 MiB"
        assert weight.verdict("at start", [13 * MIB, 14 * MIB], 14 * MIB).kept

    def test_the_shipped_configuration_gets_workers(self) -> None:
        files = weight.files()
        assert [
            line.split()[1] for line in files["gateway.yaml"].splitlines() if line.lstrip().startswith("workers:")
        ] == [str(weight.WORKERS)]
        assert "auth.yaml" in files


def died(held: int = 2, serves: float = 0.05) -> Death:
    return Death(worker=0, at=10.0, held=held, ready=0.04, serves=serves)


def lost(kind: str = "closed before the answer", at: float = 10.1) -> Failure:
    return Failure(kind, "", 10.0, at, fresh=False)


def arrived(took: float = 0.01, *failures: Failure) -> Arrived:
    load = Arrived(failures=list(failures))
    load.ended.extend([10.5, 12.0])
    load.took.extend([took, 9.0])
    return load


class TestDeath:
    def test_what_the_killed_worker_held_may_be_lost(self) -> None:
        assert all(each.kept for each in death.verdicts([died()], arrived(0.01, lost(), lost())))

    @pytest.mark.parametrize(
        "failures",
        [
            [lost(), lost(), lost()],
            [lost("connect refused")],
            [lost("status 502")],
            [lost("no answer in time")],
            [lost(at=11.5)],
        ],
        ids=["more than it held", "refused", "a status", "no end of the connection", "later"],
    )
    def test_what_others_lose_is_not_forgiven(self, failures: list[Failure]) -> None:
        serves, losses, p99 = death.verdicts([died()], arrived(0.01, *failures))
        assert (serves.kept, losses.kept, p99.kept) == (True, False, True)

    def test_a_late_successor_and_slow_answers_are_missed(self) -> None:
        """What ended a second after the kill, or later, does not count."""
        serves, _, p99 = death.verdicts([died(serves=0.12)], arrived(0.035))
        assert (serves.kept, p99.kept) == (False, False)
        assert p99.seen == "35 ms"

    def test_a_successor_that_does_not_come_is_missed(self) -> None:
        serves, *_ = death.verdicts([died(serves=float("inf"))], arrived())
        assert not serves.kept


class TestChanges:
    def test_upgrades_stand_evenly_between_reloads(self) -> None:
        assert schedule(4, 2) == ["reload", "reload", "upgrade"] * 2
        assert schedule(0, 2) == ["upgrade", "upgrade"]
        whole = schedule(100, 5)
        assert (whole.count("reload"), whole.count("upgrade")) == (100, 5)
        assert (schedule(2, 4).count("upgrade"), schedule(3, 0)) == (4, ["reload"] * 3)

    def test_an_upgrade_has_ended_when_only_new_workers_are_there(self) -> None:
        def status(upgrades: int, *processes: int, upgrading: bool = False) -> dict[str, object]:
            rows = [{"process": process} for process in processes]
            return {"upgrades": upgrades, "upgrading": upgrading, "workers": rows}

        before = status(1, 10, 11)
        assert upgraded(before, status(2, 12, 13))
        assert not upgraded(before, status(1, 10, 11))
        assert not upgraded(before, status(2, 11, 12))
        assert not upgraded(before, status(2, 11, 12, 13))
        assert not upgraded(before, status(2, 12))
        assert not upgraded(before, status(2, 12, 13, upgrading=True))

    @pytest.mark.parametrize(
        ("done", "failed", "rate", "kept"),
        [(2, 0, 1_960.0, True), (1, 0, 1_960.0, False), (2, 1, 1_960.0, False), (2, 0, 1_500.0, False)],
        ids=["all", "one reload is missing", "one connection failed", "the load fell behind"],
    )
    def test_a_run_is_kept_if_all_took_effect_and_none_failed(
        self, done: int, failed: int, rate: float, kept: bool
    ) -> None:
        outcome = Outcome(2, 1, [0.5] * done, [2.0], 10_000, failed, rate, 12.0)
        verdict = changes.verdict(outcome, 2_000.0)
        assert verdict.kept is kept
        assert "1 upgrades (median 2.00 s, at worst 2.00)" in verdict.seen


class TestCommit:
    def test_the_spread_is_from_the_first_worker_to_the_last(self) -> None:
        verdict = commit.verdict([[1.0, 1.01, 1.02], [5.0, 5.06, 5.0], [9.0, 9.0, 9.01]])
        assert not verdict.kept
        assert verdict.seen == "20.0 ms, at worst 60.0, 3 reloads"
        assert commit.verdict([[1.0, 1.04]]).kept

    def test_an_answer_is_whole_with_its_body(self) -> None:
        assert commit.complete(ANSWER)
        assert not commit.complete(ANSWER[:-1])
        assert not commit.complete(ANSWER[:20])
        with pytest.raises(ConnectionError, match="no Content-Length"):
            commit.complete(b"HTTP/1.1 200 OK\r\n\r\n")


@contextmanager
def serving(answer: bytes) -> Iterator[tuple[str, int]]:
    """Each connection gets this for its first request, and is closed after it unless that is an answer."""

    def serve(connected: socket.socket) -> None:
        with connected:
            while connected.recv(65536):
                connected.sendall(answer)
                if answer != ANSWER:
                    return

    def accept() -> None:
        while True:
            try:
                connected, _ = listening.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(connected,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield listening.getsockname()
        listening.shutdown(socket.SHUT_RDWR)
        thread.join()


def load_until(done: Callable[[Arrived], bool], load: Arriving) -> Arrived:
    thread = threading.Thread(target=load.run)
    thread.start()
    while not done(load.arrived):
        thread.join(0.001)
    load.stop()
    thread.join()
    return load.arrived


class TestArriving:
    def test_each_request_is_answered_over_kept_and_new_connections(self) -> None:
        with serving(ANSWER) as address:
            load = Arriving(address, "/", b"ok", kept=2, kept_rate=2_000, fresh_rate=500)
            tally = load_until(lambda now: now.answered >= 200 and now.fresh >= 20, load)
        assert not tally.failures
        assert len(tally.ended) == len(tally.took) == tally.answered
        assert tally.fresh < tally.answered
        assert min(tally.took) > 0

    @pytest.mark.parametrize(
        ("answer", "kind"),
        [
            (b"HTTP/1.1 502 Bad\r\nContent-Length: 2\r\n\r\nok", "status 502"),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\ncut", "closed in the middle of the answer"),
            (b"", "closed before the answer"),
        ],
        ids=["status", "middle", "before"],
    )
    def test_failures_are_told_apart(self, answer: bytes, kind: str) -> None:
        with serving(answer) as address:
            load = Arriving(address, "/", b"ok", kept=1, kept_rate=200, fresh_rate=200)
            tally = load_until(lambda now: len({one.fresh for one in now.failures}) == 2, load)
        assert {one.kind for one in tally.failures} == {kind}
        assert tally.answered == 0

    def test_a_refused_connection_has_failed(self) -> None:
        with socket.socket() as bound:
            bound.bind(("127.0.0.1", 0))
            load = Arriving(bound.getsockname(), "/", b"ok", fresh_rate=500)
            tally = load_until(lambda now: len(now.failures) >= 3, load)
        assert {one.kind for one in tally.failures} == {"connect refused"}

    def test_latency_is_of_a_time_span(self) -> None:
        tally = Arrived()
        tally.ended.extend([1.0, 2.0, 3.0])
        tally.took.extend([0.5, 0.01, 0.5])
        assert tally.percentile(0.99, 1.5, 2.5) == pytest.approx(10.0)
        assert tally.percentile(0.99) == pytest.approx(500.0)


def test_parts_are_chosen_by_name() -> None:
    options = parser().parse_args(["workers", "--only", "cost,death"])
    assert options.only == ["cost", "death"]
    assert set(options.only) < set(PARTS)
    with pytest.raises(SystemExit):
        parser().parse_args(["workers", "--only", "nothing"])
