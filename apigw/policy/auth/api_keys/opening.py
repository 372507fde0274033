"""Opens the files of API keys of a configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from apigw.config.errors import ConfigError, Problem, problem_at
from apigw.config.model import Origin, Path
from apigw.policy.auth.api_keys.keys import Keys, Provider
from apigw.policy.auth.api_keys.model import APIKeys
from apigw.policy.auth.api_keys.search import KeyFile


def by_header(configured: Sequence[APIKeys], origins: Mapping[Path, Origin]) -> list[Keys]:
    """One method for each header, in the order of the configuration. Raises ``ConfigError``."""
    found: dict[str, tuple[str, list[Provider]]] = {}
    problems: list[Problem] = []
    for index, each in enumerate(configured):
        try:
            provider = Provider(each.name, KeyFile(each.file))
        except OSError as error:
            sentence = f"{each.file!r} cannot be read: {error.strerror}"
            problems.append(problem_at(origins, ("auth", "api_keys", index, "file"), sentence))
        else:
            found.setdefault(each.header.lower(), (each.header, []))[1].append(provider)
    if problems:
        raise ConfigError(problems)
    return [Keys(header, providers) for header, providers in found.values()]
