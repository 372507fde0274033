"""What is imported is declared in setup.py, and what is declared is locked in requirements/."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
SETUP = {
    keyword.arg: keyword.value
    for node in ast.walk(ast.parse((ROOT / "setup.py").read_text()))
    if isinstance(node, ast.Call) and ast.unparse(node.func) == "setup"
    for keyword in node.keywords
}
BUILD = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
RUN: list[str] = ast.literal_eval(SETUP["install_requires"])
EXTRAS: dict[str, list[str]] = ast.literal_eval(SETUP["extras_require"])
LOCKED = {
    "build": BUILD,
    "editable": BUILD[:1],
    "run": RUN,
    **{extra: [*RUN, *declared] for extra, declared in EXTRAS.items()},
}
"""What each file in requirements/ is made of."""

CHOSEN = {
    "twisted": ["apigw.tap", "apigw.process", "apigw.proxy", "apigw.wire"],
    "treq": ["apigw.wire.fetch", "apigw.upstream.checks", "apigw.policy.tracing"],
    "OpenSSL": ["apigw.wire.tls", "apigw.wire.client_tls"],
    "yaml": ["apigw.config.marks"],
    "cerberus": ["apigw.config.validate"],
    "authlib": ["apigw.policy.oauth"],
    "joserfc": ["apigw.policy.auth"],
    "txredisapi": ["apigw.redis"],
    "prometheus_client": ["apigw.ops"],
}
"""The modules, or rooms, in which each chosen package does its work. Who moves a module edits this."""


def names(declared: Iterable[str]) -> set[str]:
    return {canonicalize_name(Requirement(each).name) for each in declared}


@cache
def imported(*places: str) -> list[tuple[str, Path]]:
    """The packages from elsewhere that the modules below these places import, wherever in a module."""
    return list(_imported(places))


def _imported(places: Iterable[str]) -> Iterator[tuple[str, Path]]:
    files = [file for place in places for file in sorted((ROOT / place).rglob("*.py"))]
    ours = {"apigw", "contrib", *(file.stem for file in files), *(file.parent.name for file in files)} - {"twisted"}
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                modules = [str(node.module)]
            for top in {module.partition(".")[0] for module in modules}:
                if top not in ours and top not in sys.stdlib_module_names:
                    yield top, file


@pytest.mark.parametrize(
    ("places", "extras"),
    [
        (("apigw", "twisted"), ("compression", "json-schema")),
        (("tests", "contrib"), ("test", "bench", "hunt")),
    ],
    ids=["program", "tests and contrib"],
)
def test_what_is_imported_is_declared(places: tuple[str, ...], extras: tuple[str, ...]) -> None:
    """Each package that is imported is declared, also where another one happens to bring it."""
    declared = names([*RUN, *(each for extra in extras for each in EXTRAS[extra])])
    distributions = packages_distributions()
    for top, file in imported(*places):
        if (top, file.name) == ("pytest", "pytest_plugin.py"):
            continue  # it is pytest that loads it
        # Namespaces, such as zope, are several packages'.
        brought_by = {canonicalize_name(name) for name in distributions.get(top, [top])}
        assert brought_by & declared, f"{file.relative_to(ROOT)} imports {top}, of {sorted(brought_by)}"


@pytest.mark.parametrize(("package", "room"), [(package, room) for package in CHOSEN for room in CHOSEN[package]])
def test_what_each_chosen_package_does(package: str, room: str) -> None:
    """It is imported where its work is done, so that nothing of ours does it instead."""
    path = room.replace(".", "/")
    files = {file.relative_to(ROOT).as_posix() for top, file in imported("apigw") if top == package}
    assert any(file == f"{path}.py" or file.startswith(f"{path}/") for file in files), files


def lock(name: str) -> dict[str, set[str]]:
    """Version and markers of each package in a file, without their hashes."""
    text = (ROOT / "requirements" / f"{name}.txt").read_text().replace("\\\n", " ")
    found: dict[str, set[str]] = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            requirement, *hashes = re.split(r"\s+--hash=", line.strip())
            assert hashes, f"{line} has no hash"
            assert all(re.fullmatch("sha256:[0-9a-f]{64}", each) for each in hashes)
            found.setdefault(canonicalize_name(Requirement(requirement).name), set()).add(requirement)
    return found


def test_there_is_a_lock_for_everything() -> None:
    """One for each extra, one for the program alone, one for what builds it, one for who has a checkout on the path."""
    assert {file.stem for file in (ROOT / "requirements").glob("*.txt")} == set(LOCKED)


@pytest.mark.parametrize("name", LOCKED)
def test_a_lock_fits_what_is_declared(name: str) -> None:
    """What is locked is within what setup.py declares: else `make lock` was forgotten."""
    locked = lock(name)
    for each in map(Requirement, LOCKED[name]):
        for pinned in locked[canonicalize_name(each.name)]:
            (exactly,) = Requirement(pinned).specifier
            assert exactly.operator == "=="
            assert each.specifier.contains(exactly.version), f"{pinned} is not {each}: make lock"


def test_locks_agree() -> None:
    """Whatever is installed beside what else, a package has one version."""
    everything: dict[str, set[str]] = {}
    for name in LOCKED:
        for package, pinned in lock(name).items():
            assert everything.setdefault(package, pinned) == pinned


def test_locks_name_no_host() -> None:
    """A lock names no index: whoever installs chooses where from."""
    for file in (ROOT / "requirements").iterdir():
        assert "://" not in file.read_text()
