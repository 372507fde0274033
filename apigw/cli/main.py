"""The ``apigw`` script: what can be asked of a configuration without starting the daemon.

Modules are imported where they are used, so that ``apigw -h`` does not load the gateway.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from apigw import __version__, is_compiled

if TYPE_CHECKING:
    from apigw.cli.remote import Admin
    from apigw.config.errors import Problem
    from apigw.config.model import Config, Route

FOUND, REFUSED, MISUSE = 0, 1, 2
Command = Callable[[argparse.Namespace], int]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code: 0, or 1 for what its help calls a failure. Misuse exits with 2."""
    options = parser().parse_args(arguments)
    run: Command = options.run
    try:
        return run(options)
    except BrokenPipeError:
        # Whoever read us has seen enough. Nothing may be flushed to it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FOUND


def parser() -> argparse.ArgumentParser:
    whole = argparse.ArgumentParser(
        prog="apigw",
        description="Ask about a configuration of the gateway. The gateway itself is started with: twistd apigw",
    )
    build = "compiled" if is_compiled() else "plain Python"
    whole.add_argument("--version", action="version", version=f"apigw {__version__}, {build}")
    commands = whole.add_subparsers(metavar="COMMAND", required=True)

    def add(
        name: str,
        run: Command,
        help: str,
        more: str = "",
        directory: bool = True,
        parents: Sequence[argparse.ArgumentParser] = (),
    ) -> argparse.ArgumentParser:
        description = f"{help[0].upper()}{help[1:]}. {more}".strip()
        command = commands.add_parser(name, help=help, description=description, parents=parents)
        command.set_defaults(run=run)
        if directory:
            command.add_argument(
                "directory", metavar="DIR", nargs="?", default="etc", help="the configuration (default: etc)"
            )
        return command

    add(
        "check",
        check,
        "read a configuration and name every problem in it",
        "Exits 0 if the gateway would start with it, else 1. Warnings change nothing in that.",
    )
    routes_parser = add(
        "routes",
        routes,
        "say which route a request would take, and what it demands",
        "Exits 0 if there is a route, else 1.",
        directory=False,
    )
    routes_parser.add_argument("method", metavar="METHOD", help="GET, POST …")
    routes_parser.add_argument("path", metavar="PATH", help="as a client would send it: /api/v1/users/7?all=1")
    routes_parser.add_argument(
        "directory", metavar="DIR", nargs="?", default="etc", help="the configuration (default: etc)"
    )
    add(
        "show",
        show,
        "print the merged configuration with the place of each value",
        "Secrets are masked. Exits 1 if it has problems, which are named on standard error.",
    )
    hash_parser = add(
        "hash-secret",
        hash_secret,
        "hash the secret of an OAuth client, for `secret_hash`",
        "Reads the secret from standard input: without echo, and twice, if that is a terminal.",
        directory=False,
    )
    hash_parser.add_argument(
        "--generate",
        action="store_true",
        help="make a secret instead, and print it with its hash: better than a chosen one",
    )
    asking = argparse.ArgumentParser(add_help=False)
    asking.add_argument("--config", metavar="DIR", default="etc", help="the gateway's configuration (default: etc)")
    asking.add_argument(
        "--admin", metavar="URL", help="http://HOST:PORT or unix:PATH (default: gateway.admin of the configuration)"
    )
    asking.add_argument("--json", action="store_true", help="print what the gateway answers, instead of a table")
    add(
        "limits",
        limits,
        "show the rate limits of a running gateway, and what they count now",
        "Exits 1 if it does not answer.",
        directory=False,
        parents=[asking],
    )
    circuits_parser = add(
        "circuits",
        circuits,
        "show the circuits of a running gateway and its targets, or hold a circuit by hand",
        "Exits 1 if the gateway does not answer, or refuses.",
        directory=False,
        parents=[asking],
    )
    circuits_parser.add_argument(
        "action",
        nargs="?",
        choices=("open", "close", "free"),
        help="open: refuse every request; close: let every request through; free: let the circuit decide again",
    )
    circuits_parser.add_argument("service", metavar="SERVICE", nargs="?", help="whose circuit")
    circuits_parser.add_argument(
        "--token-file", metavar="FILE", help="(default: gateway.admin_token_file of the configuration)"
    )
    add("version", version, "print the version", directory=False)
    return whole


def check(options: argparse.Namespace) -> int:
    config = _load(options.directory)
    if config is None:
        return REFUSED
    for warning in config.warnings:
        print(_warning(warning), file=sys.stderr)
    counts = (
        _count(len(config.services), "service"),
        _count(len(config.routes), "route"),
        _count(len(config.warnings), "warning"),
    )
    print(f"{options.directory}: good: {', '.join(counts)}")
    return FOUND


def routes(options: argparse.Namespace) -> int:
    from apigw.routing.router import Router
    from apigw.wire.errors import Refused
    from apigw.wire.http2.fields import METHODS
    from apigw.wire.target import check_target

    config = _load(options.directory)
    if config is None:
        return REFUSED
    method = options.method.encode("utf-8", "surrogateescape")
    try:
        path, query = check_target(options.path.encode("utf-8", "surrogateescape"))
    except Refused as refusal:
        print(f"{options.method} {options.path}: {refusal.status}, before any route is looked for: {refusal.reason}")
        return REFUSED
    asked = f"{options.method} {options.path}"
    if method not in METHODS:
        print(f"{asked}: 501, the method is not known (methods are written in capitals)")
        return REFUSED
    if method == b"CONNECT":
        print(f"{asked}: 405, CONNECT is not offered")
        return REFUSED
    if path.decode("ascii") in _reserved(config):
        print(f"{asked}: answered by the gateway itself, before any route is looked for")
        return FOUND
    router = Router(
        (route.path, None if route.methods is None else frozenset(map(str.encode, route.methods)), (index, route))
        for index, route in enumerate(config.routes)
    )
    explanation = router.explain(method, path)
    print(explanation)
    if explanation.match is None:
        return REFUSED
    index, route = explanation.match.value
    for name, value in _demands(config, index, route, path, query):
        print(f"  {name}: {value}")
    return FOUND


def show(options: argparse.Namespace) -> int:
    from apigw.config.merge import read
    from apigw.config.show import show

    document = read(options.directory, os.environ)
    sys.stdout.write(show(document))
    return FOUND if _load(options.directory) is not None else REFUSED


def hash_secret(options: argparse.Namespace) -> int:
    from apigw.policy.oauth import client_secrets

    if options.generate:
        secret = client_secrets.new_secret()
        print(f"secret: {secret}\nhash:   {client_secrets.hash_generated(secret)}")
        return FOUND
    try:
        print(client_secrets.hash_secret(_read_secret()))
    except ValueError as error:
        print(f"apigw: {error}", file=sys.stderr)
        return REFUSED
    return FOUND


def limits(options: argparse.Namespace) -> int:
    from apigw.cli.remote import NotAnswered, limits_table

    try:
        document = _admin(options).get("/limits")
    except (NotAnswered, ValueError) as error:
        return _complain(error)
    print(_json(document) if options.json else limits_table(document))
    return FOUND


def circuits(options: argparse.Namespace) -> int:
    from apigw.cli.remote import NotAnswered, circuits_table

    if (options.action is None) != (options.service is None):
        print(f"apigw: {options.action} needs the name of a service", file=sys.stderr)
        return MISUSE
    try:
        admin = _admin(options)
        if options.action is None:
            document = admin.get("/circuits")
            shown = document["circuits"]
        else:
            wanted = {"service": options.service, "action": options.action}
            document = admin.post("/circuits", wanted, _token(options))
            shown = [document]
    except (NotAnswered, ValueError, OSError) as error:
        return _complain(error)
    print(_json(document) if options.json else circuits_table(shown))
    return FOUND


def _admin(options: argparse.Namespace) -> Admin:
    """Raises ``ValueError`` where neither the command nor the configuration says where the gateway is."""
    from apigw.cli.remote import Admin

    if options.admin is not None:
        return Admin.parse(options.admin)
    config = _load(options.config)
    if config is None:
        raise ValueError("no gateway is asked: say with --config or --admin which one")
    return Admin.of_endpoint(config.gateway.admin)


def _token(options: argparse.Namespace) -> str:
    """Raises ``ValueError`` where there is none."""
    file = options.token_file
    if file is None:
        config = _load(options.config)
        file = None if config is None else config.gateway.admin_token_file
    if file is None:
        raise ValueError("a circuit is held with a token: say with --token-file where it is")
    with open(file, encoding="ascii") as content:
        return content.read().strip()


def _json(document: object) -> str:
    return json.dumps(document, indent=2)


def _complain(error: Exception) -> int:
    print(f"apigw: {error}", file=sys.stderr)
    return REFUSED


def version(options: argparse.Namespace) -> int:
    from apigw import __version__

    print(f"apigw {__version__}")
    return FOUND


def _load(directory: str) -> Config | None:
    """The configuration, or ``None`` when its problems have been printed."""
    from apigw.config.errors import ConfigError
    from apigw.config.load import load

    try:
        return load(directory, os.environ)
    except ConfigError as error:
        print(error, file=sys.stderr)
        print(f"{directory}: {_count(len(error.problems), 'problem')}", file=sys.stderr)
        return None


def _demands(config: Config, index: int, route: Route, path: bytes, query: bytes) -> Iterator[tuple[str, str]]:
    """What a request meets on its route, in the order in which it meets it."""
    from apigw.config.model import UNSET
    from apigw.config.units import duration_text, size_text
    from apigw.routing.router import Pattern

    gateway = config.gateway
    origin = config.origins.get(("routes", index, "path"))
    if origin is not None:
        yield "written in", str(origin)
    if route.cors is not None:
        yield "cors", f"pages of {', '.join(route.cors.origins)}"
    demanded = route.auth or gateway.auth_default or ("required" if config.auth else "none")
    yield "auth", demanded
    if route.roles:
        yield "roles", f"any of {', '.join(route.roles)}"
    if route.scopes:
        yield "scopes", f"all of {', '.join(route.scopes)}"
    for limit in config.rate_limits:
        if Pattern.parse(limit.endpoint).matches(path):
            each = {"user": "for each user", "ip": "for each address"}.get(limit.scope, "for all together")
            yield "limit", f"{limit.limit} in {duration_text(limit.window)} {each} ({limit.endpoint})"
    largest = gateway.max_body_size if route.max_body_size == UNSET else route.max_body_size
    yield "body", "of any size" if largest is None else f"up to {size_text(largest)}"
    service = next(service for service in config.services if service.name == route.service)
    yield "service", service.name
    if service.circuit_breaker is not None:
        breaker = service.circuit_breaker
        at_least = f"of at least {breaker.min_requests} in {duration_text(breaker.window)}"
        yield "circuit breaker", f"opens when {breaker.error_rate:.0%} {at_least} have failed"
    for target in service.targets:
        host = f"[{target.host}]" if ":" in target.host else target.host
        weight = f", weight {target.weight}" if target.weight != 1 else ""
        yield "target", f"{target.scheme}://{host}:{target.port}{weight}"
    yield "sent as", _sent(route, path, query)
    yield "timeout", duration_text(route.timeout or service.timeout or gateway.request_timeout)


def _sent(route: Route, path: bytes, query: bytes) -> str:
    prefix = (route.strip_prefix or "").strip("/")
    if prefix:
        path = b"/" + b"/".join(path.split(b"/")[prefix.count("/") + 2 :])
    return (path + query).decode("ascii")


def _reserved(config: Config) -> tuple[str, ...]:
    from apigw.config.check_routes import RESERVED, RESERVED_BY_OAUTH

    return RESERVED + (RESERVED_BY_OAUTH if config.auth is not None and config.auth.oauth is not None else ())


def _warning(problem: Problem) -> str:
    from apigw.config.errors import dotted

    parts = (str(problem.origin) if problem.origin else "", "warning", dotted(problem.path), problem.sentence)
    return ": ".join(part for part in parts if part)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _read_secret() -> str:
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\r\n")
    from getpass import getpass

    secret = getpass("secret: ")
    if getpass("again: ") != secret:
        raise ValueError("the two are not the same")
    return secret
