"""``apigw init``: write a small configuration, to begin with."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Mapping
from tempfile import TemporaryDirectory

from apigw.cli.outcome import FOUND, MISUSE, REFUSED
from apigw.config.errors import ConfigError, dotted
from apigw.config.load import load
from apigw.process.rules import RULES

GATEWAY = """\
gateway:
  listen: ["tcp:{port}"]                     # the public port; with :interface=127.0.0.1 for this machine only
  admin: "tcp:9090:interface=127.0.0.1"    # /metrics, /ready and /status for operators; keep it private
  workers: auto                            # a process for each core
  access_log: {{file: "-", format: json}}    # a line for each request, on standard output

# Who may call: verify the tokens of an identity provider. Then every route requires one, unless it says `auth: none`.
# auth:
#   jwt:
#     - name: login
#       issuer: https://id.example.com
#       jwks_url: https://id.example.com/jwks
#       audience: [{service}]

# How much: 100 requests a minute for each address.
# rate_limits:
#   - {{endpoint: "/*", limit: 100, window: 60s, scope: ip}}
"""

SERVICE = """\
services:
  {service}:
    targets: ["{target}"]    # a line for each address; requests are distributed over them
    # health_check: {{path: /health}}           # a target that does not answer gets no requests

routes:
  - path: /*                                  # everything; /orders/:id matches one segment
    service: {service}
"""


_NAME = re.compile("[A-Za-z0-9_-]+")


def init(options: argparse.Namespace) -> int:
    directory = options.directory
    if not _NAME.fullmatch(options.service):
        print("apigw: the name of a service has letters, digits, - and _", file=sys.stderr)
        return MISUSE
    told = {"port": options.port, "service": options.service, "target": options.target}
    files = {
        "gateway.yaml": GATEWAY.format(**told),
        os.path.join("services", f"{options.service}.yaml"): SERVICE.format(**told),
    }
    try:
        with TemporaryDirectory() as trial:
            _write(files, trial)
            load(trial, os.environ, RULES)
        if os.path.isdir(directory) and os.listdir(directory):
            print(f"apigw: {directory} is not empty: nothing was written", file=sys.stderr)
            return REFUSED
        _write(files, directory)
    except ConfigError as error:
        for problem in error.problems:
            parts = ("apigw", dotted(problem.path), problem.sentence.replace(trial, directory), "nothing was written")
            print(": ".join(part for part in parts if part), file=sys.stderr)
        return REFUSED
    except OSError as error:
        print(f"apigw: {error.filename}: {error.strerror}", file=sys.stderr)
        return REFUSED
    for file in files:
        print(f"written: {os.path.join(directory, file)}")
    print(f"Start it with: twistd -n apigw --config {directory}")
    return FOUND


def _write(files: Mapping[str, str], directory: str) -> None:
    os.makedirs(os.path.join(directory, "services"), exist_ok=True)
    for file, content in files.items():
        with open(os.path.join(directory, file), "x", encoding="utf-8") as stream:
            stream.write(content)
