"""Loads the files of a configuration into one frozen ``Config``, or reports every problem in them."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import evolve

from apigw.config import check_exposure, check_files, check_network, check_retries
from apigw.config.build import build
from apigw.config.errors import ConfigError
from apigw.config.files import CONTENTS, PRIVATE, Files
from apigw.config.forms import FORMS
from apigw.config.merge import Document, read
from apigw.config.model import Config
from apigw.config.rules import Rules
from apigw.config.validate import validate


def load(directory: str, environ: Mapping[str, str], rules: Rules, alone: bool = False) -> Config:
    """The configuration in ``DIR/*.yaml`` and ``DIR/services/*.yaml``, with ``${VAR}`` replaced from ``environ``.

    Reads only these files and those that they name. Raises ``ConfigError`` with every problem of every file. ``rules``
    are those of the other rooms (``process.rules``). ``alone``: see ``merge.read``.
    """
    document = read(directory, environ, rules.schema, alone)
    files = Files(document.directory)
    judge(document, files, Rules(forms=FORMS, contents=CONTENTS, private=PRIVATE) | rules)
    if document.problems:
        raise ConfigError(document.in_order(document.problems))
    config = build(document, files)
    said = [problem for review in rules.reviews for problem in review(config, rules)]
    return evolve(config, warnings=(*config.warnings, *said)) if said else config


def judge(document: Document, files: Files, rules: Rules) -> None:
    """Run all checks, and add every problem to the document."""
    for learn in rules.learns:
        learn(document, files)
    validate(document, rules.forms)
    document.reserved = rules.reserved_paths(document)
    check_files.contents(document, files, rules.contents, rules.private, rules.contents_by_path)
    check_files.pairs(document, files)
    check_files.logs(document, files)
    check_network.listeners(document, files)
    check_network.redis(document)
    check_network.services(document)
    check_retries.retries(document)
    check_exposure.proxies(document)
    check_exposure.announced(document)
    check_exposure.admin(document)
    for check in rules.checks:
        check(document, files)
