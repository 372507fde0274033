"""Finds and imports the classes of plugins.

``Unloadable`` has a sentence fragment that follows the name of the class as it is written.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Iterator
from hashlib import blake2b
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from attrs import frozen

from apigw.config.nearest import hint

GROUP = "apigw.plugins"
"""The group of entry points by which packages offer plugins."""


class Unloadable(Exception):
    """The class cannot be used."""


@frozen
class Place:
    """Where a class is: in ``module``, or in ``file``, which becomes the module of that name."""

    module: str
    name: str
    file: str | None = None


@frozen
class Code:
    """What a class was loaded from. ``root`` is a package or a file, and ``digest`` of all its Python."""

    root: str
    digest: str


def installed() -> dict[str, list[EntryPoint]]:
    """The plugins that installed packages offer, by their names."""
    found: dict[str, list[EntryPoint]] = {}
    for each in entry_points(group=GROUP):
        found.setdefault(each.name, []).append(each)
    return found


def find(written: str, directory: str) -> Place:
    """The place of a class: ``module:Class``, ``./file.py:Class`` in ``directory``, or an entry point's name."""
    module, colon, name = written.rpartition(":")
    if not colon and written.endswith(".py"):
        raise Unloadable(f"names no class: write {written}:Class")
    if not colon:
        offered = installed().get(written, [])
        if not offered:
            near = hint(written, installed())
            raise Unloadable(f"is no entry point of the group {GROUP} (nor module:Class, nor ./file.py:Class){near}")
        if len({each.value for each in offered}) > 1:
            packages = " and ".join(sorted({each.dist.name if each.dist else each.value for each in offered}))
            raise Unloadable(f"is offered by {packages}: write module:Class")
        return find(offered[0].value.partition("[")[0].strip(), directory)
    if not all(part.isidentifier() for part in name.split(".")):
        raise Unloadable("has no name of a class after its colon")
    if module.endswith(".py"):
        file = os.path.normpath(os.path.join(directory, module))
        digest = blake2b(file.encode(), digest_size=6).hexdigest()
        return Place(f"apigw_plugin_{Path(file).stem.replace('-', '_')}_{digest}", name, file)
    if not all(part.isidentifier() for part in module.split(".")):
        raise Unloadable("is neither module:Class nor ./file.py:Class")
    return Place(module, name)


def is_loaded(place: Place) -> bool:
    return place.module in sys.modules


def load(place: Place) -> Any:
    """Import the class. Raises ``Unloadable``, whatever its module does."""
    found: Any = _module(place)
    for name in place.name.split("."):
        if not hasattr(found, name):
            raise Unloadable(f"has no {place.name} in {place.file or place.module}")
        found = getattr(found, name)
    if not isinstance(found, type):
        raise Unloadable(f"is no class, but {type(found).__name__}")
    return found


def code_of(place: Place) -> Code:
    """What the class is loaded from, as it is on disk now. Raises ``Unloadable`` if it cannot be read."""
    root, files = place.module.partition(".")[0], []
    if place.file is not None:
        root, files = place.file, [Path(place.file)]
    else:
        module = sys.modules.get(root)
        spec = None if module is None else module.__spec__
        where = list(spec.submodule_search_locations or ()) if spec is not None else []
        if where:
            files = sorted(file for folder in where for file in Path(folder).rglob("*.py"))
        elif module is not None and getattr(module, "__file__", None):
            files = [Path(str(module.__file__))]
    digest = blake2b(digest_size=16)
    try:
        for file in files:
            digest.update(blake2b(str(file).encode()).digest() + blake2b(file.read_bytes()).digest())
    except OSError as error:
        raise Unloadable(f"cannot be read: {error.filename}: {error.strerror}") from None
    return Code(root, digest.hexdigest())


def _module(place: Place) -> ModuleType:
    held = sys.modules.get(place.module)
    if held is not None:
        return held
    try:
        if place.file is None:
            return importlib.import_module(place.module)
        return _of_file(place.module, place.file)
    except Unloadable:
        raise
    except BaseException as error:
        if isinstance(error, ModuleNotFoundError) and error.name is not None and _is_of(place.module, error.name):
            raise Unloadable(f"cannot be imported: there is no module {error.name}") from None
        raise Unloadable(f"cannot be imported: {_said(error)}") from None


def _is_of(module: str, missing: str) -> bool:
    return module == missing or module.startswith(f"{missing}.")


def _of_file(name: str, file: str) -> ModuleType:
    if not os.path.isfile(file):
        raise Unloadable(f"cannot be imported: there is no file {file}")
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def text_of(error: BaseException) -> str:
    """What it says, unless it cannot even do that."""
    try:
        return str(error)
    except BaseException as another:
        return f"(its text cannot be read: {type(another).__name__})"


def _said(error: BaseException) -> str:
    """The error, and where it was raised: the last place that is not Python's own machinery of imports."""
    text = "".join(traceback.format_exception_only(error)).strip().splitlines()[-1]
    if isinstance(error, SyntaxError):
        return f"{error.filename}:{error.lineno}: {text}"
    frames = list(_frames(error))
    return f"{frames[-1].filename}:{frames[-1].lineno}: {text}" if frames else text


def _frames(error: BaseException) -> Iterator[traceback.FrameSummary]:
    here = (__file__, importlib.__file__)
    return (
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith("<") and frame.filename not in here
    )
