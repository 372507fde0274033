"""``apigw schema``: the JSON Schema of the configuration, for editors."""

from __future__ import annotations

import argparse
import json

from apigw.cli.outcome import FOUND
from apigw.config.json_schema import json_schema
from apigw.process.rules import RULES


def schema(options: argparse.Namespace) -> int:
    print(json.dumps(json_schema(RULES.schema), indent=2, ensure_ascii=False))
    return FOUND
