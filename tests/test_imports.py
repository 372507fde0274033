"""Who may import whom: the table of rooms, held against every import in the program.

Imports for type checkers alone count too: who knows another's types knows the other.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
OF_POLICIES = ("contract", "routing", "shared", "redis", "wire", "ops", "config", "errors")
"""What each policy may import, which is a room of its own."""
OTHER_POLICIES = {
    "denials": ("policy.auth",),
    "limits": ("policy.auth",),
    "oauth": ("policy.auth", "policy.limits"),
    "redirect": ("policy.transform",),
    "respond": ("policy.transform",),
}
"""Those that a policy may import."""
POLICIES = {
    f"policy.{each.parent.name}": OTHER_POLICIES.get(each.parent.name, ()) + OF_POLICIES
    for each in sorted((ROOT / "apigw" / "policy").glob("*/__init__.py"))
}
ROOMS = {
    "errors": (),
    "config": (),
    "ops": ("config", "errors"),
    "wire": (),
    "redis": ("wire", "config", "errors"),
    "shared": (),
    "routing": ("config",),
    "contract": ("routing", "shared", "redis", "wire", "ops", "config", "errors"),
    **POLICIES,
    "policy.all": ("policy", "contract"),
    "plugin": ("policy.plugins", "contract", "wire"),
    "plugins": ("plugin",),
    "upstream": ("shared", "wire", "ops", "config", "errors"),
    "proxy": ("upstream", "contract", "shared", "routing", "wire", "ops", "errors"),
    "process": (
        "proxy",
        "upstream",
        "policy.all",
        "contract",
        "shared",
        "redis",
        "routing",
        "wire",
        "ops",
        "config",
        "errors",
    ),
    "admin.explain": (
        "process",
        "policy.split",
        "policy.transform",
        "contract",
        "routing",
        "wire",
        "config",
        "errors",
    ),
    "admin": ("process", "proxy", "upstream", "contract", "shared", "wire", "ops", "errors"),
    "process.program": (
        "admin",
        "process",
        "proxy",
        "upstream",
        "policy.all",
        "contract",
        "shared",
        "redis",
        "wire",
        "ops",
        "config",
    ),
    "process.trial": ("process", "process.program", "wire", "config"),
    "process.worker": ("process", "process.program", "shared", "config"),
    "process.workers": ("process", "process.worker", "process.trial", "policy.all", "shared", "wire", "config"),
    "cli": (
        "admin.explain",
        "process",
        "process.trial",
        "policy.auth",
        "policy.check",
        "policy.oauth",
        "policy.plugins",
        "policy.tracing",
        "routing",
        "wire",
        "config",
    ),
    "tap": ("process", "wire", "config"),
    "testing": ("process", "upstream", "proxy", "policy.all", "contract", "ops", "wire", "config"),
}
"""What a room may import of the program, besides itself."""


def module_name(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(file): file for file in sorted((ROOT / "apigw").rglob("*.py"))}


def statements(node: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    for child in ast.walk(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child


@cache
def imports(module: str) -> set[str]:
    """The modules of the program that this one imports."""
    found: set[str] = set()
    for statement in statements(ast.parse(MODULES[module].read_text())):
        if isinstance(statement, ast.Import):
            found |= {alias.name for alias in statement.names}
        else:
            assert statement.level == 0, f"{module} has a relative import"
            names = [f"{statement.module}.{alias.name}" for alias in statement.names]
            found |= {name if name in MODULES else str(statement.module) for name in names}
    # The package itself holds nothing but the version.
    return {name for name in found if name in MODULES and name != "apigw"}


def reached(module: str) -> set[str]:
    """What is loaded along with a module."""
    seen: set[str] = set()
    waiting = [module]
    while waiting:
        for name in imports(waiting.pop()) - seen:
            seen.add(name)
            waiting.append(name)
    return seen


def in_room(module: str, room: str) -> bool:
    return f"{module}.".startswith(f"apigw.{room}.")


def room_of(module: str) -> str | None:
    """The narrowest: ``process.program`` and who tries it out stand above the rest of ``process``."""
    return max((room for room in ROOMS if in_room(module, room)), key=len, default=None)


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_keep_to_themselves(room: str) -> None:
    """A room imports only what the table says."""
    known = (room, *ROOMS[room])
    for module in MODULES:
        if room_of(module) == room:
            strangers = {
                name
                for name in imports(module)
                if not any(in_room(name, each) for each in known)
                or (
                    room_of(name) == "process.program"
                    and room not in ("process.program", "process.trial", "process.worker", "tap")
                )
            }
            assert not strangers, f"{module} imports {', '.join(sorted(strangers))}"


def test_every_module_is_in_a_room() -> None:
    """A new module says where it belongs; a package that only holds rooms is empty."""
    for module, file in MODULES.items():
        if room_of(module) is None:
            assert module in ("apigw", "apigw.policy"), module
            assert module == "apigw" or not file.read_text()


def test_only_a_few_modules_lie_loose() -> None:
    """Everything else is in a room, where those who look for it find it."""
    loose = {file.stem for file in (ROOT / "apigw").glob("*.py")}
    assert loose == {"__init__", "errors", "plugin", "tap"}


def test_no_import_runs_in_a_circle() -> None:
    """Whether the program starts depends on which module is imported first."""
    for module in MODULES:
        assert module not in reached(module), f"{module} imports itself by way of others"


def test_errors_import_nothing() -> None:
    """Everyone may import the errors, so they may import nobody."""
    assert imports("apigw.errors") == set()


def test_only_the_roof_touches_the_global_reactor() -> None:
    """A module cannot be tested with a clock of the test's own, or installs a reactor by being imported."""
    for module, file in MODULES.items():
        if module not in ("apigw.tap", "apigw.wire.reactor.epoll"):
            for statement in statements(ast.parse(file.read_text())):
                text = ast.unparse(statement)
                assert text != "from twisted.internet import reactor", module
                assert "twisted.internet.reactor" not in text, module
