"""Sockets that listen before anything serves them."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from errno import EACCES
from pathlib import Path

import pytest
from support.certificates import Authority
from support.logged import logged

from apigw.config.model import Gateway, Listen
from apigw.process.sockets import BACKLOG, Socket, Sockets, bind
from apigw.process.tree import CannotStart


@pytest.fixture
def bound() -> Iterator[Callable[[str], Socket]]:
    """Binds an endpoint, until the test ends."""
    sockets: list[Socket] = []

    def bind_one(endpoint: str) -> Socket:
        sockets.append(bind(Listen(endpoint)))
        return sockets[-1]

    yield bind_one
    for each in sockets:
        each.close()


Bound = Callable[[str], Socket]

ADDRESSES = {
    "tcp:0:interface=127.0.0.1": "127.0.0.1:",
    "tcp:0": "0.0.0.0:",
    "tcp:0:interface=\\:\\:1": "[::1]:",
    "tcp6:0": "[::]:",
    "tcp6:0:interface=\\:\\:1": "[::1]:",
}


@pytest.mark.parametrize("endpoint", ADDRESSES)
def test_it_listens_before_it_is_served(bound: Bound, endpoint: str) -> None:
    """Who connects waits in its queue; its address is that of the endpoint, with the port that the system chose."""
    with logged() as events:
        listening = bound(endpoint)
    address = listening.address
    assert address.startswith(ADDRESSES[endpoint])
    said = [event["log_format"].format(**event) for event in events]
    assert said == [f"listening on {address}: {endpoint}"]
    with socket.create_connection(("::1" if "[" in address else "127.0.0.1", int(address.rpartition(":")[2]))):
        accepted, _ = listening.listening.accept()
        accepted.close()
    assert not listening.listening.getblocking()
    assert not listening.listening.get_inheritable()


def backlog(listening: socket.socket) -> int:
    """The longest queue, which Linux tells of a listening socket in tcpi_sacked (ss shows it as Send-Q)."""
    information = listening.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
    return int.from_bytes(information[28:32], sys.byteorder)


def test_many_may_wait(bound: Bound) -> None:
    """As many as Linux allows, unless the endpoint says how many."""
    most = int(Path("/proc/sys/net/core/somaxconn").read_text())
    assert backlog(bound("tcp:0:interface=127.0.0.1").listening) == min(BACKLOG, most)
    assert backlog(bound("tcp:0:interface=127.0.0.1:backlog=7").listening) == 7


def test_a_port_that_is_taken(bound: Bound) -> None:
    """The sentence says so, and which."""
    port = bound("tcp:0:interface=127.0.0.1").address.rpartition(":")[2]
    endpoint = f"tcp:{port}:interface=127.0.0.1"
    with pytest.raises(CannotStart, match=f"^cannot listen: Address already in use: {endpoint}; `apigw doctor` tells"):
        bind(Listen(endpoint))


def test_a_unix_socket_where_none_may_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is said of ports, which it has not."""

    def refused(*_: object) -> None:
        raise PermissionError(EACCES, os.strerror(EACCES))

    monkeypatch.setattr("apigw.process.sockets.FilesystemLock.lock", refused)
    with pytest.raises(CannotStart, match=r"^cannot listen: Permission denied: unix:/run/a\.sock$"):
        bind(Listen("unix:/run/a.sock"))


def test_an_address_of_another_machine() -> None:
    """The sentence says what is wrong with it."""
    with pytest.raises(CannotStart, match=r"192\.0\.2\.1; this machine has no such address$"):
        bind(Listen("tcp:0:interface=192.0.2.1"))


def test_a_port_is_free_again(bound: Bound) -> None:
    """Also while a connection to it was closed just now."""
    first = bound("tcp:0:interface=127.0.0.1")
    host, port = first.listening.getsockname()
    with socket.create_connection((host, port)):
        first.listening.accept()[0].close()
    first.close()
    assert bound(f"tcp:{port}:interface={host}").address == f"{host}:{port}"


@pytest.mark.parametrize(("options", "mode"), [("", 0o666), (":mode=660", 0o660), (":mode=600:lockfile=0", 0o600)])
def test_a_unix_socket(bound: Bound, tmp_path: Path, options: str, mode: int) -> None:
    """It has its mode, and is gone when it is closed."""
    path = tmp_path / "a.sock"
    listening = bound(f"unix:{path}{options}")
    assert listening.address == str(path)
    assert stat.S_IMODE(path.stat().st_mode) == mode
    listening.close()
    assert list(tmp_path.iterdir()) == []
    listening.close()


def test_a_unix_socket_in_use(bound: Bound, tmp_path: Path) -> None:
    """A living process keeps its socket."""
    endpoint = f"unix:{tmp_path}/a.sock"
    bound(endpoint)
    with pytest.raises(CannotStart, match=r"^cannot listen: Address already in use: unix:"):
        bind(Listen(endpoint))
    assert (tmp_path / "a.sock").exists()


LEFT = """
import os, sys
from apigw.config.model import Gateway, Listen
from apigw.process.sockets import bind
bind(Listen(sys.argv[1]))
os._exit(0)
"""


def test_a_unix_socket_that_a_process_has_left(bound: Bound, tmp_path: Path) -> None:
    """It is replaced, for its lock says that the process is gone."""
    endpoint = f"unix:{tmp_path}/a.sock"
    subprocess.run([sys.executable, "-c", LEFT, endpoint], check=True)
    assert (tmp_path / "a.sock").exists()
    listening = bound(endpoint)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(listening.address)


def test_a_file_that_is_no_socket_stays(tmp_path: Path) -> None:
    """Whatever the lock says: the name is a mistake. No lock is left."""
    path = tmp_path / "a.sock"
    path.write_text("precious")
    (tmp_path / "a.sock.lock").symlink_to(str(2**22))
    with pytest.raises(CannotStart, match="Address already in use"):
        bind(Listen(f"unix:{path}"))
    assert path.read_text() == "precious"
    assert list(tmp_path.iterdir()) == [path]


def test_a_directory_that_does_not_exist(tmp_path: Path) -> None:
    """The sentence says so."""
    endpoint = f"unix:{tmp_path}/none/a.sock"
    with pytest.raises(CannotStart, match=f"^cannot listen: No such file or directory: {endpoint}$"):
        bind(Listen(endpoint))


def test_an_endpoint_with_its_own_certificate(bound: Bound, tmp_path: Path) -> None:
    """``ssl:`` reads its files when it is bound, while the process has its privileges."""
    pair = Authority(tmp_path).issue("localhost")
    endpoint = f"ssl:0:privateKey={pair.key}:certKey={pair.certificate}:interface=127.0.0.1"
    assert bound(endpoint).contexts.getContext()
    os.truncate(pair.certificate, 0)
    with pytest.raises(CannotStart, match=r"^cannot listen: .*: ssl:0:"):
        bind(Listen(endpoint))


def test_operators_may_connect_for_longer_than_clients(tmp_path: Path) -> None:
    """Until all workers have ended."""
    public, admin = (tmp_path / name for name in ("public", "admin"))
    sockets = Sockets(Gateway(listen=(Listen(f"unix:{public}"),), admin=f"unix:{admin}"))
    sockets.bind()
    assert public.exists()
    sockets.close_public()
    assert (public.exists(), admin.exists()) == (False, True)
    sockets.close()
    assert not admin.exists()
