"""Exit codes of commands, and output of the problems of a configuration."""

from __future__ import annotations

import os
import sys

from apigw.config.errors import ConfigError, Problem, dotted
from apigw.config.load import load
from apigw.config.model import Config
from apigw.config.units import counted
from apigw.process.rules import RULES

FOUND, REFUSED, MISUSE = 0, 1, 2


def loaded(directory: str) -> Config | None:
    """Load the configuration. If it has problems, print them and return ``None``."""
    try:
        return load(directory, os.environ, RULES)
    except ConfigError as error:
        complain(directory, error)
        return None


def complain(directory: str, error: ConfigError) -> None:
    print(error, file=sys.stderr)
    print(f"{directory}: {counted(len(error.problems), 'problem')}", file=sys.stderr)


def warning(problem: Problem) -> str:
    parts = (str(problem.origin) if problem.origin else "", "warning", dotted(problem.path), problem.sentence)
    return ": ".join(part for part in parts if part)


def problem_as_json(problem: Problem) -> dict[str, object]:
    """``file``, ``line`` and ``column`` are null where the problem has no place."""
    origin = problem.origin
    return {
        "file": origin and origin.file,
        "line": origin and origin.line,
        "column": origin and origin.column,
        "path": dotted(problem.path),
        "sentence": problem.sentence,
    }
