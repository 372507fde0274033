"""What an operator asks of a running gateway."""

from __future__ import annotations

import json
import subprocess
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from typing import Any

from apigw.cli.main import main
from support.client import Answer, Client
from support.daemon import Daemon


def ask(daemon: Daemon, path: str) -> Answer:
    with Client(daemon.admin) as client:
        return client.get(path)


def asked(daemon: Daemon, path: str) -> Any:
    """What the admin listener answers, read as JSON."""
    return ask(daemon, path).json


def metrics(daemon: Daemon) -> str:
    """Of several workers, the page is a second old; while they have no time for it, it is a 503."""
    answer = ask(daemon, "/metrics")
    assert answer.status == 200, answer
    return answer.body.decode()


def circuit(daemon: Daemon, service: str = "main") -> Any:
    return next(one for one in asked(daemon, "/circuits")["circuits"] if one["service"] == service)


def post(daemon: Daemon, path: str, document: object, *headers: str, host: str = "localhost") -> Answer:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    with Client(daemon.admin) as client:
        return client.request("POST", path, *headers, body=body, host=host)


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    """What the ``apigw`` script does, in this process: an interpreter of its own takes half a second to get there."""
    with redirect_stdout(StringIO()) as out, redirect_stderr(StringIO()) as error:
        try:
            code = main(arguments)
        except SystemExit as exit:
            code = exit.code if isinstance(exit.code, int) else 1
    return subprocess.CompletedProcess(arguments, code, out.getvalue(), error.getvalue())


def admin_of(daemon: Daemon) -> str:
    return "http://{}:{}".format(*daemon.admin)
