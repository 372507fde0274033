"""``apigw check``: check whether the gateway would start with a configuration."""

from __future__ import annotations

import argparse
import json
import os
import sys

from twisted.internet.selectreactor import SelectReactor

from apigw.cli.outcome import FOUND, REFUSED, complain, problem_as_json, warning
from apigw.config.errors import ConfigError
from apigw.config.load import load
from apigw.config.merge import STDIN
from apigw.config.model import Config
from apigw.config.units import counted
from apigw.process.rules import RULES
from apigw.process.trial import try_out


def check(options: argparse.Namespace) -> int:
    try:
        alone = options.directory == STDIN or os.path.isfile(options.directory)
        config = load(options.directory, os.environ, RULES, alone)
        try_out(config, options.directory, SelectReactor())  # which never runs, and is nobody else's
    except ConfigError as error:
        if options.json:
            print(json.dumps({"good": False, "problems": [*map(problem_as_json, error.problems)], "warnings": []}))
        else:
            complain(options.directory, error)
        return REFUSED
    good = not (options.strict and config.warnings)
    if options.json:
        warnings = [*map(problem_as_json, config.warnings)]
        counts = {"services": len(config.services), "routes": len(config.routes)}
        print(json.dumps({"good": good, "problems": [], "warnings": warnings, **counts}))
    else:
        _tell(options.directory, config, good)
    return FOUND if good else REFUSED


def _tell(directory: str, config: Config, good: bool) -> None:
    for each in config.warnings:
        print(warning(each), file=sys.stderr)
    counts = (
        counted(len(config.services), "service"),
        counted(len(config.routes), "route"),
        counted(len(config.warnings), "warning"),
    )
    verdict = "good" if good else "has warnings, which --strict refuses"
    print(f"{directory}: {verdict}: {', '.join(counts)}", file=sys.stdout if good else sys.stderr)
