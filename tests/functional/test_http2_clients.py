"""HTTP/2 towards programs that others wrote: each sends a body that exceeds every window, and gets it back."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from support.certificates import Authority
from support.daemon import LOOPBACK, Daemon, gateway
from support.services import Received, Service

from .conftest import Start

BODY = bytes(range(256)) * 6000
NODE = """
const [url, file] = process.argv.slice(1)
const client = require("http2").connect(url, { rejectUnauthorized: false })
const stream = client.request({ ":method": "POST", ":path": "/m/a" })
stream.on("data", (data) => process.stdout.write(data))
stream.on("end", () => client.close())
require("fs").createReadStream(file).pipe(stream)
"""


def curl(url: str, file: Path) -> list[str]:
    how = "--http2-prior-knowledge" if url.startswith("http:") else "--http2"
    return ["curl", "-sSk", how, "--data-binary", f"@{file}", f"{url}/m/a"]


def nghttp(url: str, file: Path) -> list[str]:
    return ["nghttp", f"--data={file}", f"{url}/m/a"]


def node(url: str, file: Path) -> list[str]:
    return ["node", "-e", NODE, url, str(file)]


def run(command: list[str]) -> bytes:
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    return subprocess.run(command, capture_output=True, check=True, timeout=30).stdout


def behave(received: Received) -> None:
    received.conversation.answer(200, body=b"".join(received.pieces()))


@pytest.fixture(scope="module")
def daemon(in_front: Start, module_service: Service, tmp_path_factory: pytest.TempPathFactory) -> Daemon:
    pair = Authority(tmp_path_factory.mktemp("certificates")).issue("localhost")
    tls = {"certificates": [{"cert_file": pair.certificate, "key_file": pair.key}]}
    return in_front(
        gateway(
            services={"main": module_service.url},
            routes=[{"path": "/m/*", "service": "main"}],
            listen=[LOOPBACK, {"endpoint": LOOPBACK, "tls": tls}],
            max_body_size=None,
        )
    )


@pytest.fixture(params=["http", "https"])
def url(request: pytest.FixtureRequest, daemon: Daemon, service: Service) -> str:
    service.behave = behave
    host, port = daemon.addresses[request.param == "https"]
    return f"{request.param}://{host}:{port}"


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sent") / "body"
    path.write_bytes(BODY)
    return path


@pytest.mark.parametrize("command", [curl, nghttp, node])
def test_a_body_comes_back(url: str, file: Path, command: Callable[[str, Path], list[str]]) -> None:
    """What the program sends is what it gets."""
    assert run(command(url, file)) == BODY


def test_many_at_once(url: str, file: Path) -> None:
    """A hundred such exchanges on four connections, each with ten streams: none fails."""
    out = run(["h2load", "-c4", "-m10", "-n100", f"--data={file}", f"{url}/m/a"]).decode()
    assert re.search(r"100 succeeded, 0 failed, 0 errored", out), out
    assert re.search(rf"\({100 * len(BODY)}\) data", out), out
