"""The units of contrib/systemd, under a real systemd."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.booted import Machine, obstacle
from support.waiting import RARELY, eventually

pytestmark = pytest.mark.skipif(bool(obstacle()), reason=f"systemd cannot be booted here: {obstacle()}")

HELLO = """
routes:
  - {path: /hello, auth: none, respond: {status: 200, body: "hello\\n"}}
"""
ADMIN = "http://127.0.0.1:9090"
WATCHDOG = "/run/systemd/system/apigw.service.d/watchdog.conf"


@pytest.fixture(scope="module")
def booted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    machine = Machine(tmp_path_factory.mktemp("machine"))
    machine.write("/etc/apigw/services/hello.yaml", HELLO)
    yield machine
    machine.stop()


@pytest.fixture
def machine(booted: Machine) -> Machine:
    """The gateway runs, with two workers, on a port below 1024."""
    booted.write("/etc/default/apigw", "APIGW_LISTEN=tcp:80\n")
    booted.said("systemctl", "start", "apigw")
    return booted


def shown(machine: Machine, *names: str) -> list[str]:
    return machine.said("systemctl", "show", "--value", "--property", ",".join(names), "apigw").split()


def hello(machine: Machine) -> str:
    return machine.said("curl", "-sS", "--max-time", "10", "http://127.0.0.1/hello")


def test_it_starts_and_serves(machine: Machine) -> None:
    """As a user that is not root, on port 80; what it says is in the journal, with its priority."""
    assert hello(machine) == "hello"
    assert shown(machine, "ActiveState", "SubState", "NRestarts") == ["0", "active", "running"]
    user = machine.said("ps", "-o", "user=", "-p", shown(machine, "MainPID")[0])
    assert user == "apigw"
    warnings = machine.journal("--priority=warning")
    assert "private_key_file" in warnings and "listening on" not in warnings
    assert "Traceback" not in machine.journal()


def test_the_metrics_of_its_processes_are_there(machine: Machine) -> None:
    """The unit hides other processes, and not what the metrics are made of."""
    page = machine.said("curl", "-sS", f"{ADMIN}/metrics")
    for name in ("process_cpu_seconds_total", "process_resident_memory_bytes", "process_start_time_seconds"):
        assert f"\n{name}" in page


def test_a_reload_takes_a_change_or_says_why_not(machine: Machine) -> None:
    """`systemctl reload` fails while the configuration is bad, and after a change of the environment."""
    main = shown(machine, "MainPID")
    machine.write("/etc/apigw/services/hello.yaml", HELLO.replace("hello\\n", "changed\\n"))
    machine.said("systemctl", "reload", "apigw")
    assert hello(machine) == "changed"
    machine.write("/etc/apigw/services/hello.yaml", HELLO.replace("auth: none", "auth: perhaps"))
    assert machine.run("systemctl", "reload", "apigw").returncode == 1
    machine.write("/etc/apigw/services/hello.yaml", HELLO)
    machine.write("/etc/default/apigw", "APIGW_LISTEN=tcp:80\nAPIGW_DRAIN_TIMEOUT=5s\n")
    assert machine.run("systemctl", "reload", "apigw").returncode == 1
    assert "APIGW_DRAIN_TIMEOUT" in machine.journal()
    assert shown(machine, "ActiveState", "MainPID") == [*main, "active"]


def test_an_upgrade_is_the_same_service(machine: Machine) -> None:
    """systemd sees one main process all the time, and restarts nothing."""
    main = shown(machine, "MainPID")
    machine.said("/opt/apigw/bin/apigw", "upgrade", "--config", "/etc/apigw")
    assert hello(machine) == "hello"
    assert shown(machine, "MainPID") == main
    assert shown(machine, "NRestarts", "ActiveState") == ["0", "active"]


def test_one_that_hangs_is_restarted(machine: Machine) -> None:
    """The watchdog kills the master that says nothing any more, with its workers, and another one serves."""
    machine.run("mkdir", "-p", str(Path(WATCHDOG).parent))
    machine.write(WATCHDOG, "[Service]\nWatchdogSec=2s\nTimeoutAbortSec=1s\n")
    machine.said("systemctl", "daemon-reload")
    machine.said("systemctl", "restart", "apigw")
    machine.said("kill", "-STOP", shown(machine, "MainPID")[0])
    eventually(lambda: shown(machine, "NRestarts", "ActiveState") == ["1", "active"], 60, RARELY)
    assert hello(machine) == "hello"
    machine.said("rm", WATCHDOG)
    machine.said("systemctl", "daemon-reload")


def test_a_restart_with_the_socket_unit_refuses_nobody(machine: Machine) -> None:
    """Who connects while no gateway runs is served by the next one. A stop is a success."""
    machine.said("systemctl", "stop", "apigw")
    assert shown(machine, "Result", "ExecMainStatus") == ["success", "0"]
    machine.write("/etc/default/apigw", "APIGW_LISTEN=systemd:domain=INET:index=0\n")
    machine.said("systemctl", "start", "apigw.socket", "apigw")
    asking = "for i in $(seq 40); do curl -sS --max-time 30 http://127.0.0.1/hello || exit 1; sleep 0.1; done"
    with machine.started("sh", "-c", asking) as client:
        machine.said("systemctl", "restart", "apigw")
        said, complaint = client.communicate(timeout=90)
    machine.said("systemctl", "stop", "apigw", "apigw.socket")
    assert (said.split(), complaint) == (["hello"] * 40, "")
