"""Reads the files of names and passwords of a configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from apigw.config.errors import ConfigError, Problem, problem_at
from apigw.config.files import read
from apigw.config.model import Origin, Path
from apigw.policy.auth.basic.model import BasicProvider
from apigw.policy.auth.basic.users import User, parse


def users_of(configured: Sequence[BasicProvider], origins: Mapping[Path, Origin]) -> dict[str, dict[str, User]]:
    """The users of each provider, by name. Raises ``ConfigError``."""
    found: dict[str, dict[str, User]] = {}
    problems: list[Problem] = []
    for index, each in enumerate(configured):
        try:
            found[each.name] = parse(read(each.file))
        except ValueError as error:
            problems.append(problem_at(origins, ("auth", "basic", index, "file"), f"{each.file!r} {error}"))
    if problems:
        raise ConfigError(problems)
    return found
