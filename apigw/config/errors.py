"""Every problem of a configuration at once, each with its place."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from attrs import frozen

from apigw.config.model import Config, Origin, Path


def dotted(path: Path) -> str:
    """``("routes", 0, "methods", 1)`` as people write it: ``routes[0].methods[1]``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


@frozen
class Problem:
    """One sentence about one place. ``origin`` is ``None`` for what stands in no file (an empty directory)."""

    sentence: str
    path: Path = ()
    origin: Origin | None = None

    def __str__(self) -> str:
        parts = (str(self.origin) if self.origin else "", dotted(self.path), self.sentence)
        return ": ".join(part for part in parts if part)


class ConfigError(Exception):
    """The configuration cannot be used. ``problems`` are in the order of the files."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))


def problem_at(origins: Mapping[Path, Origin], path: Path, sentence: str) -> Problem:
    """What a later stage finds wrong with ``path``, placed there, or at what holds it where the files leave it out."""
    ancestors = (path[:length] for length in range(len(path), 0, -1))
    return Problem(sentence, path, next((origins[held] for held in ancestors if held in origins), None))


def problem_in(config: Config, path: Path, sentence: str) -> Problem:
    return problem_at(config.origins, path, sentence)
