"""What may stand in a configuration, as far as the schema leaves it to others: the rooms above bring their part."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from attrs import Factory, frozen

from apigw.config.files import Files
from apigw.config.merge import Document

Form = Callable[[str], object]
"""Raises ``ValueError`` for a text without the form: the end of a sentence that begins with the text."""

Content = Callable[[bytes], object]
"""Raises ``ValueError`` for a file's bytes: the end of a sentence that begins with its name, and quotes none of it."""

Check = Callable[[Document, Files], None]
"""Reports to the document what does not fit together, in what the schema has found sound."""


@frozen
class Rules:
    """``forms`` and ``contents`` have the names that the schema calls them by."""

    forms: Mapping[str, Form] = Factory(dict)
    contents: Mapping[str, Content] = Factory(dict)
    checks: tuple[Check, ...] = ()

    def __or__(self, other: Rules) -> Rules:
        """Both, and the checks of ``other`` last."""
        return Rules({**self.forms, **other.forms}, {**self.contents, **other.contents}, (*self.checks, *other.checks))
