"""An upgrade: the program on disk takes the place of the running one, and loses no connection; or nothing changes."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.asking import metrics
from support.client import encode
from support.daemon import Daemon, gateway
from support.services import Service
from support.traffic import Traffic
from support.waiting import eventually

from apigw.cli import main as cli

from .conftest import Start, check_log

ROOT = Path(__file__).resolve().parents[2]
ALL = [{"path": "/*", "service": "main"}]
WORKERS = 2


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """A copy of the program, which a test may change."""
    copy = tmp_path / "program"
    for part in ("apigw", "twisted"):
        shutil.copytree(ROOT / part, copy / part, ignore=shutil.ignore_patterns("dropin.cache"))
    return copy


@pytest.fixture
def daemon(tmp_path: Path, program: Path, service: Service) -> Iterator[Daemon]:
    """Runs the copy."""
    daemon = Daemon(tmp_path / "gateway", document(service))
    try:
        daemon.start({"PYTHONPATH": str(program)})
        eventually(lambda: len(daemon.status()["workers"]) == WORKERS)
        yield daemon
        check_log(daemon)
    finally:
        daemon.kill()


def document(service: Service, **settings: Any) -> dict[str, Any]:
    return gateway(services={"main": service.url}, routes=ALL, workers=WORKERS, **settings)


def upgraded(daemon: Daemon) -> dict[str, Any]:
    """Upgrade, and wait until that has ended. Returns the status."""
    before = daemon.status()["upgrades"]
    daemon.signal(signal.SIGUSR2)
    return ended(daemon, before + 1)


def ended(daemon: Daemon, upgrades: int = 1) -> dict[str, Any]:
    """The status when so many upgrades have ended, and the workers of the program before are gone."""

    def over() -> dict[str, Any] | None:
        status = daemon.status()
        return None if status["upgrades"] != upgrades or len(status["workers"]) != WORKERS else status

    return eventually(over, 60)


def counts(daemon: Daemon, succeeded: int, failed: int) -> None:
    """Wait until ``/metrics``, which are made once a second, have so many upgrades."""
    lines = (
        f'gateway_upgrades_total{{result="{result}"}} {number}.0'
        for result, number in (("success", succeeded), ("failure", failed))
    )
    for line in lines:
        eventually(lambda line=line: line in metrics(daemon))  # type: ignore[misc]


def test_an_upgrade_loses_no_connection(daemon: Daemon, program: Path) -> None:
    """The process stays, the workers are new, and the version is that of the program on disk."""
    version = program / "apigw" / "__init__.py"
    version.write_text(version.read_text().replace('__version__ = "', '__version__ = "9.'))
    before = daemon.status()
    with Traffic(daemon.address, "/a", 4, ("connection", "close")) as traffic:
        traffic.go_on()
        after = upgraded(daemon)
        traffic.go_on()
    assert set(traffic.statuses) == {200}
    assert not traffic.surprises
    assert after["process"] == before["process"] == daemon.process.pid
    assert after["version"] == f"9.{before['version']}"
    assert after["upgrades"] == 1
    assert not {row["process"] for row in after["workers"]} & {row["process"] for row in before["workers"]}


def test_what_is_in_flight_is_finished_by_the_old_program(daemon: Daemon, service: Service) -> None:
    client = daemon.connect()
    client.send(encode("PUT", "/b", "Content-Length: 10") + b"hello")
    eventually(lambda: daemon.status()["in_flight"] == 1)
    daemon.signal(signal.SIGUSR2)
    eventually(lambda: daemon.status()["upgrades"] == 1, 60)
    client.send(b"world")
    assert client.answer().json["body"] == "helloworld"
    ended(daemon)


BROKEN = {
    "a syntax error": ("apigw/process/program.py", "def broken(:\n", "SyntaxError"),
    "an import that fails": ("apigw/process/program.py", "import no_such_module\n", "ModuleNotFoundError"),
    "one that ends without a word": ("apigw/tap.py", "import os\nos._exit(3)\n", "the new program ended with 3"),
}


@pytest.mark.parametrize(("file", "text", "why"), BROKEN.values(), ids=BROKEN)
def test_a_program_that_cannot_be_started_is_not_executed(
    daemon: Daemon, program: Path, file: str, text: str, why: str
) -> None:
    (program / file).write_text(text)
    before = daemon.status()["workers"]
    after = upgraded_not(daemon)
    assert why in after["upgrade_problem"]
    assert [row["process"] for row in after["workers"]] == [row["process"] for row in before]
    assert daemon.get("/a").status == 200


def upgraded_not(daemon: Daemon) -> dict[str, Any]:
    after = upgraded(daemon)
    counts(daemon, 0, 1)
    return after


def test_a_configuration_that_the_new_program_refuses_is_named(daemon: Daemon) -> None:
    daemon.directory.joinpath("gateway.yaml").write_text("routes: 7\n")
    assert "gateway.yaml:1:9: routes: must be a list, not a number" in upgraded_not(daemon)["upgrade_problem"]


def test_a_port_that_is_taken_is_named(daemon: Daemon, service: Service) -> None:
    """The trial binds what is new; nothing has changed."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        daemon.configure(document(service, listen=[f"tcp:{port}:interface=127.0.0.1"]))
        problem = upgraded_not(daemon)["upgrade_problem"]
    assert f"cannot listen: Address already in use: tcp:{port}:interface=127.0.0.1" in problem
    assert daemon.get("/a").status == 200


def test_old_workers_drain_once(daemon: Daemon, service: Service) -> None:
    """A death among the new ones cuts nothing; and another upgrade waits for them."""
    client = daemon.connect()
    client.send(encode("PUT", "/b", "Content-Length: 10") + b"hello")
    eventually(lambda: daemon.status()["in_flight"] == 1)
    daemon.signal(signal.SIGUSR2)
    eventually(lambda: daemon.status()["upgrades"] == 1 and len(daemon.status()["workers"]) == WORKERS + 1, 60)
    new = max(row["worker"] for row in daemon.status()["workers"])
    victim = next(row["process"] for row in daemon.status()["workers"] if row["worker"] == new)
    os.kill(victim, signal.SIGKILL)
    eventually(lambda: victim not in {row["process"] for row in daemon.status()["workers"]})
    eventually(lambda: len(daemon.status()["workers"]) == WORKERS + 1)
    daemon.signal(signal.SIGUSR2)
    eventually(lambda: "upgrade: 1 workers of the program before finish what is in flight" in daemon.log)
    client.send(b"world")
    assert client.answer().json["body"] == "helloworld"
    ended(daemon, 2)
    counts(daemon, 2, 0)


def test_a_listener_that_is_new_is_bound_and_another_goes(daemon: Daemon, service: Service) -> None:
    """What needs a restart otherwise."""
    first = daemon.address
    daemon.configure(document(service, listen=["tcp:0:interface=127.0.0.2"]))
    upgraded(daemon)
    assert "listening on 127.0.0.2:" in daemon.log
    with pytest.raises(ConnectionRefusedError):
        daemon.connect()
    assert first == daemon.address


def test_one_worker_does_not_follow_on_several(daemon: Daemon, service: Service) -> None:
    daemon.configure({**document(service), "gateway": {**document(service)["gateway"], "workers": 1}})
    assert "gateway.workers: with one worker there is no master" in upgraded_not(daemon)["upgrade_problem"]
    assert daemon.get("/a").status == 200


def test_an_upgrade_reads_what_a_reload_has_refused(daemon: Daemon, program: Path) -> None:
    """It is no longer reported: the configuration on disk is in use."""
    (program / "apigw" / "errors.py").open("a").write("# changed\n")
    daemon.signal(signal.SIGHUP)
    eventually(lambda: daemon.status()["last_reload"] == "failed")
    after = upgraded(daemon)
    assert (after["last_reload"], after["problems"]) == (None, [])
    assert "gateway_config_last_reload_successful 1.0" in daemon.get("/metrics").body.decode()


def test_signals_during_an_upgrade_are_not_lost(daemon: Daemon, service: Service) -> None:
    """A second one is refused, and a reload comes before it or after it."""
    daemon.signal(signal.SIGUSR2)
    daemon.signal(signal.SIGUSR2)
    eventually(lambda: "upgrade: trying" in daemon.log)
    daemon.signal(signal.SIGUSR2)
    daemon.signal(signal.SIGHUP)
    eventually(lambda: daemon.status()["reloads"] == 1 and daemon.status()["upgrades"] == 1, 60)
    ended(daemon)
    assert "no other upgrade: one is under way" in daemon.log


def test_sigterm_in_the_middle_of_an_upgrade_drains_the_old_program(daemon: Daemon, service: Service) -> None:
    client = daemon.connect()
    client.send(encode("PUT", "/b", "Content-Length: 10") + b"hello")
    eventually(lambda: daemon.status()["in_flight"] == 1)
    daemon.signal(signal.SIGUSR2)
    eventually(lambda: "upgrade: executing" in daemon.log, 60)
    daemon.terminate()
    eventually(lambda: "draining: 1 exchanges" in daemon.log, 60)
    assert daemon.process.poll() is None
    client.send(b"world")
    assert client.answer().json["body"] == "helloworld"
    assert daemon.wait(60) == 0


def test_many_reloads_do_not_hold_up_an_upgrade(daemon: Daemon) -> None:
    """It comes after the one that runs; and of those that are asked for meanwhile, one comes after it."""
    over = threading.Event()

    def storm() -> None:
        while not over.wait(0.02):
            daemon.signal(signal.SIGHUP)

    storming = threading.Thread(target=storm)
    storming.start()
    try:
        eventually(lambda: daemon.status()["reloading"])
        upgraded(daemon)
        reloads = daemon.status()["reloads"]
        eventually(lambda: daemon.status()["reloads"] > reloads, 60)
    finally:
        over.set()
        storming.join()
    counts(daemon, 1, 0)


def test_a_unix_socket_that_an_upgrade_takes_away_can_come_again(daemon: Daemon, service: Service) -> None:
    """Three in a row, each as soon as the one before has ended."""
    path = daemon.directory / "socket"

    def upgrade(*listen: str) -> bool:
        daemon.configure(document(service, listen=["tcp:0:interface=127.0.0.1", *listen]))
        before = daemon.status()["upgrades"]
        daemon.signal(signal.SIGUSR2)
        eventually(lambda: daemon.status()["upgrades"] > before, 60)
        return path.exists()

    assert upgrade(f"unix:{path}")
    assert not upgrade()
    assert upgrade(f"unix:{path}")
    counts(daemon, 3, 0)


def test_sigterm_after_an_upgrade_ends_all(daemon: Daemon) -> None:
    workers = [row["process"] for row in upgraded(daemon)["workers"]]
    daemon.terminate()
    assert daemon.wait() == 0
    assert not any(Path(f"/proc/{worker}").exists() for worker in workers)


def test_one_worker_cannot_be_upgraded(start: Start, service: Service) -> None:
    daemon = start(gateway(services={"main": service.url}, routes=ALL, workers=1))
    daemon.signal(signal.SIGUSR2)
    eventually(lambda: "not upgraded: with one worker, restart instead" in daemon.log)
    assert daemon.get("/a").status == 200


def test_the_command_waits_and_tells_the_outcome(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["upgrade", "--config", str(daemon.directory), "--admin", daemon.admin_text]
    assert cli.main(command) == 0
    assert capsys.readouterr().out == f"process {daemon.process.pid}: upgraded\n"
    assert daemon.status()["upgrades"] == 1


def test_the_command_tells_why_nothing_has_changed(
    daemon: Daemon, program: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (program / "apigw" / "process" / "program.py").write_text("import no_such_module\n")
    assert cli.main(["upgrade", "--config", str(daemon.directory), "--admin", daemon.admin_text]) == 1
    assert "not upgraded: ModuleNotFoundError: No module named 'no_such_module'" in capsys.readouterr().err


def test_the_command_refuses_where_there_is_one_worker(
    start: Start, service: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    daemon = start(gateway(services={"main": service.url}, routes=ALL, workers=1))
    assert cli.main(["upgrade", "--config", str(daemon.directory), "--admin", daemon.admin_text]) == 1
    assert "has one worker (gateway.workers: 1): restart it instead" in capsys.readouterr().err
