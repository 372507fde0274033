"""How an operator starts the daemon, and learns why it did not start."""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from support.client import Client
from support.daemon import TWISTD, Daemon, Document, gateway
from support.services import Service
from support.waiting import PATIENCE, eventually

from .conftest import Start

ALL = [{"path": "/*", "service": "main"}]
NOWHERE = {"main": "http://127.0.0.1:9"}


def twistd(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([TWISTD, *arguments], cwd=cwd, capture_output=True, text=True, timeout=PATIENCE, check=False)


def write(directory: Path, document: Document) -> Path:
    Daemon(directory, document)
    return directory


@pytest.mark.parametrize("options", [["-n", "--pidfile="], ["--pidfile=pid", "--logfile=log"]])
def test_every_mistake_is_shown_at_once(tmp_path: Path, options: list[str]) -> None:
    """Every mistake is named with its place, also where the daemon would have gone to the background."""
    document = gateway(services=NOWHERE, routes=[*ALL, {"path": "/a", "service": "mian"}], keepalive_timeot="1s")
    done = twistd(*options, "apigw", "--config", str(write(tmp_path / "etc", document)), cwd=tmp_path)
    assert done.returncode == 1
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 2, done.stderr
    assert all(line.startswith(str(tmp_path / "etc" / "gateway.yaml") + ":1:") for line in lines)
    assert "keepalive_timeot" in lines[0] + lines[1]
    assert "mian" in lines[0] + lines[1]
    assert not (tmp_path / "pid").exists()


@pytest.mark.parametrize("closed", ["<&- >&- 2>&-", ">&-", "2>&-"])
def test_standard_output_that_is_closed_is_nothing_else(tmp_path: Path, closed: str) -> None:
    """No other descriptor gets the number of a standard one, and with it the lines of a log."""
    path = tmp_path / "public.sock"
    document = gateway(services=NOWHERE, routes=ALL, listen=[f"unix:{path}"], admin=None, access_log={"file": "-"})
    command = Daemon(tmp_path / "etc", document).command
    with subprocess.Popen(["sh", "-c", f'exec "$@" {closed}', "sh", *command], stdin=subprocess.DEVNULL) as process:
        try:
            eventually(path.exists)
            descriptors = [os.readlink(f"/proc/{process.pid}/fd/{number}") for number in range(3)]
            numbers = {"<": 0, "2": 2, ">": 1}
            for each in closed.split():
                assert descriptors[numbers[each[0]]] == os.devnull
        finally:
            process.terminate()


def test_a_daemon_has_no_standard_output(tmp_path: Path) -> None:
    """A daemon in the background whose access log goes to standard output does not start."""
    document = gateway(services=NOWHERE, routes=ALL, access_log={"file": "-"})
    done = twistd(
        "--pidfile=pid", "--logfile=log", "apigw", "--config", str(write(tmp_path / "etc", document)), cwd=tmp_path
    )
    assert done.returncode == 1
    assert "gateway.access_log.file: standard output is lost" in done.stderr
    assert not (tmp_path / "pid").exists()


@pytest.mark.parametrize(
    ("which", "options"), [("listen", ["-n", "--pidfile="]), ("admin", ["--pidfile=pid", "--logfile=log"])]
)
def test_a_port_that_is_taken_is_named(tmp_path: Path, options: list[str], which: str) -> None:
    """A daemon that cannot listen does not run, and names the port."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        endpoint = f"tcp:{taken.getsockname()[1]}:interface=127.0.0.1"
        document = gateway(services=NOWHERE, routes=ALL, **{which: [endpoint] if which == "listen" else endpoint})
        done = twistd(*options, "apigw", "--config", str(write(tmp_path / "etc", document)), cwd=tmp_path)
    assert done.returncode == 1
    output = done.stdout + done.stderr  # in the foreground, the log is on stdout
    said = [line for line in output.splitlines() if "cannot listen" in line]
    assert len(said) == 1, output
    assert "Address already in use" in said[0]
    assert endpoint.removesuffix(":interface=127.0.0.1") in said[0]
    assert "Traceback" not in output
    eventually(lambda: not (tmp_path / "pid").exists())


def test_a_socket_that_systemd_has_not_passed_is_named(tmp_path: Path) -> None:
    """The sentence says whose fault it is."""
    document = gateway(services=NOWHERE, routes=ALL, listen=["systemd:domain=INET:index=0"])
    done = twistd("-n", "--pidfile=", "apigw", "--config", str(write(tmp_path / "etc", document)), cwd=tmp_path)
    assert done.returncode == 1
    assert "cannot listen: systemd has passed no such socket: systemd:domain=INET:index=0" in done.stdout + done.stderr


@pytest.fixture
def daemonised(tmp_path: Path, module_service: Service) -> Iterator[Daemon]:
    """Started as a service manager of old does, from another directory, with relative names."""
    document = gateway(services={"main": module_service.url}, routes=ALL, admin="unix:admin.sock")
    daemon = Daemon(tmp_path / "etc", document)
    work = tmp_path / "work"
    work.mkdir()
    daemon.log_file = tmp_path / "log"
    done = twistd("--pidfile=../pid", "--logfile=../log", "apigw", "--config", "../etc", cwd=work)
    assert done.returncode == 0, done.stderr
    yield daemon
    with suppress(OSError, ValueError):
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)


def test_a_daemon_in_the_background(daemonised: Daemon, tmp_path: Path, module_service: Service) -> None:
    """A daemon in the background finds its files, takes signals by its pid file, and leaves nothing behind."""
    pid = int((tmp_path / "pid").read_text())
    eventually(lambda: len(list(daemonised._listening())) == 2)
    assert daemonised.get("/a").status == 200
    assert os.readlink(f"/proc/{pid}/cwd") in ("/", str(tmp_path / "work"))
    with Client(str(tmp_path / "etc" / "admin.sock")) as client:
        assert client.get("/ready").status == 200
        assert client.get("/status").json["process"] == pid
    daemonised.configure(gateway(services=NOWHERE, routes=[], admin="unix:admin.sock"))
    os.kill(pid, signal.SIGHUP)
    eventually(lambda: daemonised.get("/a").status == 404)
    os.kill(pid, signal.SIGTERM)
    eventually(lambda: not (tmp_path / "pid").exists())
    eventually(lambda: not Path(f"/proc/{pid}").exists())
    assert "Traceback" not in daemonised.log
    assert not (tmp_path / "etc" / "admin.sock").exists()


def test_the_admin_listener_on_a_unix_socket(start: Start, module_service: Service, tmp_path: Path) -> None:
    """The admin listener may be a socket in the file system, with the mode that is configured."""
    path = tmp_path / "admin.sock"
    daemon = start(gateway(services={"main": module_service.url}, routes=ALL, admin=f"unix:{path}:mode=600"))
    assert path.stat().st_mode & 0o777 == 0o600
    with Client(str(path)) as client:
        assert client.get("/health").json == {"status": "ok"}
        assert client.get("/status").json["connections"] == 0
    assert daemon.get("/a").status == 200
    daemon.terminate()
    assert daemon.wait() == 0


def test_a_unix_socket_of_the_admin_listener_is_private(start: Start, module_service: Service, tmp_path: Path) -> None:
    """For the gateway's user and group, where the endpoint does not say for whom."""
    path = tmp_path / "admin.sock"
    start(gateway(services={"main": module_service.url}, routes=ALL, admin=f"unix:{path}"))
    assert path.stat().st_mode & 0o777 == 0o660
    with Client(str(path)) as client:
        assert client.request("GET", "/status", host="any.test").status == 200


def test_the_admin_listener_is_asked_by_names_that_it_knows(start: Start, module_service: Service) -> None:
    """A web page's own name is none, wherever it leads."""
    daemon = start(gateway(services={"main": module_service.url}, routes=ALL, admin_hosts=["gw.test"]))
    for host, status in (("gw.test", 200), ("localhost", 200), ("192.0.2.1:99", 200), ("evil.test", 421)):
        with Client(daemon.admin) as client:
            answer = client.request("GET", "/status", host=host)
            assert answer.status == status


def test_no_admin_listener(start: Start, module_service: Service) -> None:
    """Without an admin listener one port is open."""
    daemon = start(gateway(services={"main": module_service.url}, routes=ALL, admin=None))
    assert daemon.log.count("listening on") == 1
    assert daemon.get("/ready").status == 200


def test_ipv6(start: Start, module_service: Service) -> None:
    """The public listener may be one of IPv6."""
    daemon = start(gateway(services={"main": module_service.url}, routes=ALL, listen=["tcp6:0:interface=\\:\\:1"]))
    assert daemon.get("/a").status == 200
    assert module_service.last.get("x-forwarded-for") == "::1"


NOTHING_YET: dict[str, object] = {
    "connections": 0,
    "in_flight": 0,
    "last_reload": None,
    "problems": [],
    "reloading": False,
    "reloads": 0,
    "upgrades": 0,
    "upgrading": False,
    "upgrade_problem": "",
}
"""What the admin listener says of a process that has served nothing."""


def test_the_admin_listener_tells_how_it_goes(start: Start, module_service: Service) -> None:
    """The admin listener says how many connections and requests there are, and has no other paths."""
    daemon = start(gateway(services={"main": module_service.url}, routes=ALL, workers=1))
    first = daemon.status()
    assert first.keys() - {"uptime"} == {*NOTHING_YET, "version", "process", "directory", "workers"}
    assert [worker["process"] for worker in first["workers"]] == [first["process"]]
    assert {name: first[name] for name in NOTHING_YET} == NOTHING_YET
    with daemon.connect() as client:
        assert client.get("/a").status == 200
        assert daemon.status()["connections"] == 1
        assert daemon.status()["uptime"] >= first["uptime"]
    with Client(daemon.admin) as client:
        for path in ("/a", "/status/x", "/nothing"):
            assert client.get(path).code == "not_found"
    with Client(daemon.admin) as client:
        answer = client.request("POST", "/status", body=b"{}")
        assert (answer.status, answer.code, answer.get("allow")) == (405, "method_not_allowed", "GET, HEAD")


def test_the_service_manager_is_told(tmp_path: Path, module_service: Service) -> None:
    """systemd is told when the daemon serves, when it reloads and has reloaded, and when it stops."""
    told = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(told))
        manager.settimeout(PATIENCE)
        document = gateway(services={"main": module_service.url}, routes=ALL)
        daemon = Daemon(tmp_path / "gateway", document).start({"NOTIFY_SOCKET": str(told)})
        try:
            assert manager.recv(1000) == b"READY=1"
            assert daemon.reload()
            reloading, ready = manager.recv(1000), manager.recv(1000)
            assert reloading.startswith(b"RELOADING=1\nMONOTONIC_USEC=")
            assert (
                0
                < int(reloading.rpartition(b"=")[2])
                <= int(Path("/proc/uptime").read_text().split(".")[0] + "9" * 6) + 1e6
            )
            assert ready == b"READY=1"
            daemon.terminate()
            assert manager.recv(1000) == b"STOPPING=1"
            assert daemon.wait() == 0
        finally:
            daemon.kill()


def test_more_connections_than_the_process_may_have_are_not_promised(tmp_path: Path, module_service: Service) -> None:
    """``max_connections`` is lowered to what the limit of open files allows, and the log says so."""
    document = gateway(services={"main": module_service.url}, routes=ALL, max_connections=1_000_000)
    with Daemon(tmp_path / "gateway", document) as daemon:
        limits = Path(f"/proc/{daemon.process.pid}/limits").read_text()
        files = next(line.split()[3] for line in limits.splitlines() if line.startswith("Max open files"))
        enough = files == "unlimited" or int(files) >= 2_000_000
        eventually(lambda: enough != ("max_connections lowered from 1000000 to" in daemon.log))
        assert daemon.get("/a").status == 200


def test_a_client_for_whom_there_is_no_file_is_hung_up_on(start: Start, module_service: Service) -> None:
    """At once, and each: none waits in the queue, of which the reactor would be told again and again."""
    daemon = start(gateway(services={"main": module_service.url}, routes=ALL, workers=1))
    pid = daemon.process.pid
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    with daemon.connect() as client:
        assert client.get("/health").status == 200
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (len(os.listdir(f"/proc/{pid}/fd")), before[1]))
        for _ in range(5):
            with socket.create_connection(daemon.address, PATIENCE) as late:
                assert late.recv(1) == b""
        assert client.get("/health").status == 200
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
        assert daemon.get("/health").status == 200


def test_what_there_are_no_files_for_is_503(start: Start, module_service: Service) -> None:
    """It is the gateway that has too few, and no service that fails: nothing is held against that."""
    breaker = {"min_requests": 1, "error_rate": 0.01}
    main = {"targets": [module_service.url], "circuit_breaker": breaker, "keepalive_timeout": "0s"}
    daemon = start(gateway(services={"main": main}, routes=ALL, workers=1))
    pid = daemon.process.pid
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    with daemon.connect() as client:
        assert client.get("/a").status == 200
        eventually(lambda: module_service.connections == 0)
        highest = max(int(name) for name in os.listdir(f"/proc/{pid}/fd"))
        open_files = len(os.listdir(f"/proc/{pid}/fd"))
        assert highest == open_files - 1
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (open_files, before[1]))
        answer = client.get("/a")
        assert (answer.status, answer.code) == (503, "overloaded")
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
        assert client.get("/a").status == 200


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("-n", "apigw", "etc"), "etc is too much: the configuration is given as --config etc"),
        (("apigw", "-n"), "option -n not recognized: options of twistd stand before apigw, as in twistd -n apigw"),
    ],
)
def test_arguments_in_the_wrong_place(tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    """Twisted speaks of a wrong number of arguments, and of an option that its own help describes."""
    done = twistd(*arguments, cwd=tmp_path)
    assert done.returncode == 1
    assert said in done.stdout + done.stderr


def test_a_service_that_does_not_speak_tls(start: Start) -> None:
    """https:// in place of http:// is `[('SSL routines', '', 'wrong version number')]` in the log."""

    def answer(listening: socket.socket) -> None:
        with listening.accept()[0] as connection:
            connection.recv(4096)
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=answer, args=(listening,), daemon=True).start()
        service = f"https://127.0.0.1:{listening.getsockname()[1]}"
        daemon = start(gateway(services={"main": service}, routes=ALL))
        assert daemon.get("/").status == 502
    said = f"no connection to {service}: TLS failed: the other side does not speak TLS (wrong version number)"
    eventually(lambda: said in daemon.log)
