"""An upgrade: the program on disk takes the place of the running one, and loses no connection; or nothing changes."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.asking import metrics
from support.client import encode
from support.daemon import Daemon, gateway
from support.samples import counted as samples
from support.services import Service
from support.traffic import Traffic
from support.waiting import eventually

from apigw.cli import main as cli
from apigw.process.signals import TAKEN

from .conftest import Start, check_log

ROOT = Path(__file__).resolve().parents[2]
ALL = [{"path": "/*", "service": "main"}]
WORKERS = 2


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the program, which tests change."""
    copy = tmp_path_factory.mktemp("program")
    for part in ("apigw", "twisted"):
        shutil.copytree(ROOT / part, copy / part, ignore=shutil.ignore_patterns("dropin.cache"))
    return copy


class Edit:
    """Writes into files of the program, until the end of a test."""

    def __init__(self, program: Path, stack: ExitStack) -> None:
        self._program = program
        self._stack = stack

    def __call__(self, file: str, change: Callable[[str], str]) -> None:
        path = self._program / file
        before = path.read_text()
        self._stack.callback(path.write_text, before)
        path.write_text(change(before))


@pytest.fixture
def edit(program: Path) -> Iterator[Edit]:
    with ExitStack() as stack:
        yield Edit(program, stack)


@contextmanager
def running(directory: Path, program: Path, service: Service) -> Iterator[Daemon]:
    """A daemon of the copy."""
    daemon = Daemon(directory, document(service), executed=True)
    try:
        daemon.start({"PYTHONPATH": str(program)})
        eventually(lambda: len(daemon.status()["workers"]) == WORKERS)
        yield daemon
        check_log(daemon)
    finally:
        daemon.kill()


@pytest.fixture(scope="module")
def module_daemon(tmp_path_factory: pytest.TempPathFactory, program: Path, module_service: Service) -> Iterator[Daemon]:
    with running(tmp_path_factory.mktemp("shared") / "gateway", program, module_service) as daemon:
        yield daemon


@pytest.fixture
def daemon(module_daemon: Daemon, service: Service) -> Daemon:
    """That of the module. It has the configuration of ``document``, and no upgrade runs."""
    module_daemon.configure(document(service))
    eventually(lambda: is_still(module_daemon.status()), 60)
    return module_daemon


@pytest.fixture
def own(tmp_path: Path, program: Path, service: Service) -> Iterator[Daemon]:
    """Of a test that ends it, or changes its listeners."""
    with running(tmp_path / "gateway", program, service) as daemon:
        yield daemon


def is_still(status: dict[str, Any]) -> bool:
    return not status["upgrading"] and not status["reloading"] and len(status["workers"]) == WORKERS


def document(service: Service, **settings: Any) -> dict[str, Any]:
    return gateway(services={"main": service.url}, routes=ALL, workers=WORKERS, **settings)


def upgraded(daemon: Daemon, by: Callable[[], object] | None = None) -> dict[str, Any]:
    """Upgrade, ``by`` a signal or otherwise, and return the status when that has ended, and no old worker is left."""
    before = daemon.status()["upgrades"]
    daemon.signal(signal.SIGUSR2) if by is None else by()
    return ended(daemon, before + 1)


def ended(daemon: Daemon, upgrades: int) -> dict[str, Any]:
    """The status when so many upgrades have ended, and the workers of the program before are gone."""

    def over() -> dict[str, Any] | None:
        status = daemon.status()
        return status if status["upgrades"] == upgrades and is_still(status) else None

    return eventually(over, 60)


@contextmanager
def counted(daemon: Daemon, succeeded: int, failed: int) -> Iterator[None]:
    """So many upgrades end meanwhile: ``/metrics``, which are made once a second, say so."""

    def numbers() -> list[float]:
        found = samples(daemon, "gateway_upgrades_total", "result")
        return [found.get((result,), 0.0) for result in ("success", "failure")]

    def as_of_now() -> list[float] | None:
        found = numbers()
        return found if sum(found) == daemon.status()["upgrades"] else None

    before = eventually(as_of_now)
    yield
    eventually(lambda: numbers() == [before[0] + succeeded, before[1] + failed])


def test_an_upgrade_loses_no_connection(daemon: Daemon, edit: Edit) -> None:
    """The process stays, the workers are new, and the version is that of the program on disk."""
    edit("apigw/__init__.py", lambda text: text.replace('__version__ = "', '__version__ = "9.'))
    before = daemon.status()
    with Traffic(daemon.address, "/a", 4, ("connection", "close")) as traffic:
        traffic.go_on()
        after = upgraded(daemon)
        traffic.go_on()
    assert set(traffic.statuses) == {200}
    assert not traffic.surprises
    assert after["process"] == before["process"] == daemon.process.pid
    assert after["version"] == f"9.{before['version']}"
    assert not {row["process"] for row in after["workers"]} & {row["process"] for row in before["workers"]}


def test_what_is_in_flight_is_finished_by_the_old_program(daemon: Daemon, service: Service) -> None:
    client = daemon.connect()
    client.send(encode("PUT", "/b", "Content-Length: 10") + b"hello")
    eventually(lambda: daemon.status()["in_flight"] == 1)
    upgrades = daemon.status()["upgrades"]
    daemon.signal(signal.SIGUSR2)
    eventually(lambda: daemon.status()["upgrades"] > upgrades, 60)
    client.send(b"world")
    assert client.answer().json["body"] == "helloworld"


BROKEN = {
    "a syntax error": ("apigw/process/program.py", "def broken(:\n", "SyntaxError"),
    "an import that fails": ("apigw/process/program.py", "import no_such_module\n", "ModuleNotFoundError"),
    "one that ends without a word": ("apigw/tap.py", "import os\nos._exit(3)\n", "ended with exit code 3"),
}


@pytest.mark.parametrize(("file", "text", "why"), BROKEN.values(), ids=BROKEN)
def test_a_program_that_cannot_be_started_is_not_executed(
    daemon: Daemon, edit: Edit, file: str, text: str, why: str
) -> None:
    edit(file, lambda _: text)
    before = daemon.status()["workers"]
    after = upgraded_not(daemon)
    assert why in after["upgrade_problem"]
    assert [row["process"] for row in after["workers"]] == [row["process"] for row in before]
    assert daemon.get("/a").status == 200


def upgraded_not(daemon: Daemon) -> dict[str, Any]:
    with counted(daemon, 0, 1):
        return upgraded(daemon)


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


def test_old_workers_drain_once(daemon: Daemon) -> None:
    """A death among the new ones cuts nothing; and another upgrade waits for them."""
    before = daemon.status()
    client = daemon.connect()
    client.send(encode("PUT", "/b", "Content-Length: 10") + b"hello")
    eventually(lambda: daemon.status()["in_flight"] == 1)
    with counted(daemon, 2, 0):
        daemon.signal(signal.SIGUSR2)
        eventually(lambda: daemon.status()["upgrades"] > before["upgrades"], 60)
        eventually(lambda: len(daemon.status()["workers"]) == WORKERS + 1)
        old = {row["process"] for row in before["workers"]}
        # Not the first one, which counts the upgrade.
        victim = [row["process"] for row in daemon.status()["workers"] if row["process"] not in old][-1]
        os.kill(victim, signal.SIGKILL)
        eventually(lambda: victim not in {row["process"] for row in daemon.status()["workers"]})
        eventually(lambda: len(daemon.status()["workers"]) == WORKERS + 1)
        daemon.signal(signal.SIGUSR2)
        eventually(lambda: "upgrade: 1 workers of the program before finish what is in flight" in daemon.log)
        client.send(b"world")
        assert client.answer().json["body"] == "helloworld"
        ended(daemon, before["upgrades"] + 2)


def test_listeners_come_and_go(own: Daemon, service: Service) -> None:
    """What needs a restart otherwise. A unix socket whose file was taken away can come again: three upgrades in a row,
    each as soon as the one before has ended. And SIGTERM ends all."""
    path = own.directory / "socket"
    elsewhere = "tcp:0:interface=127.0.0.2"

    def upgrade(*listen: str) -> bool:
        own.configure(document(service, listen=listen))
        before = own.status()["upgrades"]
        own.signal(signal.SIGUSR2)
        eventually(lambda: own.status()["upgrades"] > before, 60)
        return path.exists()

    with counted(own, 3, 0):
        assert upgrade(elsewhere, f"unix:{path}")
        assert "listening on 127.0.0.2:" in own.log
        with pytest.raises(ConnectionRefusedError):
            own.connect()
        assert not upgrade(elsewhere)
        assert upgrade(elsewhere, f"unix:{path}")
    workers = [row["process"] for row in own.status()["workers"]]
    own.terminate()
    assert own.wait() == 0
    assert not any(Path(f"/proc/{worker}").exists() for worker in workers)


def test_one_worker_does_not_follow_on_several(daemon: Daemon, service: Service) -> None:
    daemon.configure({**document(service), "gateway": {**document(service)["gateway"], "workers": 1}})
    assert "gateway.workers: with one worker there is no master" in upgraded_not(daemon)["upgrade_problem"]
    assert daemon.get("/a").status == 200


def test_an_upgrade_reads_what_a_reload_has_refused(daemon: Daemon, edit: Edit) -> None:
    """It is no longer reported: the configuration on disk is in use."""
    edit("apigw/errors.py", lambda text: text + "# changed\n")
    assert not daemon.reload()
    assert daemon.status()["last_reload"] == "failed"
    after = upgraded(daemon)
    assert (after["last_reload"], after["problems"]) == (None, [])
    eventually(lambda: "gateway_config_last_reload_successful 1.0" in metrics(daemon))


def test_signals_during_an_upgrade_are_not_lost(daemon: Daemon) -> None:
    """A second one is refused; and many reloads do not hold it up: of those that come meanwhile, one comes after it."""
    over = threading.Event()

    def storm() -> None:
        while not over.wait(0.02):
            daemon.signal(signal.SIGHUP)

    storming = threading.Thread(target=storm)
    begun = daemon.log.count("upgrade: trying")
    upgraded(daemon)  # what is on disk runs, which a reload asks for
    with counted(daemon, 1, 0):
        storming.start()
        try:
            eventually(lambda: daemon.status()["reloading"])
            daemon.signal(signal.SIGUSR2)
            eventually(lambda: daemon.log.count("upgrade: trying") == begun + 2)
            daemon.signal(signal.SIGUSR2)
            eventually(lambda: "upgraded: " in daemon.log.rpartition("upgrade: executing")[2], 60)
        finally:
            over.set()
            storming.join()
        reloaded = "configuration reloaded: "
        eventually(lambda: reloaded in daemon.log.rpartition("upgraded: ")[2], 60)
    assert "no other upgrade: one is under way" in daemon.log


def test_sigterm_in_the_middle_of_an_upgrade_drains_the_old_program(own: Daemon) -> None:
    client = own.connect()
    client.send(encode("PUT", "/b", "Content-Length: 10") + b"hello")
    eventually(lambda: own.status()["in_flight"] == 1)
    own.signal(signal.SIGUSR2)
    eventually(lambda: "upgrade: executing" in own.log, 60)
    own.terminate()
    eventually(lambda: "draining: 1 exchanges" in own.log, 60)
    assert own.process.poll() is None
    client.send(b"world")
    assert client.answer().json["body"] == "helloworld"
    assert own.wait(60) == 0


def test_only_the_main_thread_of_the_master_takes_signals(daemon: Daemon) -> None:
    """While it executes the program, another thread would take one, and nobody would act on it."""
    upgraded(daemon)
    master = daemon.process.pid
    others = [task for task in Path(f"/proc/{master}/task").iterdir() if task.name != str(master)]
    assert others
    for task in others:
        blocked = int(re.findall(r"SigBlk:\s*(\w+)", (task / "status").read_text())[0], 16)
        assert {number for number in TAKEN if not blocked & 1 << number - 1} == set()


def test_one_worker_cannot_be_upgraded(start: Start, service: Service) -> None:
    daemon = start(gateway(services={"main": service.url}, routes=ALL, workers=1))
    daemon.signal(signal.SIGUSR2)
    eventually(lambda: "not upgraded: with one worker, restart instead" in daemon.log)
    assert daemon.get("/a").status == 200


def test_the_command_waits_and_tells_the_outcome(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    """When it says so, all workers of the new program are ready."""
    old = {row["process"] for row in daemon.status()["workers"]}
    with counted(daemon, 1, 0):
        assert cli.main(["upgrade", "--config", str(daemon.directory), "--admin", daemon.admin_text]) == 0
        new = {row["process"] for row in daemon.status()["workers"]} - old
    assert len(new) == WORKERS
    assert capsys.readouterr().out == f"process {daemon.process.pid}: upgraded\n"


def test_the_command_tells_why_nothing_has_changed(
    daemon: Daemon, edit: Edit, capsys: pytest.CaptureFixture[str]
) -> None:
    edit("apigw/process/program.py", lambda _: "import no_such_module\n")
    assert cli.main(["upgrade", "--config", str(daemon.directory), "--admin", daemon.admin_text]) == 1
    assert "not upgraded: ModuleNotFoundError: No module named 'no_such_module'" in capsys.readouterr().err
