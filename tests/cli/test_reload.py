"""``apigw upgrade`` waits for a gateway that cannot answer while it executes the new program."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from apigw.cli.admin import Admin, NotAnswered
from apigw.cli.reload import RELOAD, UPGRADE, NotChanged, _waited_for


@contextmanager
def answering(*answers: tuple[int, dict[str, Any]]) -> Iterator[Admin]:
    """A listener that gives these answers, one after the other."""
    left = iter(answers)

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, document = next(left)
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(document).encode())

        def log_message(self, *_: Any) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield Admin("127.0.0.1", server.server_port)
        server.shutdown()
        thread.join()


def status(process: int, **more: Any) -> tuple[int, dict[str, Any]]:
    known = {"process": process, "upgrades": 0, "upgrading": False, "upgrade_problem": ""}
    return 200, {**known, "reloads": 0, "reloading": False, **more}


BUSY = 503, {"detail": "The gateway's master does not answer; try again in some seconds."}


def test_an_upgrade_is_waited_for_while_nobody_answers() -> None:
    own = os.getpid()
    with answering(status(own, upgrading=True), BUSY, status(own, upgrades=1)) as admin:
        assert _waited_for(UPGRADE, admin, own, 0, 30.0)["upgrades"] == 1


def test_a_gateway_that_has_ended_is_not_waited_for() -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    with answering(BUSY) as admin, pytest.raises(NotAnswered):
        _waited_for(UPGRADE, admin, ended.pid, 0, 30.0)


def test_a_reload_does_not_keep_a_gateway_from_answering() -> None:
    with answering(BUSY) as admin, pytest.raises(NotAnswered):
        _waited_for(RELOAD, admin, os.getpid(), 0, 30.0)


def test_no_longer_than_was_asked_for() -> None:
    with answering(status(os.getpid(), upgrading=True)) as admin, pytest.raises(NotChanged, match=r"after 0\.01 s"):
        _waited_for(UPGRADE, admin, os.getpid(), 0, 0.01)
