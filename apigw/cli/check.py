"""``apigw check``: check whether the gateway would start with a configuration."""

from __future__ import annotations

import argparse
import sys

from twisted.internet.selectreactor import SelectReactor

from apigw.cli.outcome import FOUND, REFUSED, complain, counted, loaded, warning
from apigw.config.errors import ConfigError
from apigw.process.trial import try_out


def check(options: argparse.Namespace) -> int:
    config = loaded(options.directory)
    if config is None:
        return REFUSED
    try:
        try_out(config, options.directory, SelectReactor())  # which never runs, and is nobody else's
    except ConfigError as error:
        complain(options.directory, error)
        return REFUSED
    for each in config.warnings:
        print(warning(each), file=sys.stderr)
    counts = (
        counted(len(config.services), "service"),
        counted(len(config.routes), "route"),
        counted(len(config.warnings), "warning"),
    )
    print(f"{options.directory}: good: {', '.join(counts)}")
    return FOUND
