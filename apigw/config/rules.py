"""The parts of the configuration's definition that other rooms contribute: keys, checks, reserved paths."""

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
"""Raises ``ValueError`` for a wrong text, with a sentence fragment that follows the text."""

Content = Callable[[bytes], object]
"""Raises ``ValueError`` for a wrong content of a file, with a fragment that follows the name and quotes no content."""

ContentByPath = Callable[[str], object]
"""The same for a file that may be too large to be held in memory, by its path."""

Learn = Callable[[Document, Files], None]
"""Completes ``Document.schema`` by what the document names, before it is validated, and reports what cannot be."""

Check = Callable[[Document, Files], None]
"""Reports contradictions between values to the document. Runs after the schema, on values without problems."""

Refuse = Callable[[Config, Config], Iterable[Problem]]
"""The problems for which a reload from the first configuration to the second is refused."""

Told = Callable[[Config, Route, bytes], Iterable[tuple[str, str]]]
"""Lines of ``apigw routes`` for a path on a route: name and value of what the route demands."""

Less = Callable[[Route, Route, bytes], str | None]
"""How the second route demands less than the first, as a fragment that follows its name; ``None`` if it does not. It
takes requests for the path, as sent, which may have been meant for the first."""

Weaker = Callable[[Config], Less]
"""Compares the routes of a configuration."""

Review = Callable[[Config, "Rules"], Iterable[Problem]]
"""Warnings about a whole configuration that has no problems."""

ToldUnmatched = Callable[[Config], Iterable[tuple[str, str]]]
"""What a request meets that matches no route."""


@frozen
class Reserved:
    """Paths that the gateway answers itself if ``holds(document)``; ``where`` says that in words for the reference."""

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
    contents_by_path: Mapping[str, ContentByPath] = Factory(dict)
    private: frozenset[str] = frozenset()
    learns: tuple[Learn, ...] = ()
    checks: tuple[Check, ...] = ()
    reserved: tuple[Reserved, ...] = ()
    refuse: tuple[Refuse, ...] = ()
    told: tuple[Told, ...] = ()
    told_unmatched: tuple[ToldUnmatched, ...] = ()
    weaker: tuple[Weaker, ...] = ()
    reviews: tuple[Review, ...] = ()

    def __or__(self, other: Rules) -> Rules:
        """Both combined; the parts of ``other`` come last."""
        return Rules(
            keys=self.keys + other.keys,
            forms={**self.forms, **other.forms},
            called={**self.called, **other.called},
            contents={**self.contents, **other.contents},
            contents_by_path={**self.contents_by_path, **other.contents_by_path},
            private=self.private | other.private,
            learns=self.learns + other.learns,
            checks=self.checks + other.checks,
            reserved=self.reserved + other.reserved,
            refuse=self.refuse + other.refuse,
            told=self.told + other.told,
            told_unmatched=self.told_unmatched + other.told_unmatched,
            weaker=self.weaker + other.weaker,
            reviews=self.reviews + other.reviews,
        )

    @property
    def schema(self) -> Rule:
        """The schema of a whole configuration."""
        return compose(self.keys)

    def reserved_paths(self, document: Document) -> tuple[str, ...]:
        """The paths that a gateway with this configuration answers itself, before it looks for a route."""
        return ALWAYS + tuple(path for each in self.reserved if each.holds(document) for path in each.paths)
