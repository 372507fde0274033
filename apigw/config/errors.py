"""The error of a configuration: all of its problems, each with its place."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from apigw.config.model import Config
from apigw.config.problem import Origin, Path
from apigw.config.problem import Problem as Problem
from apigw.config.problem import dotted as dotted


class ConfigError(Exception):
    """The configuration cannot be used. ``problems`` are in the order of the files."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))


def problem_at(origins: Mapping[Path, Origin], path: Path, sentence: str) -> Problem:
    """A problem with the value at ``path``, placed there, or if the files omit it, at its container."""
    ancestors = (path[:length] for length in range(len(path), 0, -1))
    return Problem(sentence, path, next((origins[held] for held in ancestors if held in origins), None))


def problem_in(config: Config, path: Path, sentence: str) -> Problem:
    return problem_at(config.origins, path, sentence)
