"""The file of names and passwords: ``NAME:HASH`` or ``NAME:HASH:ROLE,ROLE``, a line for each."""

from __future__ import annotations

from collections.abc import Generator

from attrs import frozen

from apigw.policy.auth.jwt.claims import is_name, is_role
from apigw.policy.auth.secrets import SecretHash


@frozen
class User:
    name: str
    hash: SecretHash
    roles: tuple[str, ...] = ()


LINES = 50
"""Lines that are parsed in one step: half a millisecond."""


def parse(data: bytes) -> dict[str, User]:
    """All steps of ``parsing``."""
    steps = parsing(data)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            users: dict[str, User] = end.value
            return users


def parsing(data: bytes) -> Generator[None, None, dict[str, User]]:
    """The users in a file, by name, in steps. Empty lines, and those that begin with ``#``, are ignored.

    Raises ``ValueError`` with a fragment that follows the file's name, and quotes nothing of it.
    """
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise ValueError("is not UTF-8") from None
    users: dict[str, User] = {}
    for number, line in enumerate(text.split("\n"), 1):
        if number % LINES == 0:
            yield
        line = line.removesuffix("\r")
        if line and not line.startswith("#"):
            try:
                user = _parsed(line)
                if user.name in users:
                    raise ValueError("has a name that is there twice")
            except ValueError as error:
                raise ValueError(f"has a line {number} that {error}") from None
            users[user.name] = user
    if not users:
        raise ValueError("has no line NAME:HASH")
    return users


def _parsed(line: str) -> User:
    name, colon, rest = line.partition(":")
    stored, _, roles_text = rest.partition(":")
    if not colon or not is_name(name):
        raise ValueError("is not NAME:HASH or NAME:HASH:ROLE,ROLE")
    roles = tuple(roles_text.split(",")) if roles_text else ()
    if not all(map(is_role, roles)):
        raise ValueError("has a role that is none")
    return User(name, SecretHash.parse(stored), roles)
