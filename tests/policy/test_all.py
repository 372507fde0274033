"""A policy is added by its folder and its entry in the list: here to a copy of the program, which is started."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import pytest
from support.client import Client
from support.daemon import TWISTD, Daemon, Document, gateway
from support.services import Service
from support.waiting import PATIENCE, eventually

import apigw
from apigw.policy.all import POLICIES

PAGE = Path(__file__).parents[2] / "docs" / "explanation" / "policies.md"
(GREETING,) = (
    dedent(block) for block in re.findall(r"(?m)(?:^    .*\n|^\n)+", PAGE.read_text()) if "(Policy)" in block
)
"""What the page shows."""

LIVING = """
from os import environ
from apigw.contract.policy import Policy, Prepared
from apigw.contract.resource import Document
from twisted.internet.defer import fail
from twisted.internet.task import deferLater

def note(word):
    with open(environ["NOTES"], "a") as notes:
        notes.write(word + "\\n")

class PreparedLiving(Prepared):
    def adopt(self, previous):
        note("adopted")

    def admin_resources(self):
        return {"/living": Document(lambda: {"alive": True}), "/health": Document(lambda: {"stolen": True})}

    def checks(self):
        return {"living": lambda: fail(RuntimeError("not yet"))}

    def keep_series(self):
        note("kept")

class AddedPolicy(Policy):
    name = "added"

    def __init__(self, context):
        self.reactor = context.reactor
        print("made")

    def start(self):
        note("started")

    def stop(self):
        note("stopping")
        return deferLater(self.reactor, 0.05, note, "stopped")

    def prepare(self, config, previous, others):
        assert list(others)[:8] == ["tracing", "networks", "denials", "cors", "oauth", "auth", "check", "limits"]
        return PreparedLiving()
"""

Grown = Callable[[str], dict[str, str]]


@pytest.fixture
def grown(tmp_path: Path) -> Grown:
    """Makes a copy of the program that has one policy more; the environment in which it is the one that runs."""

    def grown(policy: str) -> dict[str, str]:
        copy = tmp_path / "grown" / "apigw"
        shutil.copytree(Path(apigw.__file__).parent, copy)
        folder = copy / "policy" / "added"
        folder.mkdir()
        (folder / "__init__.py").touch()
        (folder / "policy.py").write_text(policy)
        listed = copy / "policy" / "all.py"
        text = listed.read_text()
        last = f"    {POLICIES[-1].__name__},\n"
        assert text.count(last) == 1
        text = text.replace(last, f"{last}    AddedPolicy,\n")
        text = text.replace("\nPOLICIES", "from apigw.policy.added.policy import AddedPolicy\n\nPOLICIES", 1)
        listed.write_text(text)
        return {"PYTHONPATH": str(copy.parent), "NOTES": str(tmp_path / "notes")}

    return grown


def document(service: Service) -> Document:
    return gateway(services={"main": service.url}, routes=[{"path": "/a", "service": "main"}])


def test_what_it_adds_is_in_every_answer(grown: Grown, tmp_path: Path) -> None:
    """Of its routes; and where it fails, the request is a 500, and the next one is served."""
    service = Service()
    daemon = Daemon(tmp_path / "gateway", document(service), executed=True)
    try:
        daemon.start(grown(GREETING))
        with daemon.connect() as client:
            assert client.get("/a").get("x-greeting") == "hello"
            broken = client.get("/a", "X-Break: 1")
            assert (broken.status, broken.get("x-greeting")) == (500, "hello")
            assert b"broken" not in broken.body
            served = client.get("/a")
            assert (served.status, served.get("x-greeting")) == (200, "hello")
        eventually(lambda: "RuntimeError: broken" in daemon.log)
        assert daemon.get("/elsewhere").get("x-greeting") is None
        assert len(service.requests) == 2
    finally:
        daemon.kill()
        service.close()


def test_it_lives_as_long_as_the_program(grown: Grown, tmp_path: Path) -> None:
    """It is started before it is in force, and stopped to the end; check makes it and starts nothing."""
    service = Service()
    environ, notes = grown(LIVING), tmp_path / "notes"
    daemon = Daemon(tmp_path / "gateway", document(service), executed=True)
    try:
        check = [str(Path(TWISTD).with_name("apigw")), "check", str(daemon.directory)]
        said = subprocess.run(check, env={**os.environ, **environ}, check=True, timeout=PATIENCE, capture_output=True)
        assert said.stdout.startswith(b"made\n")
        assert not notes.exists()
        daemon.start(environ)
        assert notes.read_text().split() == ["started", "adopted", "kept"]
        with Client(daemon.admin) as client:
            assert client.get("/living").json == {"alive": True}
            assert client.get("/health").json == {"status": "ok"}
            ready = client.get("/ready")
            assert (ready.status, ready.json["checks"]) == (503, {"living": "not yet"})
        assert daemon.reload()
        daemon.terminate()
        assert daemon.wait() == 0
        assert notes.read_text().split()[3:] == ["adopted", "kept", "stopping", "stopped"]
    finally:
        daemon.kill()
        service.close()
