"""Files → one frozen ``Config``, or every problem in them."""

from __future__ import annotations

from collections.abc import Mapping

from apigw.config import check_auth, check_files, check_network, check_routes
from apigw.config.build import build
from apigw.config.errors import ConfigError
from apigw.config.keys import Files
from apigw.config.merge import Document, read
from apigw.config.model import Config
from apigw.config.schema import NOT_BUILT
from apigw.config.validate import refuse_unbuilt, validate


def load(directory: str, environ: Mapping[str, str], not_built: frozenset[str] = NOT_BUILT) -> Config:
    """What ``DIR/*.yaml`` and ``DIR/services/*.yaml`` say, with ``${VAR}`` taken from ``environ``.

    Reads those files and the ones that they name; touches nothing else. Raises ``ConfigError`` with every problem of
    every file. ``not_built`` names the sections that are refused because this version does not have their feature.
    """
    document = read(directory, environ)
    files = Files(document.directory)
    judge(document, files, not_built)
    if document.problems:
        raise ConfigError(document.in_order(document.problems))
    return build(document, files)


def judge(document: Document, files: Files, not_built: frozenset[str] = NOT_BUILT) -> None:
    """Adds every problem to the document."""
    validate(document)
    refuse_unbuilt(document, not_built)
    check_files.contents(document, files)
    check_files.pairs(document, files)
    check_files.access_log(document, files)
    check_network.listeners(document, files)
    check_network.redis(document)
    check_network.services(document)
    check_auth.verifiers(document)
    check_auth.token_endpoint(document, files)
    check_auth.demands(document)
    check_routes.routes(document)
    check_routes.rate_limits(document)
