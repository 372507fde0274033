"""Several workers are one gateway, and go on as one whatever happens to any of them."""

from __future__ import annotations

import os
import resource
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from support.client import Client, Truncated, encode
from support.daemon import Daemon, gateway
from support.services import Received, Service
from support.waiting import eventually

from apigw.process.master import MISSED, TICK

from .conftest import Start

ALL = [{"path": "/*", "service": "main"}]
ONLY_B = [{"path": "/b", "service": "main"}]
WORKERS = 3


def serve(start: Start, service: Service, **settings: Any) -> Daemon:
    daemon = start(gateway(services={"main": service.url}, routes=ALL, workers=WORKERS, **settings))
    eventually(lambda: len(daemon.status()["workers"]) == WORKERS)
    return daemon


@pytest.fixture(scope="module")
def module_daemon(in_front: Start, module_service: Service) -> Daemon:
    return serve(in_front, module_service)


@pytest.fixture
def daemon(module_daemon: Daemon, service: Service) -> Daemon:
    """Shared by the tests that leave the master as it is, and with all of its workers."""
    eventually(lambda: len([row for row in module_daemon.status()["workers"] if row["answers"]]) == WORKERS)
    return module_daemon


def workers(daemon: Daemon) -> list[int]:
    """The processes that the master has."""
    master = daemon.process.pid
    return [int(child) for child in Path(f"/proc/{master}/task/{master}/children").read_text().split()]


def lives(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def end(daemon: Daemon, *processes: int) -> None:
    """Kill workers, and wait until others are there in their place."""
    for process in processes:
        os.kill(process, signal.SIGKILL)
    eventually(lambda: len(workers(daemon)) == WORKERS and not set(processes) & set(workers(daemon)))


@pytest.fixture
def slow(service: Service) -> Iterator[threading.Event]:
    """The service answers when this is set."""
    go_on = threading.Event()

    def behave(received: Received) -> None:
        go_on.wait(20)
        received.conversation.answer(200, body=b"done")

    service.behave = behave
    yield go_on
    go_on.set()


def test_a_worker_that_is_killed_is_replaced(daemon: Daemon) -> None:
    end(daemon, workers(daemon)[0])
    assert daemon.get("/a").status == 200
    assert daemon.status()
    assert "was ended by SIGKILL; replaced " in daemon.log


def test_a_worker_that_drained_is_replaced_and_no_error(daemon: Daemon) -> None:
    """An operator has sent it SIGTERM: nothing was lost, and the alerts on errors do not go off."""
    drained = workers(daemon)[0]
    os.kill(drained, signal.SIGTERM)
    eventually(lambda: f"(process {drained}) ended with exit code 0; replaced " in daemon.log)
    (said,) = (line for line in daemon.log.splitlines() if f"(process {drained})" in line)
    assert "#warn]" in said
    eventually(lambda: len(workers(daemon)) == WORKERS)


def test_all_workers_killed_at_once_are_replaced(daemon: Daemon) -> None:
    end(daemon, *workers(daemon))
    assert daemon.get("/a").status == 200


def test_a_killed_worker_takes_only_its_own_exchanges_with_it(
    daemon: Daemon, service: Service, slow: threading.Event
) -> None:
    clients = [daemon.connect() for _ in range(6)]
    for client in clients:
        client.send(encode("GET", "/a"))
    eventually(lambda: len(service.requests) == 6 and daemon.status()["in_flight"] == 6)
    victim = min((row for row in daemon.status()["workers"] if row["in_flight"]), key=lambda row: row["in_flight"])
    end(daemon, victim["process"])
    slow.set()
    assert sum(map(_was_lost, clients)) == victim["in_flight"]


def _was_lost(client: Client) -> bool:
    try:
        return client.answer().status != 200
    except (OSError, Truncated):
        return True


def test_so_many_requests_in_flight_over_all_workers(start: Start, service: Service, slow: threading.Event) -> None:
    """One more than ``max_requests`` is 503, whichever worker gets it."""
    daemon = serve(start, service, max_requests=4)
    clients = [daemon.connect() for _ in range(4)]
    for client in clients:
        client.send(encode("GET", "/a"))
    eventually(lambda: len(service.requests) == 4)
    assert [daemon.get("/a").status for _ in range(WORKERS)] == [503] * WORKERS
    slow.set()
    assert [client.answer().status for client in clients] == [200] * 4


def test_workers_do_not_interrupt_each_other(daemon: Daemon) -> None:
    """Where they share a core, each is woken for several requests; the master runs when it wants to."""
    assert [os.sched_getscheduler(worker) for worker in workers(daemon)] == [os.SCHED_BATCH] * WORKERS
    assert os.sched_getscheduler(daemon.process.pid) == os.SCHED_OTHER


def test_a_worker_without_files_leaves_connections_to_the_others(daemon: Daemon) -> None:
    """It hangs up on one, of which it learns that it may open no more, and comes back when it may."""
    poor = workers(daemon)[1]
    before = resource.prlimit(poor, resource.RLIMIT_NOFILE)
    resource.prlimit(poor, resource.RLIMIT_NOFILE, (len(os.listdir(f"/proc/{poor}/fd")), before[1]))
    with ExitStack() as stack:
        clients = [stack.enter_context(daemon.connect()) for _ in range(20)]
        assert sum(map(_hangs_up, clients)) <= 1
        resource.prlimit(poor, resource.RLIMIT_NOFILE, before)

        def takes_some() -> bool:
            assert stack.enter_context(daemon.connect()).get("/health").status == 200
            return _connections(daemon, poor) > 2

        eventually(takes_some, interval=0.1)


def _hangs_up(client: Client) -> bool:
    try:
        return client.get("/health").status != 200
    except (OSError, Truncated):
        return True


def _connections(daemon: Daemon, process: int) -> int:
    return next(int(row["connections"]) for row in daemon.status()["workers"] if row["process"] == process)


def test_an_operator_is_answered_by_a_worker_that_ends(daemon: Daemon) -> None:
    """It waits for one that stands still."""
    first, _, last = workers(daemon)
    os.kill(last, signal.SIGSTOP)
    with Client(daemon.admin) as operator:
        operator.send(encode("GET", "/status"))
        os.kill(first, signal.SIGTERM)
        assert operator.answer().status == 200
    os.kill(last, signal.SIGCONT)


def test_a_worker_that_stands_still_is_ended_and_the_others_serve(daemon: Daemon, service: Service) -> None:
    """Until then ``/status`` says that it does not answer. A reload waits for its end; its successor has the new
    configuration, as the others."""
    still = workers(daemon)[0]
    os.kill(still, signal.SIGSTOP)
    eventually(lambda: still in [row["process"] for row in daemon.status()["workers"] if not row["answers"]])
    assert daemon.reload(gateway(services={"main": service.url}, routes=ONLY_B, workers=WORKERS))
    assert still not in workers(daemon)
    assert "has not answered for 5 s" in daemon.log
    eventually(lambda: len(daemon.status()["workers"]) == WORKERS)
    assert [daemon.get("/a").status for _ in range(20)] == [404] * 20
    assert daemon.reload(gateway(services={"main": service.url}, routes=ALL, workers=WORKERS))
    assert daemon.get("/a").status == 200


def test_a_machine_that_was_paused_ends_nobody(daemon: Daemon) -> None:
    """For longer than a worker may hang. Who came meanwhile is served."""
    before, ended = workers(daemon), daemon.log.count("has not answered")
    for process in (daemon.process.pid, *before):
        os.kill(process, signal.SIGSTOP)
    client = daemon.connect()
    client.send(encode("GET", "/a"))
    continues = time.monotonic() + (MISSED + 1) * TICK
    eventually(lambda: time.monotonic() > continues)
    for process in (daemon.process.pid, *before):
        os.kill(process, signal.SIGCONT)
    assert client.answer().status == 200
    two_ticks_later = time.monotonic() + 2 * TICK
    eventually(lambda: time.monotonic() > two_ticks_later)
    assert workers(daemon) == before
    assert daemon.log.count("has not answered") == ended


def test_a_full_disk_costs_nobody_an_error(start: Start, service: Service) -> None:
    """The lines that are lost are counted over all workers."""
    daemon = serve(start, service, access_log={"file": "/dev/full"})
    assert [daemon.get("/a").status for _ in range(20)] == [200] * 20

    def lost() -> bool:
        with Client(daemon.admin) as client:
            return b'gateway_log_lines_lost_total{log="access"} 20.0' in client.get("/metrics").body

    eventually(lost)


def test_the_end_of_the_master_is_the_end_of_its_workers(start: Start, service: Service, slow: threading.Event) -> None:
    """They finish what is in flight, and leave."""
    daemon = serve(start, service)
    client = daemon.connect()
    client.send(encode("GET", "/a"))
    eventually(lambda: len(service.requests) == 1)
    left = workers(daemon)
    daemon.signal(signal.SIGKILL)
    daemon.wait()
    eventually(lambda: sum(map(lives, left)) == 1)
    slow.set()
    assert client.answer().body == b"done"
    eventually(lambda: not any(map(lives, left)))


def test_sigterm_drains_all_workers(start: Start, service: Service, slow: threading.Event) -> None:
    """In the middle of a reload, too, of which nothing is left."""
    daemon = serve(start, service)
    clients = [daemon.connect() for _ in range(6)]
    for client in clients:
        client.send(encode("GET", "/a"))
    eventually(lambda: len(service.requests) == 6)
    left = workers(daemon)
    daemon.signal(signal.SIGHUP)
    eventually(lambda: daemon.status()["reloading"])
    daemon.terminate()
    eventually(lambda: daemon.log.count("draining: ") == WORKERS)
    with pytest.raises(ConnectionRefusedError):
        daemon.connect()
    slow.set()
    assert [client.answer().body for client in clients] == [b"done"] * 6
    assert daemon.wait() == 0
    assert not any(map(lives, left))


def test_while_it_drains_no_client_waits_for_nobody(start: Start, service: Service, slow: threading.Event) -> None:
    """New connections are refused at once, as by one process."""
    daemon = serve(start, service)
    client = daemon.connect()
    client.send(encode("GET", "/a"))
    eventually(lambda: len(service.requests) == 1)
    daemon.terminate()

    def is_refused() -> bool:
        try:
            daemon.connect().close()
        except ConnectionRefusedError:
            return True
        return False

    eventually(is_refused)
    slow.set()
    assert client.answer().body == b"done"
    assert daemon.wait() == 0


def test_a_worker_that_stands_still_does_not_hold_up_the_end(start: Start, service: Service) -> None:
    daemon = serve(start, service)
    os.kill(workers(daemon)[1], signal.SIGSTOP)
    daemon.terminate()
    assert daemon.wait(60) == 0


def test_a_second_sigterm_ends_what_is_in_flight(start: Start, service: Service, slow: threading.Event) -> None:
    daemon = serve(start, service)
    client = daemon.connect()
    client.send(encode("GET", "/a"))
    eventually(lambda: len(service.requests) == 1)
    daemon.terminate()
    eventually(lambda: "draining: " in daemon.log)
    daemon.terminate()
    assert daemon.wait() == 0


def test_a_gateway_whose_workers_cannot_start_says_why(tmp_path: Path, service: Service) -> None:
    unread = tmp_path / "access.log"
    os.mkfifo(unread)
    document = gateway(services={"main": service.url}, routes=ALL, workers=WORKERS, access_log={"file": str(unread)})
    daemon = Daemon(tmp_path / "gateway", document).launch()
    assert daemon.wait() == 1
    assert "apigw: cannot open the access log: [Errno 6] No such device or address" in daemon.log
