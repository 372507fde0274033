"""Where the gateway that a command asks is: as its arguments say, or ``gateway.admin`` of the configuration.

Nothing else of the configuration is judged. Who asks a gateway need not have the variables and files that it has.
"""

from __future__ import annotations

import argparse
import os
import re

from attrs import evolve

from apigw.cli.admin import Admin
from apigw.cli.outcome import complain
from apigw.config import endpoints
from apigw.config.errors import ConfigError
from apigw.config.merge import Document, read
from apigw.config.model import Gateway
from apigw.process.rules import RULES

_VARIABLE = re.compile(r"\$\{(\w+)")


def admin_of(options: argparse.Namespace) -> Admin:
    """Raises ``ValueError`` where neither the command nor the configuration says where the gateway is."""
    if options.admin is not None:
        return Admin.parse(options.admin)
    document, gateway = _gateway(options.config, "admin", "--admin")
    text = gateway.get("admin", Gateway().admin)
    if not isinstance(text, str):
        return Admin.of_endpoint(None)
    try:
        endpoint = endpoints.parse(text)
    except ValueError as error:
        raise ValueError(f"gateway.admin: {text!r} {error}") from None
    admin = Admin.of_endpoint(endpoint.absolute(document.directory))
    written = document.written.get(("gateway", "admin"), "")
    for name in _VARIABLE.findall(written):
        if name not in os.environ:
            return evolve(admin, doubt=f"; gateway.admin has {name}, which is not set here: give --admin")
    return admin


def token_of(options: argparse.Namespace) -> str:
    """Raises ``ValueError`` where there is none."""
    file = options.token_file
    if file is None:
        document, gateway = _gateway(options.config, "admin_token_file", "--token-file")
        named = gateway.get("admin_token_file")
        file = os.path.join(document.directory, named) if isinstance(named, str) else None
    if file is None:
        raise ValueError("a change needs the admin token: give --token-file, or set gateway.admin_token_file")
    try:
        with open(file, encoding="ascii") as content:
            return content.read().strip()
    except OSError as error:
        raise ValueError(f"the admin token: {file}: {error.strerror}") from None
    except UnicodeDecodeError:  # whose text would have a part of it
        raise ValueError(f"the admin token: {file}: is not ASCII") from None


def _gateway(directory: str, key: str, instead: str) -> tuple[Document, dict[str, object]]:
    """The section ``gateway``, of which ``key`` is wanted. ``instead`` is the option that gives it."""
    document = read(directory, os.environ, RULES.schema)
    gateway = document.tree.get("gateway", {})
    if not document.files or not document.whole or not isinstance(gateway, dict) or ("gateway", key) in document.broken:
        complain(directory, ConfigError(document.in_order(document.problems)))
        raise ValueError(f"gateway.{key} is not known: correct this, or give {instead}")
    return document, gateway
