"""Reads the files of names and passwords of a configuration."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence

from apigw.config.errors import ConfigError, Problem, problem_at
from apigw.config.files import read
from apigw.config.model import Origin, Path
from apigw.policy.auth.basic.model import BasicProvider
from apigw.policy.auth.basic.users import User, parsing


def users_of(
    configured: Sequence[BasicProvider], origins: Mapping[Path, Origin]
) -> Generator[None, None, dict[str, dict[str, User]]]:
    """The users of each provider, by name, in steps. Raises ``ConfigError``."""
    found: dict[str, dict[str, User]] = {}
    problems: list[Problem] = []
    for index, each in enumerate(configured):
        try:
            found[each.name] = yield from parsing(read(each.file))
        except ValueError as error:
            problems.append(problem_at(origins, ("auth", "basic", index, "file"), f"{each.file!r} {error}"))
    if problems:
        raise ConfigError(problems)
    return found
