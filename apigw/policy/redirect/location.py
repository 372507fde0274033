"""The target of a redirect: a path, or a URL whose host no client can choose."""

from __future__ import annotations

import re

from attrs import frozen

from apigw.policy.transform.syntax import Name, Parts, nginxs, parse, sample

_SCHEME = re.compile(r"https?://")
_UNSAFE = re.compile(r"[^\x21-\x7e]|[\"<>\\^`{|}]")
_BROKEN_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_HOST = re.compile(r"(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")
_DOMAIN = re.compile(r"(?:\.[A-Za-z0-9-]+)+(?::[0-9]{1,5})?")
_PORT = re.compile(r":[0-9]{1,5}")


@frozen
class Location:
    """``scheme`` ends in ``://``; it and ``authority`` are empty for a path. ``fragment`` begins with its ``#``."""

    scheme: str
    authority: Parts
    path: Parts
    """With the query, if ``has_query``."""
    has_query: bool
    fragment: str

    @classmethod
    def parse(cls, text: str) -> Location:
        """Raises ``ValueError`` with a sentence fragment that follows the text."""
        nginxs(text, "[0-9]")
        parts = list(parse(text))
        for part in parts:
            if isinstance(part, str) and _UNSAFE.search(part):
                raise ValueError("has characters that must be percent-encoded in a URL")
        if _BROKEN_ESCAPE.search(sample(parts)):
            raise ValueError("has a % that is not followed by two hexadecimal digits")
        first = parts[0] if isinstance(parts[0], str) else ""
        scheme = _SCHEME.match(first)
        authority: Parts = ()
        if scheme is not None:
            parts[0] = first[scheme.end() :]
            authority, parts = _cut(parts, "/?#", Name("path"))
            _check_authority(authority)
        elif not sample(parts).startswith("/"):
            raise ValueError("is neither a path nor a URL that begins with http:// or https://")
        elif first.startswith("//") or (first == "/" and parts[1:2] == [Name("path")]):
            raise ValueError("begins with //, and so a browser would take what follows for a host")
        path, fragment = _cut(parts, "#")
        if any(isinstance(part, Name) for part in fragment):
            raise ValueError("has braces in its fragment (#)")
        has_query = any(isinstance(part, str) and "?" in part for part in path)
        return cls(scheme[0] if scheme else "", authority, path, has_query, "".join(map(str, fragment)))


def _cut(parts: list[str | Name], marks: str, name: Name | None = None) -> tuple[Parts, list[str | Name]]:
    """What comes before the first of ``marks``, or of the ``name``, and the rest."""
    before: list[str | Name] = []
    for number, part in enumerate(parts):
        if part == name:
            return tuple(before), parts[number:]
        if isinstance(part, str):
            at = min((part.find(mark) for mark in marks if mark in part), default=-1)
            if at >= 0:
                kept = [part[:at]] if at else []
                return (*before, *kept), [part[at:], *parts[number + 1 :]]
        if part:
            before.append(part)
    return tuple(before), []


def _check_authority(authority: Parts) -> None:
    *others, last = authority or ("",)
    if not any(isinstance(part, Name) for part in authority):
        if not _HOST.fullmatch("".join(map(str, authority))):
            raise ValueError("has no host, or a malformed one")
        return
    # A host that ends in what a client sends could be any host.
    ends_well = isinstance(last, str) and _DOMAIN.fullmatch(last) is not None
    same_host = authority == (Name("host"),) or (
        others == [Name("host")] and isinstance(last, str) and _PORT.fullmatch(last) is not None
    )
    if not (ends_well or same_host):
        raise ValueError("has a host that a client could choose: it must end in a domain, such as .example.com")


def as_pattern(parts: Parts, own: str) -> str:
    """The pattern of the paths that ``parts`` lead to, without the query, on a route with the pattern ``own``."""
    text = ""
    for part in parts:
        if isinstance(part, Name):
            name = part.text.removeprefix("param.")
            text += own if part.text == "path" else "*" if part.text == "param.rest" else f":{name}"
        else:
            head, mark, _ = part.partition("?")
            text += head
            if mark:
                break
    return text or "/"
