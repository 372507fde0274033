"""The ``apigw`` script."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from pathlib import Path

import pytest

from apigw import __version__
from apigw.cli import main as cli
from apigw.policy.auth.secrets import SecretHash

ETC = """\
gateway:
  listen: ["tcp:0"]
  admin: null
  request_timeout: 7s
services:
  a: {targets: [{url: "http://127.0.0.1:1", weight: 2}, "http://[::1]:2"]}
routes:
  - {path: /a/:id, service: a, methods: [GET], strip_prefix: /a}
  - {path: /all/*, service: a, max_body_size: null, cors: {origins: ["https://b.example"]}}
"""


@pytest.fixture
def etc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    directory = tmp_path / "etc"
    directory.mkdir()
    (directory / "gateway.yaml").write_text(ETC)
    monkeypatch.chdir(tmp_path)
    return directory


def test_check_of_a_good_configuration(etc: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A deployment that checks first is stopped by a warning, or does not show it."""
    assert cli.main(["check"]) == 0
    out, err = capsys.readouterr()
    assert out == "etc: good: 1 service, 2 routes, 1 warning\n"
    assert err == "etc/gateway.yaml:8:12: warning: routes: 2 of 2 routes need no authentication: /a/:id, /all/*\n"


def test_check_names_every_problem(etc: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A mistake is deployed because the check exits 0, or found one at a time."""
    (etc / "b.yaml").write_text("routes:\n  - {path: b, service: A}\nrout: []\n")
    assert cli.main(["check", "etc"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert [line.split(": ")[0] for line in lines] == ["etc/b.yaml:2:12", "etc/b.yaml:2:24", "etc/b.yaml:3:1", "etc"]
    assert lines[-1] == "etc: 3 problems"


def test_check_of_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A mistyped directory counts as a good configuration."""
    missing = str(tmp_path / "nowhere")
    assert cli.main(["check", missing]) == 1
    assert capsys.readouterr().err == f"{missing}: there is no such directory\n{missing}: 1 problem\n"


@pytest.mark.parametrize(
    ("method", "path", "code", "expected"),
    [
        ("GET", "/a/7?x=1", 0, ["route /a/:id (GET)", "id = '7'", "written in: etc/gateway.yaml:8:12"]),
        ("GET", "/a/7?x=1", 0, ["auth: none", "body: up to 100MiB", "service: a", "sent as: /7?x=1", "timeout: 7s"]),
        ("GET", "/a/7", 0, ["target: http://127.0.0.1:1, weight 2", "target: http://[::1]:2"]),
        (
            "PUT",
            "/all/x",
            0,
            ["route /all/*", "cors: allowed origins: https://b.example", "body: of any size", "as: /all/x"],
        ),
        ("DELETE", "/a/7", 1, ["405, allowed methods: GET, HEAD"]),
        ("GET", "/b", 1, ["404, no route matches the path"]),
        ("GET", "/a/..%2Fb", 1, ["400, refused before routing: "]),
        ("GET", "a/7", 1, ["400, refused before routing: "]),
        ("get", "/a/7", 1, ["501, unknown method"]),
        ("CONNECT", "/a/7", 1, ["405, CONNECT is not supported"]),
        ("GET", "/health", 0, ["answered by the gateway itself"]),
    ],
)
def test_routes(
    etc: Path, capsys: pytest.CaptureFixture[str], method: str, path: str, code: int, expected: list[str]
) -> None:
    """An operator is told another route than the gateway takes, or not what it demands."""
    assert cli.main(["routes", method, path]) == code
    out = capsys.readouterr().out
    for text in expected:
        assert text in out


HOSTS = """\
routes:
  - {name: beta, path: /h, service: a, hosts: ["*.test"], headers: {X-Beta: {present: true}}}
  - {path: [/h, /health, /g/*], service: a, hosts: ["*.test"], encoded_slashes: keep}
"""


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        (["GET", "/h"], 1, "404, no route matches the path"),
        (["GET", "/h", "--host", "b.test:80"], 0, "GET b.test:80 /h: route /h (all methods)"),
        (["GET", "/h", "--host", "b.test:80", "etc"], 0, "GET b.test:80 /h: route /h (all methods)"),
        (["etc", "GET", "/h", "--host", "b.test:80"], 0, "GET b.test:80 /h: route /h (all methods)"),
        (["GET", "--host", "b.test:80", "/h", "etc"], 0, "GET b.test:80 /h: route /h (all methods)"),
        (["--host=b.test:80", "GET", "/h", "-H", "X-A: 1", "etc"], 0, "GET b.test:80 /h: route /h (all methods)"),
        (["GET", "/h", "--host", "b.test"], 0, "conditions do not hold: /h (all methods): header x-beta is present"),
        (["GET", "/h", "--host", "b.test", "-H", "X-Beta: 1"], 0, "name: beta"),
        (["GET", "/h", "-H", "Host: b.test", "-H", "x-beta:"], 0, "name: beta"),
        (["GET", "/health", "--host", "b.test"], 0, "route /health"),
        (["GET", "/health", "--host", "test"], 0, "answered by the gateway itself"),
        (["GET", "/h", "--host", "b test"], 1, "400, refused before routing: The Host is"),
        (["GET", "/g/a%2Fb", "--host", "b.test"], 0, "* = 'a/b'"),
        (["GET", "/h%2Fb", "--host", "b.test"], 1, "400, the route does not keep"),
        (["GET", "/a/x%2Fb"], 1, "400, the route does not keep"),
    ],
)
def test_routes_of_hosts_and_headers(
    etc: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, expected: str
) -> None:
    """The route of a request with a host and headers is told, as the gateway would take it."""
    (etc / "hosts.yaml").write_text(HOSTS)
    assert cli.main(["routes", *arguments]) == code
    assert expected in capsys.readouterr().out


def test_a_header_that_is_none(etc: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A mistyped option is an error, and no request without it."""
    assert cli.main(["routes", "GET", "/a/7", "-H", "X-Beta"]) == 2
    assert "'X-Beta' is not a header" in capsys.readouterr().err


@pytest.mark.parametrize("directory", [[], ["etc"]])
def test_all_routes(etc: Path, capsys: pytest.CaptureFixture[str], directory: list[str]) -> None:
    """Every route is listed with its hosts, methods, and what it demands."""
    (etc / "hosts.yaml").write_text(HOSTS)
    assert cli.main(["routes", *directory]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == ["HOSTS", "PATH", "METHODS", "SERVICE", "DEMANDS"]
    assert lines[1][:4] == ["-", "/a/:id", "GET", "a"]
    assert lines[3][:4] == ["*.test", "/h", "(beta)", "all"]
    assert "header x-beta is present" in " ".join(lines[3])
    assert len(lines) == 7


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["routes", "/a/7"], "no directory /a/7; if it is a path of a request, write METHOD before it"),
        (["routes", "GET", "--host", "a.test"], "apigw routes: error: the following arguments are required: PATH"),
        (["routes", "GET", "/a", "--host", "a.test", "etc", "more"], "more than METHOD, PATH and DIR"),
        (["routes", "GET", "/a", "--hots", "a.test"], "unrecognized arguments: --hots"),
        (["check", "etc", "more"], "unrecognized arguments: more"),
        (
            ["check", "--config", "etc"],
            "apigw check: error: unrecognized arguments: --config; the configuration is given by",
        ),
        (["routes", "--config", "etc"], "; the configuration is given by its directory alone, at the end"),
        (["diff", "etc", "."], "unrecognized arguments: .; write . --config etc\n"),
        (
            ["reload", "etc"],
            "apigw reload: error: unrecognized arguments: etc; the configuration is given as --config etc",
        ),
        (["deny", "token", "ada", "bob"], "apigw deny: error: unrecognized arguments: bob\n"),
        (["keys", "make", "acme", "etc/gateway.yaml"], "acme: does not exist, but etc/gateway.yaml does: FILE comes"),
        (["keys", "revoke", "a.keys", "acme"], "a.keys: No such file or directory"),
        (["keys", "sort", "a.keys"], "a.keys: No such file or directory"),
        (
            ["keys", "make", "a.keys", "acme", "--expires", "90"],
            "--expires 90: write 90d, 12h, or a time such as 2027-",
        ),
    ],
)
def test_mistyped(etc: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str) -> None:
    """What was typed is done in another sense, or the message is about something else."""
    try:
        assert cli.main(arguments) == 1
    except SystemExit as exit:
        assert exit.code == 2
    assert said in capsys.readouterr().err
    assert not Path("acme").exists() and not Path("a.keys").exists()


def test_all_redirects(etc: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In the list of all routes a redirect has made-up segments where its parameters are."""
    (etc / "away.yaml").write_text(
        'routes: [{path: "/old/:id/*", auth: none, redirect: {to: "/{param.id}/{param.rest}"}}]\n'
    )
    assert cli.main(["routes"]) == 0
    assert "redirect: 302 to /:id/*\n" in capsys.readouterr().out


def test_a_request_without_a_host(etc: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A route with hosts is not found, and nothing says that a host must be given."""
    (etc / "hosts.yaml").write_text(HOSTS)
    assert cli.main(["routes", "GET", "/nowhere"]) == 1
    assert "no host was given, and there are routes with hosts" in capsys.readouterr().out
    assert cli.main(["routes", "GET", "/nowhere", "--host", "b.test"]) == 1
    assert "no host" not in capsys.readouterr().out


def test_routes_of_a_broken_configuration(etc: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A half-read configuration is explained as if it were whole."""
    (etc / "b.yaml").write_text("rout: []\n")
    assert cli.main(["routes", "GET", "/a/7", str(etc)]) == 1
    out, err = capsys.readouterr()
    assert out == "" and "b.yaml:1:1: rout: " in err


@pytest.mark.parametrize(("algorithm", "reserved"), [("RS256", True), ("HS256", False)])
def test_routes_knows_which_paths_are_the_gateways(
    etc: Path, capsys: pytest.CaptureFixture[str], algorithm: str, reserved: bool
) -> None:
    """The public keys are published where there are some; with HS256 that path is a route like any other."""
    key = f", secret: {'sample' * 6}" if algorithm == "HS256" else ""
    (etc / "auth.yaml").write_text(
        f"auth: {{oauth: {{issuer: a, signing: {{algorithm: {algorithm}, key_id: k{key}}}}}}}\n"
        "gateway: {auth_default: none}\n"
    )
    (etc / "rest.yaml").write_text("routes: [{path: /*, service: a}]\n")
    assert cli.main(["routes", "GET", "/.well-known/jwks.json"]) == 0
    assert ("answered by the gateway itself" in capsys.readouterr().out) == reserved
    assert cli.main(["routes", "GET", "/.well-known/oauth-authorization-server"]) == 0
    assert "answered by the gateway itself" in capsys.readouterr().out


def test_a_long_list_of_open_routes_is_cut(etc: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Ten routes without authentication are named, and the others counted."""
    (etc / "many.yaml").write_text("routes:\n" + "".join(f"  - {{path: /r{n}, service: a}}\n" for n in range(40)))
    assert cli.main(["check"]) == 0
    named = ", ".join(["/a/:id", "/all/*", *(f"/r{n}" for n in range(8))])
    assert f"routes: 42 of 42 routes need no authentication: {named} and 32 more\n" in capsys.readouterr().err


def test_show(etc: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What was merged cannot be seen, least of all when something is wrong with it."""
    assert cli.main(["show"]) == 0
    assert "  request_timeout: 7s" not in capsys.readouterr().err
    (etc / "b.yaml").write_text("rout: []\n")
    assert cli.main(["show"]) == 1
    out, err = capsys.readouterr()
    assert 'request_timeout: "7s"  # etc/gateway.yaml:4:20' in out
    assert "etc/b.yaml:1:1: rout: " in err


def test_a_generated_secret_matches_its_hash(capsys: pytest.CaptureFixture[str]) -> None:
    """A new client can never get a token."""
    assert cli.main(["hash-secret", "--generate"]) == 0
    found = re.fullmatch(r"secret: (\S{43})\nhash:   (sha256\$\S+)\n", capsys.readouterr().out)
    assert found is not None
    assert SecretHash.parse(found[2]).matches(found[1])


def test_a_chosen_secret(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The newline of ``echo`` becomes part of the secret, or a weak one is accepted."""
    monkeypatch.setattr("sys.stdin", io.StringIO("correct-horse-battery\n"))
    assert cli.main(["hash-secret"]) == 0
    assert SecretHash.parse(capsys.readouterr().out.strip()).matches("correct-horse-battery")
    monkeypatch.setattr("sys.stdin", io.StringIO("short\n"))
    assert cli.main(["hash-secret"]) == 1
    assert capsys.readouterr() == ("", "apigw: a secret must have at least 16 characters\n")


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    """A bug report names no version."""
    assert cli.main(["version"]) == 0
    assert capsys.readouterr().out == f"apigw {__version__}\n"


@pytest.mark.parametrize("arguments", [["chek"], ["routes", "GET"]])
def test_misuse(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """A typo in a script passes for a good configuration."""
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == 2
    assert "usage: apigw" in capsys.readouterr().err


def test_help_is_quick(etc: Path) -> None:
    """The help loads no library, and only a check needs a reactor, which never runs."""
    script = (
        "import sys; from apigw.cli import main as cli\n"
        "try: cli.main(['-h'])\n"
        "except SystemExit: pass\n"
        "assert not {'twisted', 'yaml', 'OpenSSL'} & set(sys.modules)\n"
        "cli.main(['show']); cli.main(['routes', 'GET', '/a/7'])\n"
        "assert 'twisted.internet.reactor' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def test_a_reader_that_has_seen_enough(etc: Path) -> None:
    """``apigw show | head -1`` ends in a traceback."""
    (etc / "many.yaml").write_text("routes:\n" + "".join(f"  - {{path: /r{n}, service: a}}\n" for n in range(3000)))
    command = f"{sys.executable} -m apigw.cli show | head -1"
    piped = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)
    assert piped.stdout.startswith("gateway:") and piped.stderr == ""


def test_routes_tells_what_is_rewritten(etc: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Rules, redirects, answers and maintenance are told, and values of headers are not: they may be secrets."""
    (etc / "more.yaml").write_text(
        """routes:
  - path: /r/:id/*
    service: a
    access_log: null
    rewrite: {path: "/v2/{param.id}/{principal.id}{path}", host: "{host}"}
    request_headers: {set: {Authorization: hunter2}, add: {X-B: b}, remove: [X-C]}
    response_headers: {set: {Server: us}}
    maintenance: {retry_after: 5m}
  - {path: /s/*, redirect: {to: "https://new.example.com/{param.rest}", status: 308}}
  - {path: /t, respond: {status: 410, body: gone}}
"""
    )
    said = ""
    for path in ("/r/7/x?y=1", "/s/a/b", "/t"):
        assert cli.main(["routes", "GET", path]) == 0
        said += capsys.readouterr().out
    assert "hunter2" not in said
    for line in (
        "host: {host}",
        "request headers: set Authorization; add X-B; remove X-C",
        "response headers: set Server",
        "maintenance: 503, with Retry-After 5m",
        "access log: none",
        "sent as: /v2/7/{principal.id}/r/7/x?y=1",
        "redirect: 308 to https://new.example.com/a/b",
        "answer: 410, text/plain; charset=utf-8, 4 bytes",
    ):
        assert f"  {line}\n" in said
