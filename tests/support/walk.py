"""One GET with a token, a limit and warm connections through a gateway in this process: the functions that it calls.

Run as a program it prints them, as ``file:function``, of the shortest of several requests.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import tempfile
import threading
from pathlib import Path
from types import FrameType
from typing import Any

from joserfc import jwt
from joserfc.jwk import OctKey

import apigw
from apigw.tap import Options, makeService

HERE = os.path.dirname(apigw.__file__) + os.sep
SECRET = "0123456789abcdef0123456789abcdef"
TIMES = 30
ANSWER = (
    b"HTTP/1.1 200 OK\r\nDate: Wed, 25 Nov 2026 12:00:00 GMT\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nok"
)

Call = tuple[str, str]


def serve(listening: socket.socket) -> None:
    connection, _ = listening.accept()
    while connection.recv(65536):
        connection.sendall(ANSWER)


class Walk:
    """Notes the calls of each request between ``begin`` and ``end``, in the thread of the reactor."""

    def __init__(self, reactor: Any, port: int, request: bytes) -> None:
        self.walks: list[list[Call]] = []
        self._calls: list[Call] = []
        self._reactor = reactor
        self._port = port
        self._request = request

    def ask(self) -> None:
        with socket.create_connection(("127.0.0.1", self._port)) as client:
            for time in range(TIMES):
                if time:
                    self._in_reactor(self._begin)
                client.sendall(self._request)
                answer = client.recv(65536)
                assert answer.startswith(b"HTTP/1.1 200 "), answer
                if time:
                    self._in_reactor(self._end)
        self._reactor.callFromThread(self._reactor.stop)

    def _in_reactor(self, do: Any) -> None:
        done = threading.Event()
        self._reactor.callFromThread(lambda: (do(), done.set()))
        done.wait()

    def _begin(self) -> None:
        self._calls = []
        sys.setprofile(self._note)

    def _end(self) -> None:
        sys.setprofile(None)
        while self._calls[-1][0] == "wire/reactor/turns.py":  # the next turn has begun, in which this is called
            self._calls.pop()
        self.walks.append(self._calls)

    def _note(self, frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(HERE):
            self._calls.append((code.co_filename.removeprefix(HERE), code.co_name))


def main() -> None:
    listening = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=serve, args=(listening,), daemon=True).start()
    with tempfile.TemporaryDirectory() as directory:
        configuration = {
            "gateway": {"listen": ["tcp:0:interface=127.0.0.1"], "admin": None, "access_log": None},
            # Without a circuit, as it was when the number was set.
            "services": {
                "main": {"targets": [f"http://127.0.0.1:{listening.getsockname()[1]}"], "circuit_breaker": None}
            },
            "routes": [{"path": "/orders/:id", "service": "main", "roles": ["user"]}],
            "auth": {"jwt": [{"name": "main", "algorithm": "HS256", "secret": SECRET}]},
            "rate_limits": [{"endpoint": "/orders/*", "limit": 100_000, "window": "1h", "scope": "user"}],
        }
        (Path(directory) / "gateway.yaml").write_text(json.dumps(configuration))
        options = Options()
        options.parseOptions(["--config", directory])
        service = makeService(options)
    from twisted.internet import reactor as installed

    reactor: Any = installed
    service.privilegedStartService()
    (port,) = [reader.getHost().port for reader in reactor.getReaders() if hasattr(reader, "factory")]
    reactor.callWhenRunning(service.startService)
    token = jwt.encode(
        {"alg": "HS256"}, {"sub": "ada", "roles": ["user"], "exp": 4102444800}, OctKey.import_key(SECRET)
    )
    request = f"GET /orders/7?all=1 HTTP/1.1\r\nHost: a\r\nAccept: */*\r\nAuthorization: Bearer {token}\r\n\r\n"
    walk = Walk(reactor, port, request.encode())
    threading.Thread(target=walk.ask, daemon=True).start()
    reactor.run()
    for file, name in min(walk.walks, key=len):
        print(f"{file}:{name}")


if __name__ == "__main__":
    main()
