"""``apigw show``: print the merged files with the place of each value."""

from __future__ import annotations

import argparse
import os
import sys

from apigw.cli.outcome import FOUND, REFUSED, loaded
from apigw.config import show as shown
from apigw.config.merge import read
from apigw.process.rules import RULES


def show(options: argparse.Namespace) -> int:
    sys.stdout.write(shown.show(read(options.directory, os.environ, RULES.schema)))
    return FOUND if loaded(options.directory) is not None else REFUSED
