"""What the script offers to who writes a configuration: init, doctor, diff, JSON, a schema, completion."""

from __future__ import annotations

import io
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509
from jsonschema import Draft202012Validator
from support.certificates import Authority

from apigw.cli import main as cli
from apigw.cli.main import parser
from apigw.config.json_schema import json_schema
from apigw.process.rules import RULES

ROOT = Path(__file__).parents[2]
ETC = """\
gateway: {listen: ["tcp:0"], admin: null, workers: 1}
services:
  a: {targets: ["http://127.0.0.1:1"], timeout: 5s}
routes:
  - {path: /a, service: a, methods: [GET]}
  - {path: /a, service: a, methods: [POST]}
  - {path: /b, service: a}
auth:
  jwt: [{name: main, algorithm: HS256, secret: "a secret of 32 bytes, at the least"}]
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "all.yaml").write_text(ETC)
    monkeypatch.chdir(tmp_path)
    return tmp_path


Out = pytest.CaptureFixture[str]


def test_init_writes_what_check_takes(here: Path, capsys: Out) -> None:
    """What init writes is a good configuration, for the target that was named."""
    assert cli.main(["init", "new", "--service", "orders", "--target", "http://10.0.0.1:80", "--port", "8000"]) == 0
    assert cli.main(["check", "new"]) == 0
    assert cli.main(["routes", "GET", "/x", "new"]) == 0
    assert "target: http://10.0.0.1:80" in capsys.readouterr().out
    assert "tcp:8000" in (here / "new" / "gateway.yaml").read_text()


@pytest.mark.parametrize(("arguments", "code"), [(["etc"], 1), (["new", "--service", "../x"], 2)])
def test_init_overwrites_nothing(here: Path, capsys: Out, arguments: list[str], code: int) -> None:
    """A directory with files in it is left alone, and so is what lies beside it."""
    assert cli.main(["init", *arguments]) == code
    assert [each.name for each in here.rglob("*.yaml")] == ["all.yaml"]
    assert capsys.readouterr().err.startswith("apigw: ")


@pytest.mark.parametrize("arguments", [["--target", "orders:80"], ["--port", "9090"], ["--target", 'http://a"']])
def test_init_writes_nothing_that_check_refuses(here: Path, capsys: Out, arguments: list[str]) -> None:
    """A target or a port that cannot be used is refused with a reason, and the next try finds an empty place."""
    assert cli.main(["init", "new", *arguments]) == 1
    assert not (here / "new").exists()
    out, err = capsys.readouterr()
    assert not out
    assert err.startswith("apigw: ")
    assert err.endswith("nothing was written\n")
    assert "/tmp" not in err
    assert ": : " not in err


def test_without_a_command_all_are_listed(capsys: Out) -> None:
    """Who types the name of the program alone sees what it can do."""
    with pytest.raises(SystemExit):
        cli.main([])
    assert "init " in capsys.readouterr().err


@pytest.mark.parametrize("name", ["json", "class", "twisted"])
def test_a_plugin_hides_no_module(here: Path, capsys: Out, name: str) -> None:
    """A name that Python knows already would never be imported, or hide what others import."""
    assert cli.main(["new", "plugin", name]) == 1
    assert not (here / name).exists()
    assert "already" in capsys.readouterr().err


def test_plugins_says_when_a_request_meets_one(here: Path, capsys: Out) -> None:
    """The position is that of `on_request`, and of no other method."""
    (here / "late.py").write_text("class Late:\n    name = 'late'\n    schema = {}\n    position = 'limit'\n")
    with (here / "late.py").open("a") as file:
        file.write("    def prepare(self, config, context): ...\n    def on_request(self, view): ...\n")
    (here / "etc" / "plugins.yaml").write_text("plugins: {late: {policy: ../late.py:Late}}\n")
    assert cli.main(["plugins"]) == 0
    assert "  methods: prepare, on_request (limit)\n" in capsys.readouterr().out


def test_what_cannot_be_reached_is_said_in_words(here: Path, capsys: Out) -> None:
    """A gateway that is not there, a token file that is not, or that holds no token: no numbers, and no bytes of it."""
    (here / "odd.token").write_text("é" * 20)
    denying = ["deny", "address", "192.0.2.7", "--admin", "http://127.0.0.1:1", "--token-file"]
    for arguments, why in (
        (["health", "--admin", "http://127.0.0.1:1"], "/health: no answer from a gateway: Connection refused"),
        ([*denying, "none.token"], "the admin token: none.token: No such file or directory"),
        ([*denying, "odd.token"], "the admin token: odd.token: is not ASCII"),
    ):
        assert cli.main(arguments) == 1
        assert capsys.readouterr().err.endswith(f"{why}\n")


def test_what_is_commented_out_is_good_too(here: Path) -> None:
    """What init writes as comments can be switched on."""
    assert cli.main(["init", "new"]) == 0
    text = (here / "new" / "gateway.yaml").read_text()
    for commented, switched_on in (("# auth:", "auth:"), ("#   ", "  "), ("# rate", "rate")):
        text = text.replace(commented, switched_on)
    (here / "new" / "gateway.yaml").write_text(text)
    assert cli.main(["check", "new"]) == 0


def test_check_as_json(here: Path, capsys: Out) -> None:
    """Machines read each problem with its place, and each warning."""
    assert cli.main(["check", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["good"], told["problems"], told["services"], told["routes"]) == (True, [], 1, 3)
    assert {each["path"] for each in told["warnings"]} == {"auth.jwt[0]"}
    (here / "etc" / "b.yaml").write_text("rout: []\n")
    assert cli.main(["check", "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["good"] is False
    problem = told["problems"][0]
    assert (problem["file"], problem["line"], problem["column"], problem["path"]) == ("etc/b.yaml", 1, 1, "rout")


def test_strict_takes_no_warnings(here: Path, capsys: Out) -> None:
    """--strict exits with 1 where there are warnings, and says which."""
    assert cli.main(["check", "--strict"]) == 1
    err = capsys.readouterr().err
    assert "warning: auth.jwt[0]: " in err
    assert err.endswith("etc: has warnings, which --strict refuses: 1 service, 3 routes, 1 warning\n")


def test_check_of_one_file_and_of_standard_input(here: Path, capsys: Out, monkeypatch: pytest.MonkeyPatch) -> None:
    """One file is a whole configuration; - is standard input."""
    assert cli.main(["check", "etc/all.yaml"]) == 0
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(ETC.replace("service: a,", "service: b,").encode())))
    assert cli.main(["check", "-"]) == 1
    assert capsys.readouterr().err.splitlines()[1].startswith("-:5:25: routes[0].service: ")


def test_show_as_json(here: Path, capsys: Out) -> None:
    """Values are typed, secrets are masked, and each has its place."""
    assert cli.main(["show", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["configuration"]["gateway"]["workers"] == 1
    assert told["configuration"]["auth"]["jwt"][0]["secret"] == "…"
    assert told["places"]["services.a.timeout"] == "etc/all.yaml:3:49"


CHANGES = [
    ("timeout: 5s", "timeout: 7s", ['changed: services.a.timeout: "5s" → "7s"']),
    (", timeout: 5s", "", ['removed: services.a.timeout: "5s"']),
    ("/b, ", "/c, ", ["added: routes[/c]", "removed: routes[/b]"]),
    ("[POST]", "[PUT]", ["added: routes[/a PUT]", "removed: routes[/a POST]"]),
    ("/b, service: a", "/b, service: a, auth: none", ["added: routes[/b].auth: none"]),
    ("least", "end", ["changed: auth.jwt[main].secret: another secret"]),
    ('"http://127.0.0.1:1"', '"http://127.0.0.1:2"', ['targets: ["http://127.0.0.1:1"] → ["http://127.0.0.1:2"]']),
    ("a, methods: [GET]}", "a, methods: [GET]}  # the first", []),
]


@pytest.mark.parametrize(("old", "new", "lines"), CHANGES)
def test_diff(here: Path, capsys: Out, old: str, new: str, lines: list[str]) -> None:
    """Each change is named in the words of the files; no secret is shown."""
    (here / "new").mkdir()
    (here / "new" / "all.yaml").write_text(ETC.replace(old, new, 1))
    assert cli.main(["diff", "new"]) == 0
    out = capsys.readouterr().out
    *told, last = out.splitlines()
    assert last == f"new: {len(lines)} change{'' if len(lines) == 1 else 's'}"
    assert all(line.endswith(expected) for line, expected in zip(told, lines, strict=True))
    assert "32 bytes" not in out


def test_diff_tells_what_a_reload_would_refuse(here: Path, capsys: Out) -> None:
    """A change that needs a restart is named before it is deployed."""
    (here / "new").mkdir()
    (here / "new" / "all.yaml").write_text(ETC.replace("workers: 1", "workers: 2"))
    assert cli.main(["diff", "new"]) == 1
    out, err = capsys.readouterr()
    assert "gateway.workers: a change here needs a restart" in err
    assert out.endswith("new: 1 change, which a reload would refuse\n")


def test_a_copy_differs_in_nothing(here: Path, capsys: Out) -> None:
    """Files named relative to the directory are no difference: the other takes the place of this one."""
    pair = Authority(here / "etc").issue("gw.test")
    names = f"{{cert_file: {Path(pair.certificate).name}, key_file: {Path(pair.key).name}}}"
    written = ETC.replace('"tcp:0"', f'{{endpoint: "tcp:0", tls: {{certificates: [{names}]}}}}')
    written = written.replace("workers: 1", "workers: 1, access_log: {file: a.log}, audit_log: {file: b.log}")
    (here / "etc" / "all.yaml").write_text(written)
    shutil.copytree(here / "etc", here / "new")
    assert cli.main(["diff", "new"]) == 0
    out, err = capsys.readouterr()
    assert (out, err) == ("new: 0 changes\n", "")
    (here / "new" / "all.yaml").write_text(written.replace("b.log", "c.log"))
    assert cli.main(["diff", "new"]) == 1
    assert "gateway.audit_log: a change here needs a restart" in capsys.readouterr().err


def test_doctor_finds_what_is_odd(here: Path, capsys: Out, monkeypatch: pytest.MonkeyPatch) -> None:
    """A port that is taken, a service that does not answer, a certificate that expires soon."""
    pair = Authority(here).issue("gw.test")
    ends = x509.load_pem_x509_certificate(Path(pair.certificate).read_bytes()).not_valid_after_utc
    monkeypatch.setattr(time, "time", lambda: ends.timestamp() - 10 * 86400)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        tls = f"tls: {{certificates: [{{cert_file: {pair.certificate}, key_file: {pair.key}}}]}}"
        listen = f'listen: [{{endpoint: "tcp:{port}:interface=127.0.0.1", {tls}}}]'
        (here / "etc" / "all.yaml").write_text(ETC.replace('listen: ["tcp:0"]', listen))
        assert cli.main(["doctor"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert f"warn tcp:{port}:interface=127.0.0.1 cannot be used: Address already in use" in lines
    assert "warn service a: target 127.0.0.1:1: Connection refused" in lines
    assert any(line.startswith("warn ") and "the certificate expires in 10 days" in line for line in lines)


def test_doctor_looks_for_all_that_the_gateway_asks(here: Path, capsys: Out) -> None:
    """The provider, the checker or the collector cannot be reached from this machine, and only requests tell."""
    with socket.create_server(("127.0.0.1", 0)) as there:
        port = there.getsockname()[1]
        more = f"""\
    - {{name: keys, issuer: k, jwks_url: "http://127.0.0.1:{port}/jwks"}}
    - {{name: found, issuer: "http://127.0.0.1:1/realm", openid: true}}
  introspection: [{{name: old, url: "http://127.0.0.1:{port}/ask", client_id: me, client_secret: "{"ab" * 20}"}}]
checks: {{opa: {{url: "http://127.0.0.1:1/"}}}}
tracing: {{otlp: "http://127.0.0.1:1"}}
"""
        written = ETC.replace("[{name: main", "\n    - {name: main").replace('least"}]', 'least", issuer: me}')
        (here / "etc" / "all.yaml").write_text(written + more)
        assert cli.main(["doctor"]) == 1
    lines = capsys.readouterr().out.splitlines()
    for name in ("keys of keys", "introspection by old"):
        assert any(line.startswith(f"ok   {name}: 127.0.0.1:{port}: connected in ") for line in lines)
    for name in ("keys of found", "check opa", "collector of traces"):
        assert f"warn {name}: 127.0.0.1:1: Connection refused" in lines


class _Other(BaseHTTPRequestHandler):
    """A gateway with another configuration."""

    def do_GET(self) -> None:
        body = json.dumps({"version": "0.0.0", "process": 1, "directory": "/nowhere/etc"}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def test_doctor_sees_that_the_admin_port_is_taken(here: Path, capsys: Out) -> None:
    """Prometheus listens on 9090, too: the gateway does not start, and doctor is content."""
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        admin = f"tcp:{other.server_port}:interface=127.0.0.1"
        (here / "etc" / "all.yaml").write_text(ETC.replace("null", f'"{admin}"'))
        assert cli.main(["doctor"]) == 1
        other.shutdown()
    assert f"warn {admin} cannot be used: Address already in use" in capsys.readouterr().out.splitlines()


def test_doctor_tells_another_gateway_from_this_one(here: Path, capsys: Out) -> None:
    """All is well, says doctor, because `make run` of the checkout answers at the port that this gateway wants."""
    with HTTPServer(("127.0.0.1", 0), _Other) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        port = other.server_port
        written = ETC.replace("tcp:0", f"tcp:{port}").replace("null", f'"tcp:{port}:interface=127.0.0.1"')
        (here / "etc" / "all.yaml").write_text(
            written.replace(f'["tcp:{port}"]', f'["tcp:{port}:interface=127.0.0.2"]')
        )
        assert cli.main(["doctor"]) == 1
        other.shutdown()
    lines = capsys.readouterr().out.splitlines()
    said = f"warn it reads /nowhere/etc, and not {here}/etc: if it is to go on beside this one, change the ports here"
    assert said in lines
    assert f"ok   tcp:{port}:interface=127.0.0.2 is free" in lines


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["chek"], "there is no command 'chek': did you mean 'check'?"),
        (["start"], "there is no command 'start': `twistd -n apigw --config DIR` starts the gateway"),
        (["validate"], "there is no command 'validate': did you mean 'check'?"),
        (["frobnicate"], "there is no command 'frobnicate': `apigw -h` lists them"),
        (["routes", "GET", "http://a.test/b?c=1"], "PATH has no scheme and no host: write GET '/b?c=1' --host a.test"),
        (["routes", "GET", "https://u@[::1]:8443"], "PATH has no scheme and no host: write GET / --host [::1]"),
        (["routes", "GET", "http://[::1/b"], "PATH has no scheme and no host: write GET /b --host HOST"),
    ],
)
def test_what_others_would_type(capsys: Out, arguments: list[str], said: str) -> None:
    """Who comes from another gateway types its commands, and is shown a list of all, or refused a path."""
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == 2
    assert capsys.readouterr().err.endswith(f"error: {said}\n")


def test_a_path_may_have_a_url_in_its_query(here: Path, capsys: Out) -> None:
    """It is asked for, and taken for no URL itself."""
    assert cli.main(["routes", "GET", "/login?next=https://a.test/", str(ROOT / "etc")]) in (0, 1)
    assert not capsys.readouterr().err


def test_what_comes_after_new_plugin(here: Path, capsys: Out, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next command is pytest, which pip install of the gateway does not install."""
    assert cli.main(["new", "plugin", "tenant-one"]) == 0
    assert capsys.readouterr().out.endswith("next: `cd tenant-one && pytest`\n")
    monkeypatch.setattr("apigw.cli.new.find_spec", lambda name: None)
    assert cli.main(["new", "plugin", "tenant-two"]) == 0
    assert capsys.readouterr().out.endswith("next: `cd tenant-two && pip install pytest && pytest`\n")


VALIDATOR = Draft202012Validator(json_schema(RULES.schema))


@pytest.mark.parametrize("file", sorted(ROOT.glob("etc/**/*.yaml")), ids=lambda file: file.name)
def test_the_schema_takes_what_is_good(file: Path) -> None:
    """No editor marks a line of the configuration as shipped."""
    assert [error.message for error in VALIDATOR.iter_errors(yaml.safe_load(file.read_text()))] == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"gatway": {}},
        {"gateway": {"request_timeout": "5 s"}},
        {"gateway": {"max_body_size": "5 megs"}},
        {"services": {"a": {"targets": ["http://a"], "colour": "red"}}},
        {"routes": [{"path": "/a", "auth": "perhaps"}]},
        {"gateway": {"max_header_count": 0}},
    ],
)
def test_the_schema_refuses_what_is_wrong(wrong: Any) -> None:
    """Editors mark unknown keys, and values of a wrong form."""
    assert list(VALIDATOR.iter_errors(wrong))


def test_the_schema_is_printed(capsys: Out) -> None:
    """The printed schema is a valid one."""
    assert cli.main(["schema"]) == 0
    Draft202012Validator.check_schema(json.loads(capsys.readouterr().out))


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(capsys: Out, shell: str) -> None:
    """Each shell gets a script that asks apigw."""
    assert cli.main(["completion", shell]) == 0
    assert "apigw" in capsys.readouterr().out


def test_what_a_shell_is_told(tmp_path: Path) -> None:
    """After `apigw ci` comes circuits."""
    line, file = "apigw ci", tmp_path / "told"
    asked = {"_ARGCOMPLETE": "1", "COMP_LINE": line, "COMP_POINT": str(len(line)), "_ARGCOMPLETE_STDOUT_FILENAME": file}
    code = "import sys; sys.argv[0] = 'apigw'; from apigw.cli.main import main; main()"
    subprocess.run([sys.executable, "-c", code], env=os.environ | {k: str(v) for k, v in asked.items()}, check=True)
    assert file.read_text().strip() == "circuits"


@pytest.mark.parametrize(("written", "meant"), [("5", 5.0), ("0.5", 0.5), ("5s", 5.0), ("2m", 120.0), ("5 s", None)])
def test_how_long_to_wait(here: Path, capsys: Out, written: str, meant: float | None) -> None:
    """Who has just written 5s into the configuration writes it after --timeout, too."""
    if meant is None:
        with pytest.raises(SystemExit):
            parser().parse_args(["reload", "--timeout", written])
        assert "'5 s' is not a duration: write it like 250ms, 30s, 5m or 1h" in capsys.readouterr().err
    else:
        assert parser().parse_args(["reload", "--timeout", written]).timeout == meant
