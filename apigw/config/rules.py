"""What may stand in a configuration besides the core's own keys: the rooms above bring their part."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from attrs import Factory, frozen

from apigw.config.files import Files
from apigw.config.keys import Keys, Rule
from apigw.config.merge import Document
from apigw.config.model import ALWAYS, Config, Route
from apigw.config.problem import Problem
from apigw.config.schema import compose

Form = Callable[[str], object]
"""Raises ``ValueError`` for a text without the form: the end of a sentence that begins with the text."""

Content = Callable[[bytes], object]
"""Raises ``ValueError`` for a file's bytes: the end of a sentence that begins with its name, and quotes none of it."""

Check = Callable[[Document, Files], None]
"""Reports to the document what does not fit together, in what the schema has found sound."""

Refuse = Callable[[Config, Config], Iterable[Problem]]
"""Why a running process that has the first configuration must not go over to the second."""

Told = Callable[[Config, Route, bytes], Iterable[tuple[str, str]]]
"""What a request for a path meets on a route, by name, for ``apigw routes``."""


@frozen
class Reserved:
    """Paths that the gateway answers itself in the configurations for which ``holds``, which ``where`` describes."""

    paths: tuple[str, ...]
    where: str
    holds: Callable[[Document], bool]


@frozen
class Rules:
    """``forms`` and ``contents`` have the names that the schema calls them by, ``called`` what the reference calls a
    form where that is another. ``private`` are the contents that nobody else may read."""

    keys: tuple[Keys, ...] = ()
    forms: Mapping[str, Form] = Factory(dict)
    called: Mapping[str, str] = Factory(dict)
    contents: Mapping[str, Content] = Factory(dict)
    private: frozenset[str] = frozenset()
    checks: tuple[Check, ...] = ()
    reserved: tuple[Reserved, ...] = ()
    refuse: tuple[Refuse, ...] = ()
    told: tuple[Told, ...] = ()

    def __or__(self, other: Rules) -> Rules:
        """Both, and what ``other`` says last."""
        return Rules(
            keys=self.keys + other.keys,
            forms={**self.forms, **other.forms},
            called={**self.called, **other.called},
            contents={**self.contents, **other.contents},
            private=self.private | other.private,
            checks=self.checks + other.checks,
            reserved=self.reserved + other.reserved,
            refuse=self.refuse + other.refuse,
            told=self.told + other.told,
        )

    @property
    def schema(self) -> Rule:
        """The schema of a whole configuration."""
        return compose(self.keys)

    def reserved_paths(self, document: Document) -> tuple[str, ...]:
        """The paths that a gateway with this configuration answers itself, before it looks for a route."""
        return ALWAYS + tuple(path for each in self.reserved if each.holds(document) for path in each.paths)
