"""``python -m apigw.cli.reference`` prints docs/reference/configuration.md, for ``make docs``."""

from __future__ import annotations

import sys

from apigw.config.reference import reference
from apigw.process.rules import RULES

if __name__ == "__main__":
    sys.stdout.write(reference(RULES))
