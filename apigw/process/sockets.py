"""Binding: the sockets of the endpoints that the configuration names, which listen before anything serves them."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterable
from contextlib import suppress
from errno import EACCES, EADDRINUSE, EADDRNOTAVAIL
from typing import Any

from attrs import evolve, frozen
from OpenSSL import SSL
from twisted.internet.endpoints import serverFromString
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.lockfile import FilesystemLock

from apigw.config import endpoints
from apigw.config.model import Gateway, Listen
from apigw.process.tree import CannotStart
from apigw.wire.reactor.gate import bell, ring
from apigw.wire.tls import context, reason, select_protocol

DEFAULT_BACKLOG = 50
"""The backlog of Twisted's endpoints by default: too small for a busy gateway."""

BACKLOG = 4096
"""Connections that may wait to be accepted. Linux allows no more than ``net.core.somaxconn``, which is 4096 too."""

log = Logger()


@frozen(eq=False)
class Socket:
    """One endpoint's socket: bound and listening. Forked processes share it, and the queue of its connections."""

    endpoint: str
    """As it is configured."""
    listening: socket.socket
    contexts: Any = None
    """Twisted's context factory, for an ``ssl:`` endpoint."""
    path: str | None = None
    """The file of a unix socket that was made here."""
    lock: FilesystemLock | None = None
    base: SSL.Context | None = None
    """What the TLS connections of all workers begin with, so that each resumes the sessions of the others."""

    @property
    def address(self) -> str:
        """Where it really listens, which port 0 leaves to the system."""
        name: Any = self.listening.getsockname()
        if self.listening.family == socket.AF_UNIX:
            return os.fsdecode(name)
        return f"[{name[0]}]:{name[1]}" if ":" in name[0] else f"{name[0]}:{name[1]}"

    def close(self) -> None:
        """Who bound it calls this, when nobody is to connect any more. A unix socket's file is removed.

        That may be forbidden since privileges are dropped. Then the next ``bind`` finds the lock of a process that is
        gone, and removes both.
        """
        self.listening.close()
        if self.path is not None:
            with suppress(OSError):
                os.unlink(self.path)
        if self.lock is not None:
            with suppress(OSError, ValueError):
                self.lock.unlock()


def bind(listen: Listen, taken: socket.socket | None = None) -> Socket:
    """Bind and listen, unless the socket is ``taken`` from the program before. Logs where.

    Raises ``CannotStart`` with a sentence for the operator.
    """
    if taken is not None and endpoints.parse(listen.endpoint).kind == "systemd":
        return Socket(listen.endpoint, taken)  # passed once, to the first program
    binding = _Binding(listen.endpoint) if taken is None else _Taking(listen.endpoint, taken)
    try:
        endpoint = serverFromString(binding, listen.endpoint)
    except (IndexError, KeyError):
        raise CannotStart(f"cannot listen: systemd has passed no such socket: {listen.endpoint}") from None
    except Exception as unusable:  # an ssl: endpoint's files
        raise CannotStart(f"cannot listen: {reason(unusable)}: {listen.endpoint}") from None
    outcome: list[Any] = []
    endpoint.listen(None).addBoth(outcome.append)
    bound = outcome[0]
    if isinstance(bound, Failure):
        why = getattr(bound.value, "strerror", None) or bound.value
        number = getattr(bound.value, "errno", 0)
        has_port = endpoints.parse(listen.endpoint).kind != "unix"
        advice = _ADVICE.get(number, "") if has_port or number != EACCES else ""
        # The parent process is shown no more than the beginning.
        raise CannotStart(f"cannot listen: {why}: {listen.endpoint}{advice}")
    over = "" if listen.tls is None else "tls:"
    log.info("listening on {address}: {over}{endpoint}", address=bound.address, over=over, endpoint=listen.endpoint)
    made: Socket = bound
    return made


_ADVICE = {
    EACCES: "; ports below 1024 are for root, or need CAP_NET_BIND_SERVICE",
    EADDRINUSE: "; `apigw doctor` tells whether that is another gateway",
    EADDRNOTAVAIL: "; this machine has no such address",
}


class _Binding:
    """What Twisted's endpoints take for a reactor. It returns sockets instead of ports that serve them."""

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint

    def listenTCP(self, port: int, factory: None, backlog: int = DEFAULT_BACKLOG, interface: str = "") -> Socket:
        return Socket(self._endpoint, _tcp(port, backlog, interface))

    def listenSSL(
        self, port: int, factory: None, contextFactory: Any, backlog: int = DEFAULT_BACKLOG, interface: str = ""
    ) -> Socket:
        contextFactory.getContext().set_alpn_select_callback(select_protocol)
        return Socket(self._endpoint, _tcp(port, backlog, interface), contextFactory)

    def listenUNIX(self, address: str, factory: None, backlog: int, mode: int, wantPID: bool) -> Socket:
        lock = FilesystemLock(f"{address}.lock") if wantPID else None
        if lock is not None:
            if not lock.lock():
                raise OSError(EADDRINUSE, os.strerror(EADDRINUSE))
            if not lock.clean:
                _remove_stale(address)
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            listening.bind(address)
        except OSError:
            listening.close()
            if lock is not None:
                lock.unlock()
            raise
        # Before it listens: until then nobody can connect.
        os.chmod(address, mode)
        listening.listen(_enough(backlog))
        return Socket(self._endpoint, listening, path=address, lock=lock)

    def adoptStreamPort(self, fileDescriptor: int, addressFamily: int, factory: None) -> Socket:
        """The endpoint closes the descriptor that it was passed, and has made it non-blocking."""
        return Socket(self._endpoint, socket.socket(fileno=os.dup(fileDescriptor)))


class _Taking(_Binding):
    """For a socket that listens already."""

    def __init__(self, endpoint: str, taken: socket.socket) -> None:
        super().__init__(endpoint)
        self._taken = taken

    def listenTCP(self, port: int, factory: None, backlog: int = DEFAULT_BACKLOG, interface: str = "") -> Socket:
        return Socket(self._endpoint, self._taken)

    def listenSSL(
        self, port: int, factory: None, contextFactory: Any, backlog: int = DEFAULT_BACKLOG, interface: str = ""
    ) -> Socket:
        return Socket(self._endpoint, self._taken, contextFactory)

    def listenUNIX(self, address: str, factory: None, backlog: int, mode: int, wantPID: bool) -> Socket:
        lock = FilesystemLock(f"{address}.lock") if wantPID else None
        if lock is not None:
            lock.locked = True  # by this process, before it executed this program
        return Socket(self._endpoint, self._taken, path=address, lock=lock)


def _tcp(port: int, backlog: int, interface: str) -> socket.socket:
    is_ipv6 = ":" in interface
    address = socket.getaddrinfo(interface, port, flags=socket.AI_NUMERICHOST)[0][4] if is_ipv6 else (interface, port)
    family = socket.AF_INET6 if is_ipv6 else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        # A new process binds while connections of one before it are in TIME_WAIT.
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(_enough(backlog))
    except OSError:
        listening.close()
        raise
    return listening


def _enough(backlog: int) -> int:
    return BACKLOG if backlog == DEFAULT_BACKLOG else backlog


def _remove_stale(path: str) -> None:
    """Remove the socket that a process has left which is gone. What is no socket stays, and binding fails."""
    with suppress(OSError):
        if stat.S_ISSOCK(os.stat(path).st_mode):
            os.remove(path)


def _let_go(endpoint: str, taken: socket.socket) -> None:
    """Of a socket that is not configured any more. The file of a unix socket, and its lock, go too: they would be in
    the way of another that is configured later."""
    if endpoints.parse(endpoint).kind == "unix":
        path = os.fsdecode(taken.getsockname())
        lock = FilesystemLock(f"{path}.lock")
        lock.locked = True  # by this process, before it executed this program
        Socket(endpoint, taken, path=path, lock=lock).close()
    else:
        taken.close()


class Sockets:
    """The sockets of the whole gateway, which its workers inherit."""

    def __init__(self, gateway: Gateway, handed: Iterable[tuple[str, int]] = ()) -> None:
        """``handed``: endpoints and descriptors of the program before."""
        self._gateway = gateway
        self._handed = list(handed)
        self.bell = bell()
        """Wakes workers that leave connections to others."""
        self.admin: Socket | None = None
        self.public: tuple[Socket, ...] = ()

    def bind(self) -> None:
        """Bind what was not handed over, and close what is not configured any more. Raises ``CannotStart``."""
        if self._gateway.admin is not None:
            self.admin = self._bind(Listen(endpoints.private(self._gateway.admin)))
        self.public = tuple(_with_base(self._bind(listen), listen) for listen in self._gateway.listen)
        for endpoint, descriptor in self._handed:
            _let_go(endpoint, socket.socket(fileno=descriptor))
        self._handed.clear()

    def endpoints(self) -> list[str]:
        """Those that have a socket."""
        return [each.endpoint for each in (self.admin, *self.public) if each is not None]

    def hand_over(self) -> list[tuple[str, int]]:
        """For the program that this process is about to execute."""
        held = [(each.endpoint, each.listening.fileno()) for each in (self.admin, *self.public) if each is not None]
        for _, descriptor in held:
            os.set_inheritable(descriptor, True)
        return held

    def keep(self) -> None:
        """The other program was not executed."""
        for each in (self.admin, *self.public):
            if each is not None:
                os.set_inheritable(each.listening.fileno(), False)

    def ring(self) -> None:
        """A worker is gone, and its connections with it: the others compare theirs again."""
        ring(self.bell)

    def close_public(self) -> None:
        """No client is to connect any more. A worker that still accepts has its own copies."""
        public, self.public = self.public, ()
        for each in public:
            each.close()

    def close(self) -> None:
        """Nor an operator."""
        self.close_public()
        admin, self.admin = self.admin, None
        if admin is not None:
            admin.close()

    def _bind(self, listen: Listen) -> Socket:
        found = next((each for each in self._handed if each[0] == listen.endpoint), None)
        if found is None:
            return bind(listen)
        self._handed.remove(found)
        descriptor = found[1]
        os.set_inheritable(descriptor, False)
        return bind(listen, socket.socket(fileno=descriptor))


def bind_others(gateway: Gateway, held: Iterable[str]) -> None:
    """Bind what is not ``held`` already, and close it again: an upgrade that could not is not begun.

    Raises ``CannotStart``.
    """
    left = list(held)
    for listen in _all(gateway):
        if listen.endpoint in left:
            left.remove(listen.endpoint)
        else:
            bind(listen).close()


def _all(gateway: Gateway) -> list[Listen]:
    admin = [] if gateway.admin is None else [Listen(endpoints.private(gateway.admin))]
    return [*admin, *gateway.listen]


def _with_base(bound: Socket, listen: Listen) -> Socket:
    tls = listen.tls
    return bound if tls is None else evolve(bound, base=context(tls.min_version, tls.verifies))
