"""``apigw diff``: what a reload would change if the configuration was replaced by another one."""

from __future__ import annotations

import argparse
import os
import sys

from apigw.cli.outcome import FOUND, REFUSED, loaded
from apigw.config.changes import changes
from apigw.config.merge import read
from apigw.config.units import counted
from apigw.process.renewal import needs_restart
from apigw.process.rules import RULES


def diff(options: argparse.Namespace) -> int:
    old, new = loaded(options.config), loaded(options.directory)
    if old is None or new is None:
        return REFUSED
    before, after = (read(each, os.environ, RULES.schema) for each in (options.config, options.directory))
    lines = list(changes(before, after))
    for line in lines:
        print(line)
    # Names of files are relative to the directory: what is written alike would not differ in the place of the other.
    refused = [problem for problem in needs_restart(old, new) if before.get(*problem.path) != after.get(*problem.path)]
    for problem in refused:
        print(problem, file=sys.stderr)
    print(
        f"{options.directory}: {counted(len(lines), 'change')}" + (", which a reload would refuse" if refused else "")
    )
    return REFUSED if refused else FOUND
