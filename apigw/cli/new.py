"""``apigw new plugin NAME``: make a package with a plugin and a test that passes."""

from __future__ import annotations

import argparse
import os
import re
import sys
from importlib.util import find_spec
from keyword import iskeyword

from apigw import __version__
from apigw.cli.outcome import FOUND, REFUSED

_NAME = re.compile(r"[a-z][a-z0-9]*(?:[-_][a-z0-9]+)*").fullmatch

MODULE = """from apigw.plugin import Context, View


class {class_}:
    name = "{name}"
    schema = {{"header": {{"type": "string", "default": "X-{title}"}}}}

    def prepare(self, config: dict, context: Context) -> None:
        self.header = config["header"]

    def on_request(self, view: View) -> None:
        view.request.set(self.header, "hello")
"""

TEST = """from apigw.testing import Reply


async def test_the_service_is_greeted(apigw):
    gateway = apigw(["{module}:{class_}"], services={{"main": Reply(200, {{}}, "fine")}})
    answer = await gateway.request("GET", "/")
    assert answer.text == "fine"
    assert gateway.service.received[-1].get("X-{title}") == "hello"
"""

PROJECT = """[build-system]
requires = ["setuptools>=68"]
build-backend = "setuptools.build_meta"

[project]
name = "{name}"
version = "0.1"
dependencies = ["apigw>={version}"]

[project.optional-dependencies]
test = ["pytest>=8"]

[project.entry-points."apigw.plugins"]
{name} = "{module}:{class_}"

[tool.setuptools]
py-modules = ["{module}"]

[tool.pytest.ini_options]
pythonpath = ["."]
"""

README = """# {name}

A plugin for apigw.

    pip install '.[test]'
    pytest                     # in memory
    pytest --apigw-daemon      # against a daemon

In the gateway's configuration:

    plugins:
      {name}: {{policy: {name}}}
    routes:
      - {{path: /*, service: main, use: [{name}]}}
"""


def new(options: argparse.Namespace) -> int:
    name = options.name
    if not _NAME(name):
        print(f"{name!r} is not a name: lower-case letters, digits, - and _, such as tenant-header", file=sys.stderr)
        return REFUSED
    module = name.replace("-", "_")
    if iskeyword(module) or find_spec(module) is not None:
        print(f"{name}: Python has a module or a word of this name already: choose another", file=sys.stderr)
        return REFUSED
    words = module.split("_")
    told = {
        "name": name,
        "module": module,
        "class_": "".join(word.capitalize() for word in words),
        "title": "-".join(word.capitalize() for word in words),
        "version": __version__,
    }
    files = {f"{module}.py": MODULE, f"test_{module}.py": TEST, "pyproject.toml": PROJECT, "README.md": README}
    try:
        os.mkdir(name)
        for file, text in files.items():
            with open(os.path.join(name, file), "x") as made:
                made.write(text.format(**told))
    except OSError as error:
        print(f"{error.filename}: {error.strerror}", file=sys.stderr)
        return REFUSED
    install = "" if find_spec("pytest") else "pip install pytest && "
    print(f"{name}: made {', '.join(files)}; next: `cd {name} && {install}pytest`")
    return FOUND
