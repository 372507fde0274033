"""``apigw show``: print the merged files with the place of each value."""

from __future__ import annotations

import argparse
import json
import os
import sys

from apigw.cli.outcome import FOUND, REFUSED, loaded
from apigw.config import show as shown
from apigw.config.files import Files
from apigw.config.merge import read
from apigw.process.rules import RULES


def show(options: argparse.Namespace) -> int:
    document = read(options.directory, os.environ, RULES.schema)
    for learn in RULES.learns:
        learn(document, Files(document.directory))
    if options.json:
        print(json.dumps({"configuration": shown.values(document), "places": shown.places(document)}, indent=2))
    else:
        sys.stdout.write(shown.show(document))
    return FOUND if loaded(options.directory) is not None else REFUSED
