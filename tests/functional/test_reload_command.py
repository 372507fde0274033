"""``apigw reload``: its exit code and its words are the outcome of the reload."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from support.daemon import Daemon, Document, gateway
from support.services import Service
from support.waiting import eventually

from apigw.cli import main as cli

from .conftest import Start

Reload = Callable[..., tuple[int, str, str]]


def document(service: Service, *more: str) -> Document:
    """It uses a variable of the environment, which the gateway does not have."""
    paths = ["${APIGW_TEST_PATH:-/a}", *more]
    return gateway(services={"main": service.url}, routes=[{"path": path, "service": "main"} for path in paths])


@pytest.fixture(scope="module")
def module_daemon(in_front: Start, module_service: Service) -> Daemon:
    return in_front(document(module_service), executed=True)


@pytest.fixture
def daemon(module_daemon: Daemon, service: Service) -> Daemon:
    """With the configuration of ``document``, and perhaps others of its routes in use."""
    module_daemon.configure(document(service))
    return module_daemon


@pytest.fixture
def reload(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> Reload:
    """The exit code of the command, and what it prints."""

    def run(*arguments: str) -> tuple[int, str, str]:
        code = cli.main(["reload", "--config", str(daemon.directory), "--admin", daemon.admin_text, *arguments])
        out, err = capsys.readouterr()
        return code, out, err

    return run


def test_a_good_configuration_is_in_use_when_the_command_ends(daemon: Daemon, reload: Reload, service: Service) -> None:
    """The exit code is 0, and the next request takes the new route."""
    daemon.configure(document(service, "/b"))
    code, out, err = reload()
    assert (code, out) == (0, f"process {daemon.process.pid}: reloaded\n")
    assert err.endswith("warning: routes: 2 of 2 routes need no authentication: /a, /b\n")
    assert daemon.get("/b").status == 200
    assert "reload: added routes./b" in daemon.log


def test_what_the_gateway_refuses_is_printed(daemon: Daemon, reload: Reload, service: Service) -> None:
    """A change that needs a restart is found by the gateway only: 1, with its sentence, and nothing has changed."""
    listen = ["tcp:0:interface=127.0.0.1", "tcp:0:interface=127.0.0.1"]
    daemon.configure(gateway(services={"main": service.url}, routes=[], listen=listen))
    code, out, err = reload()
    assert (code, out) == (1, "")
    assert err.startswith("not reloaded: ") and "gateway.listen: a change here needs a restart" in err
    assert daemon.get("/a").status == 200


def test_a_broken_configuration_does_not_reach_the_gateway(daemon: Daemon, reload: Reload) -> None:
    """Its problems are those of ``apigw check``, and the gateway is not asked to reload."""
    before = daemon.status()["reloads"]
    daemon.directory.joinpath("gateway.yaml").write_text("routes: 7\n")
    code, _, err = reload()
    assert code == 1 and "gateway.yaml:1:9: routes: " in err
    assert daemon.status()["reloads"] == before


@pytest.mark.parametrize(("value", "code"), [("/b", 1), ("/a", 1), (None, 0)], ids=["other", "new", "not here"])
def test_another_environment_needs_a_restart(
    daemon: Daemon, reload: Reload, monkeypatch: pytest.MonkeyPatch, value: str | None, code: int
) -> None:
    """The gateway has the environment with which it was started. The names are printed, not the values."""
    before = daemon.status()["reloads"]
    if value is not None:
        monkeypatch.setenv("APIGW_TEST_PATH", value)
    got, _, err = reload()
    assert got == code
    assert ("needs a restart" in err) == ("APIGW_TEST_PATH" in err) == (code == 1)
    assert value is None or value not in err
    assert daemon.status()["reloads"] == before + (code == 0)


def test_an_equal_environment_does_not(
    start: Start, service: Service, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A variable that both have with one value is no reason to refuse."""
    monkeypatch.setenv("APIGW_TEST_PATH", "/b")
    routes = [{"path": "${APIGW_TEST_PATH}", "service": "main"}]
    daemon = start(gateway(services={"main": service.url}, routes=routes), executed=True)
    assert cli.main(["reload", "--config", str(daemon.directory), "--admin", daemon.admin_text]) == 0
    assert "reloaded" in capsys.readouterr().out


def test_a_variable_that_only_the_gateway_has_is_taken_from_it(
    start: Start, service: Service, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Who reloads a gateway, or asks it, needs none of its variables: the service manager has given them to it."""
    monkeypatch.setenv("APIGW_TEST_PATH", "/b")
    routes = [{"path": "${APIGW_TEST_PATH}", "service": "main"}]
    daemon = start(gateway(services={"main": service.url}, routes=routes), executed=True)
    monkeypatch.delenv("APIGW_TEST_PATH")
    assert cli.main(["reload", "--config", str(daemon.directory), "--admin", daemon.admin_text]) == 0
    assert capsys.readouterr().out == f"process {daemon.process.pid}: reloaded\n"
    assert daemon.get("/b").status == 200


def test_another_gateway_is_not_reloaded(daemon: Daemon, reload: Reload, tmp_path: Path) -> None:
    """One that was started with another directory than the one that was checked."""
    before = daemon.status()["reloads"]
    other = tmp_path / "other"
    shutil.copytree(daemon.directory, other)
    code, out, err = reload("--config", str(other))
    assert (code, out) == (1, "")
    assert err.endswith(f" reads {daemon.directory}, and not {other}: give --config {daemon.directory}\n")
    assert daemon.status()["reloads"] == before


def test_only_a_gateway_is_signalled(daemon: Daemon, reload: Reload, monkeypatch: pytest.MonkeyPatch) -> None:
    """A number that is another process here, as that of a gateway in a container may be, gets no signal."""
    with subprocess.Popen(["sleep", "60"]) as other:
        status = {"process": other.pid, "reloads": 0, "reloading": False, "workers": []}
        monkeypatch.setattr("apigw.cli.reload.Admin.get", lambda *_: status)
        code, _, err = reload()
        assert code == 1 and f"is process {other.pid}, but not here" in err
        assert other.poll() is None
        other.kill()


@pytest.mark.parametrize("answer", [{}, {"process": 1}], ids=str)
def test_what_else_answers_is_said(reload: Reload, monkeypatch: pytest.MonkeyPatch, answer: object) -> None:
    """Another program, or a gateway from before the command, that has yet to be restarted."""
    monkeypatch.setattr("apigw.cli.reload.Admin.get", lambda *_: answer)
    code, _, err = reload()
    assert code == 1 and "is no gateway of this version" in err


def test_who_does_not_answer(reload: Reload, tmp_path: Path) -> None:
    """Without a gateway there is nothing to reload."""
    code, _, err = reload("--admin", f"unix:{tmp_path}/nobody")
    assert code == 1 and "no answer from a gateway" in err


@pytest.mark.parametrize("good", [True, False])
def test_doctor_sees_how_the_last_reload_ended(
    daemon: Daemon, service: Service, tmp_path: Path, capsys: pytest.CaptureFixture[str], good: bool
) -> None:
    """A reload that was refused is a warning; one that succeeded is none."""
    assert daemon.reload(document(service, "/b" if good else "no path")) is good
    host, _, port = daemon.admin_text.rpartition(":")
    (tmp_path / "gateway.yaml").write_text(f'gateway: {{admin: "tcp:{port}:interface={host}"}}\n')
    cli.main(["doctor", str(tmp_path)])
    said = capsys.readouterr().out
    assert "ok   a gateway answers at " in said
    assert ("warn its last reload failed" in said) is not good


def test_health_of_a_container(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    """0 while the gateway serves, and while it is ready; 1 where none answers."""
    for more, said in (([], "ok"), (["--ready"], "ready")):
        assert cli.main(["health", "--admin", daemon.admin_text, *more]) == 0
        assert capsys.readouterr().out == f"http://{daemon.admin_text}: {said}\n"
    assert cli.main(["health", "--admin", "127.0.0.1:1"]) == 1


def test_a_file_that_changed_is_used(daemon: Daemon, service: Service) -> None:
    """With watch_files nobody needs to say that the configuration has changed."""
    watching = document(service)
    watching["gateway"]["watch_files"] = True
    assert daemon.reload(watching)
    watching["routes"].append({"path": "/watched", "service": "main"})
    daemon.configure(watching)
    eventually(lambda: daemon.get("/watched").status == 200)
