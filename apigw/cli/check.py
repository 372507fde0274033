"""``apigw check``: whether the gateway would start with a configuration."""

from __future__ import annotations

import argparse
import sys

from apigw.cli.outcome import FOUND, REFUSED, counted, loaded, warning


def check(options: argparse.Namespace) -> int:
    config = loaded(options.directory)
    if config is None:
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
