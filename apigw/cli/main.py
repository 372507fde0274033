"""The ``apigw`` script: commands that check and show a configuration, or inspect and reload a running gateway.

The module of a command is imported when the command runs, so that ``apigw -h`` does not load the gateway.
"""

from __future__ import annotations

import argparse
import gc
import os
import re
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from shlex import quote
from typing import NoReturn

from apigw import __version__, is_compiled

Add = Callable[..., argparse.ArgumentParser]
"""Adds a command, and returns its parser."""


_STARTED = "`twistd -n apigw --config DIR` starts the gateway"

_MEANT = {
    **dict.fromkeys(("run", "serve", "server", "start", "up"), _STARTED),
    **dict.fromkeys(("restart", "stop", "quit"), "a gateway stops at SIGTERM, or by Ctrl-C; " + _STARTED),
    **dict.fromkeys(("config", "lint", "parse", "test", "validate", "verify"), "did you mean 'check'?"),
    **dict.fromkeys(("info", "ps", "stats", "status", "top"), "did you mean 'health', 'limits' or 'circuits'?"),
}
"""What others call their commands, and what to say of them."""

_URL = re.compile(r"[A-Za-z]+://(?:[^/?#]*@)?(\[[^]/?#]*\]|[^\[:/?#]*)[^/?#]*(/[^?#]*)?(\?[^#]*)?").match
"""A URL in place of a path: its host, its path and its query."""


class _Parser(argparse.ArgumentParser):
    """Says what an unknown command was probably meant to be, in place of a list of all."""

    def error(self, message: str) -> NoReturn:
        unknown = re.match(r"argument COMMAND: invalid choice: '([^']*)'", message)
        if unknown:
            nearest = import_module("apigw.config.nearest").hint(unknown[1], self.known).removeprefix("; ")
            said = _MEANT.get(unknown[1], nearest) or "`apigw -h` lists them"
            message = f"there is no command {unknown[1]!r}: {said}"
        super().error(message)

    known: Sequence[str] = ()
    """The commands."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code: 0, or 1 if it failed. Wrong arguments exit with 2."""
    if arguments is None:
        gc.disable()  # this process ends soon: there is no time to save memory in
    commands = parser()
    if "_ARGCOMPLETE" in os.environ:  # a shell asks what could come next
        import_module("argcomplete").autocomplete(commands)
    options, rest = commands.parse_known_args(arguments)
    asked = getattr(options, "asked", None)
    if rest and (asked is None or any(each.startswith("-") for each in rest)):
        getattr(options, "command", commands).error(_not_understood(options, rest))
    if asked is not None:
        _understand(options, [*asked, *rest])
    if "run" not in options:
        commands.print_help(sys.stderr)
        commands.exit(2)
    module, function = options.run
    try:
        code: int = getattr(import_module(f"apigw.cli.{module}"), function)(options)
        return code
    except BrokenPipeError:
        # Whoever read us has seen enough. Nothing may be flushed to it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _not_understood(options: argparse.Namespace, rest: Sequence[str]) -> str:
    said = f"unrecognized arguments: {' '.join(rest)}"
    if "config" in options and os.path.isdir(rest[0]):
        if "directory" in options:
            return f"{said}; write {quote(rest[0])} --config {quote(options.directory)}"
        return f"{said}; the configuration is given as --config {rest[0]}"
    if ("directory" in options or "asked" in options) and rest[0].startswith("--config"):
        return f"{said}; the configuration is given by its directory alone, at the end"
    return said


def _understand(options: argparse.Namespace, values: Sequence[str]) -> None:
    """``[METHOD PATH] [DIR]``, which options may stand between. DIR may come first, as with the other commands."""
    error = options.command.error
    if len(values) == 3 and values[1].isupper() and os.path.isdir(values[0]):
        values = [*values[1:], values[0]]
    if len(values) > 3:
        error("more than METHOD, PATH and DIR")
    if len(values) == 1 and values[0].isupper() and not os.path.exists(values[0]):
        error("the following arguments are required: PATH")
    url = _URL(values[1]) if len(values) > 1 else None
    if url:
        target = quote((url[2] or "/") + (url[3] or ""))
        error(f"PATH has no scheme and no host: write {values[0]} {target} --host {url[1] or 'HOST'}")
    if len(values) == 1 and "/" in values[0] and not os.path.exists(values[0]):
        error(f"there is no directory {values[0]}; if it is a path of a request, write METHOD before it")
    options.method, options.path = values[:2] if len(values) > 1 else (None, None)
    options.directory = values[-1] if len(values) in (1, 3) else "etc"


def parser() -> argparse.ArgumentParser:
    whole = _Parser(
        prog="apigw",
        description="Check and show a configuration, or inspect and reload a running gateway. "
        "To start the gateway: twistd -n apigw",
    )
    build = "compiled" if is_compiled() else "plain Python"
    whole.add_argument("--version", action="version", version=f"apigw {__version__}, {build}")
    commands = whole.add_subparsers(metavar="COMMAND", parser_class=argparse.ArgumentParser)

    def add(
        name: str,
        run: tuple[str, str],
        help: str,
        more: str = "",
        directory: bool = True,
        parents: Sequence[argparse.ArgumentParser] = (),
    ) -> argparse.ArgumentParser:
        description = f"{help[0].upper()}{help[1:]}. {more}".strip()
        command = commands.add_parser(name, help=help, description=description, parents=parents)
        command.set_defaults(run=run, command=command)
        if directory:
            command.add_argument(
                "directory", metavar="DIR", nargs="?", default="etc", help="the configuration (default: etc)"
            )
        return command

    _add_for_configurations(add)
    _add_makers(add)
    _add_for_gateways(add)
    add("version", ("main", "version"), "print the version", directory=False)
    whole.known = tuple(commands.choices)
    return whole


def _add_for_configurations(add: Add) -> None:
    """Commands that read a configuration, or begin one."""
    init_parser = add(
        "init",
        ("init", "init"),
        "write a small configuration to begin with, for one service",
        "DIR must be empty, or not exist.",
    )
    init_parser.add_argument("--service", metavar="NAME", default="app", help="its name (default: app)")
    init_parser.add_argument(
        "--target", metavar="URL", default="http://127.0.0.1:9000", help="where it is (default: http://127.0.0.1:9000)"
    )
    init_parser.add_argument("--port", type=int, default=8080, help="the port for clients (default: 8080)")
    check_parser = add(
        "check",
        ("check", "check"),
        "read a configuration and name every problem in it",
        "Exits 0 if the gateway would start with it, else 1. DIR may be one file, or - for standard input.",
    )
    check_parser.add_argument("--json", action="store_true", help="print the outcome as JSON, on standard output")
    check_parser.add_argument("--strict", action="store_true", help="exit with 1 for warnings too")
    routes_parser = add(
        "routes",
        ("routes", "routes"),
        "show which route a request would take, and what the route demands; or all routes",
        "Exits 0 if there is a route or the gateway answers by itself, else 1. Without METHOD and PATH it lists all.",
        directory=False,
    )
    routes_parser.usage = "%(prog)s [-h] [--host HOST] [-H 'NAME: VALUE'] [METHOD PATH] [DIR]"
    routes_parser.add_argument(
        "asked",
        metavar="METHOD PATH DIR",
        nargs="*",
        help="GET, POST …; a path as a client would send it, /api/v1/users/7?all=1; the configuration (default: etc)",
    )
    routes_parser.add_argument("--host", default="", help="the host of the request")
    routes_parser.add_argument(
        "-H",
        "--header",
        metavar="'NAME: VALUE'",
        action="append",
        default=[],
        help="a header of the request, also Host and Cookie; may be repeated",
    )
    show_parser = add(
        "show",
        ("show", "show"),
        "print the merged configuration with the place of each value",
        "Secrets are masked. Exits 1 if it has problems, which are named on standard error.",
    )
    show_parser.add_argument("--json", action="store_true", help="print values and places as JSON")
    diff_parser = add(
        "diff",
        ("diff", "diff"),
        "show what a reload would change if another configuration took the place of this one",
        "Exits 1 if one of them has problems, or a reload would refuse the change.",
        directory=False,
    )
    diff_parser.add_argument("directory", metavar="DIR", help="the other configuration")
    diff_parser.add_argument("--config", metavar="DIR", default="etc", help="this configuration (default: etc)")
    add(
        "doctor",
        ("doctor", "doctor"),
        "show what is wrong or unusual on this machine, for a configuration",
        "Looks at files, ports, certificates, services and Redis, and changes nothing. Exits 1 if it finds anything.",
    )
    add(
        "schema",
        ("schema", "schema"),
        "print the JSON Schema of the configuration, for editors",
        directory=False,
    )
    completion_parser = add(
        "completion",
        ("completion", "completion"),
        "print a script with which a shell completes the commands of apigw",
        'For bash and zsh: eval "$(apigw completion bash)"; for fish: apigw completion fish | source',
        directory=False,
    )
    completion_parser.add_argument("shell", choices=("bash", "zsh", "fish"))
    add(
        "plugins",
        ("plugins", "plugins"),
        "list the plugins of a configuration, with their settings and uses, and those that are installed",
        "Exits 1 if the configuration has problems, which are named on standard error.",
    )


def _add_makers(add: Add) -> None:
    """Commands that make something else: plugins, secrets, keys."""
    new_parser = add(
        "new",
        ("new", "new"),
        "make a package with a plugin and a test that passes, in a new directory",
        directory=False,
    )
    new_parser.add_argument("what", metavar="plugin", choices=("plugin",), help="what to make")
    new_parser.add_argument("name", metavar="NAME", help="its name, and that of the directory: tenant-header")
    hash_parser = add(
        "hash-secret",
        ("secrets", "hash_secret"),
        "hash the secret of an OAuth client, for `secret_hash`",
        "Reads the secret from standard input; on a terminal it asks twice, without echo.",
        directory=False,
    )
    hash_parser.add_argument(
        "--generate",
        action="store_true",
        help="make a random secret (better than a chosen one), and print it with its hash",
    )

    _add_keys(add("keys", ("keys", "keys"), "make, list and revoke API keys", directory=False))


def _seconds(text: str) -> float:
    """A number; or as in the configuration, where it has a unit."""
    try:
        return float(text)
    except ValueError:
        try:
            return float(import_module("apigw.config.units").seconds(text))
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"{text!r} {error}") from None


def _add_for_gateways(add: Add) -> None:
    """Commands for gateways that run."""

    def where(command: argparse.ArgumentParser) -> None:
        command.add_argument(
            "--config", metavar="DIR", default="etc", help="the gateway's configuration (default: etc)"
        )
        command.add_argument(
            "--admin", metavar="URL", help="http://HOST:PORT or unix:PATH (default: gateway.admin of the configuration)"
        )

    asking = argparse.ArgumentParser(add_help=False)
    where(asking)
    asking.add_argument(
        "--json", action="store_true", help="print the answer of the gateway as JSON, instead of a table"
    )
    add(
        "limits",
        ("remote", "limits"),
        "show the rate limits of a running gateway and their counts",
        "Exits 1 if the gateway does not answer.",
        directory=False,
        parents=[asking],
    )
    circuits_parser = add(
        "circuits",
        ("remote", "circuits"),
        "show the circuits and targets of a running gateway, or open and close a circuit by hand",
        "Exits 1 if the gateway does not answer, or refuses the change.",
        directory=False,
        parents=[asking],
    )
    circuits_parser.add_argument(
        "action",
        nargs="?",
        choices=("open", "close", "free"),
        help="open: refuse every request; close: let every request through; free: let the circuit decide again",
    )
    circuits_parser.add_argument("service", metavar="SERVICE", nargs="?", help="the service whose circuit is changed")
    circuits_parser.add_argument(
        "--token-file",
        metavar="FILE",
        help="holds the admin token (default: that of the configuration)",
    )
    health_parser = add(
        "health",
        ("health", "health"),
        "ask a running gateway whether it serves",
        "Exits 1 if it does not, or does not answer. For the health check of a container, give --admin: it is faster.",
        directory=False,
    )
    where(health_parser)
    health_parser.add_argument("--ready", action="store_true", help="ask whether it is ready, too")
    _add_denials(add("deny", ("deny", "deny"), "refuse callers at once, on gateways that run", directory=False), asking)
    reload_parser = add(
        "reload",
        ("reload", "reload"),
        "reload a running gateway and wait for the outcome",
        "Run it where the gateway runs, as its user or root. Exits 1 if the gateway goes on as before, and says why.",
        directory=False,
    )
    upgrade_parser = add(
        "upgrade",
        ("reload", "upgrade"),
        "have a running gateway with several workers execute the program on disk, and wait for the outcome",
        "Run it where the gateway runs, as its user or root. Exits 1 if the gateway goes on as before, and says why.",
        directory=False,
    )
    for changing in (reload_parser, upgrade_parser):
        where(changing)
        changing.add_argument(
            "--timeout", metavar="SECONDS", type=_seconds, default=90.0, help="how long to wait (default: 90)"
        )


def _add_denials(deny: argparse.ArgumentParser, asking: argparse.ArgumentParser) -> None:
    actions = deny.add_subparsers(metavar="ACTION", required=True, dest="action")

    def add(name: str, help: str, value: str, optional: bool = False) -> argparse.ArgumentParser:
        action = actions.add_parser(name, help=help, description=f"{help[0].upper()}{help[1:]}.", parents=[asking])
        if value:
            action.add_argument("value", metavar="VALUE", help=value, nargs="?" if optional else None)
        return action

    secret = "the {}, or sha256: and its hash (default: a line of standard input)"
    adding = [
        add("address", "refuse an address, or a network", "192.0.2.7, 192.0.2.0/24, or likewise of IPv6"),
        add("subject", "refuse a caller, whatever the credential", "the id, as services get it in X-User-ID"),
        add("key", "refuse an API key", secret.format("key"), optional=True),
        add("token", "refuse a bearer token", secret.format("token"), optional=True),
    ]
    add("list", "show who is denied, until when, and why", "")
    remove = actions.add_parser("remove", help="end a denial", description="End a denial.", parents=[asking])
    remove.add_argument("kind", metavar="KIND", choices=("address", "subject", "key", "token"), help="as it was denied")
    remove.add_argument("value", metavar="VALUE", nargs="?", help="as it was denied, or as `list` shows it")
    for each in adding:
        each.add_argument("--for", dest="for_", metavar="TIME", default="1h", help="30m, 1h, 7d (default: 1h)")
        each.add_argument("--reason", metavar="TEXT", default="", help="for who reads the list")
    for each in (adding[1], remove):
        each.add_argument("--provider", metavar="NAME", help="of a subject: only the caller of this provider")
    for each in (*adding, remove):
        each.add_argument(
            "--token-file", metavar="FILE", help="holds the admin token (default: that of the configuration)"
        )


def _add_keys(keys: argparse.ArgumentParser) -> None:
    actions = keys.add_subparsers(metavar="ACTION", required=True, dest="action")

    def add(name: str, help: str) -> argparse.ArgumentParser:
        action = actions.add_parser(name, help=help, description=f"{help[0].upper()}{help[1:]}.")
        action.add_argument("file", metavar="FILE", help="the file of `auth.api_keys`")
        return action

    make = add("make", "make a random key, put its hash into the file, and print the key, which is stored nowhere")
    make.add_argument("id", metavar="ID", help="the caller's id; several keys may have the same")
    make.add_argument("--role", metavar="ROLE", action="append", default=[], help="a role; may be given several times")
    make.add_argument("--scope", metavar="SCOPE", action="append", default=[], help="likewise a scope")
    make.add_argument("--expires", metavar="WHEN", help="90d, 12h, or 2027-01-31T12:00:00Z (default: never)")
    shown = add("list", "show the keys in a file: the beginning of each hash, id, roles, scopes, expiry")
    shown.add_argument("--id", metavar="ID", help="only those of this caller")
    revoke = add("revoke", "take the keys of a caller out of the file")
    revoke.add_argument("id", metavar="ID", help="the caller's id")
    revoke.add_argument("--hash", metavar="HASH", default="", help="only those whose hash begins so (see `list`)")
    add("sort", "bring the lines into order, after the file was put together from others")


def version(options: argparse.Namespace) -> int:
    print(f"apigw {__version__}")
    return 0
