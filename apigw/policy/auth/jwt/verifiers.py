"""Who is believed: the verifiers of a configuration, each with its keys and its rules."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import frozen

from apigw.config.errors import ConfigError, Problem, problem_at
from apigw.config.forms import name as check_name
from apigw.config.model import Origin, Path
from apigw.policy.auth.authorization import as_demanded
from apigw.policy.auth.jwt.algorithms import ALL, PUBLIC, SECRET
from apigw.policy.auth.jwt.claims import ClaimRules, allowed
from apigw.policy.auth.jwt.jwks import KeySet, Source
from apigw.policy.auth.jwt.keys import KeyProblem, Keys, apart, configured_key, key_set, read_file
from apigw.policy.auth.jwt.model import JWTVerifier
from apigw.policy.auth.jwt.own import ACCESS_TOKEN_TYPES, PROVIDER, OwnTokens


@frozen(eq=False)
class Verifier:
    """One set of keys, one set of rules.

    Where the configuration itself names the keys, ``key_ids`` are their ids. ``typ`` is what the header's must be, in
    lower case and without ``application/``.
    """

    rules: ClaimRules
    algorithms: frozenset[str]
    keys: Keys | KeySet
    key_ids: frozenset[str | None] = frozenset()
    typ: frozenset[str] = frozenset()

    def apart_from(self, other: Verifier) -> bool:
        """Whether no token could be meant for both: by its algorithm, its issuer, or the ids of their keys."""
        if self.algorithms.isdisjoint(other.algorithms):
            return True
        return apart(self.rules.issuer, self.key_ids, other.rules.issuer, other.key_ids)

    def same_as(self, other: Verifier) -> bool:
        """Whether both accept the same tokens, and say the same of them."""
        mine, others = self.keys, other.keys
        same_keys = mine.same_as(others) if isinstance(mine, Keys) and isinstance(others, Keys) else mine is others
        rules: object = self.rules  # attrs compares it by value, but to mypyc it would be equal to itself alone
        same_claims = repr(self.rules.claims) == repr(other.rules.claims)  # 1 and true are equal to Python
        same = same_keys and same_claims and rules == other.rules and self.algorithms == other.algorithms
        return same and self.key_ids == other.key_ids and self.typ == other.typ


def verifiers(
    configured: tuple[JWTVerifier, ...],
    key_sets: Mapping[Source, KeySet],
    own: OwnTokens | None,
    origins: Mapping[Path, Origin],
) -> list[Verifier]:
    """Raises ``ConfigError`` for unusable keys, and where two could accept the same token."""
    found: list[Verifier] = []
    problems: list[Problem] = []
    names = {PROVIDER} if own is not None else set[str]()

    def problem(sentence: str, *path: str | int) -> None:
        problems.append(problem_at(origins, ("auth", *path), sentence))

    if own is not None:
        rules = ClaimRules(PROVIDER, own.issuer, frozenset(own.audience))
        ids = frozenset(own.keys.named)
        found.append(Verifier(rules, frozenset({own.algorithm}), own.keys, ids, ACCESS_TOKEN_TYPES))
    for index, jwt in enumerate(configured):
        try:
            check_name(jwt.name)
        except ValueError as error:
            problem(f"{jwt.name!r} {error}", "jwt", index, "name")
        if jwt.name in names:
            sentence = f"{jwt.name!r} is another provider's name, so their users could not be told apart"
            problem(sentence, "jwt", index, "name")
        names.add(jwt.name)
        unknown = [each for each in jwt.algorithm if each not in ALL]
        if unknown:
            problem(f"{unknown[0]!r} is not one of {', '.join(ALL)}", "jwt", index, "algorithm")
            continue
        try:
            keys = _keys(jwt, key_sets)
        except KeyProblem as error:
            problem(str(error), "jwt", index, error.field)
            continue
        verifier = _verifier(jwt, keys)
        if not all(map(verifier.apart_from, found)):
            problem("could accept the same tokens as another: give each its own issuer", "jwt", index)
        found.append(verifier)
    if problems:
        raise ConfigError(problems)
    return found


def _verifier(jwt: JWTVerifier, keys: Keys | KeySet) -> Verifier:
    rules = ClaimRules(
        jwt.name,
        jwt.issuer,
        frozenset(jwt.audience),
        jwt.leeway,
        jwt.user_claim,
        jwt.roles_claim,
        as_demanded(jwt.claims),
        allowed(jwt.roles_allowed),
    )
    one_key = isinstance(keys, Keys) and jwt.jwks_file is None and jwt.key_id is not None
    ids: frozenset[str | None] = frozenset({jwt.key_id} if one_key else ())
    typ = frozenset() if jwt.token_type is None else frozenset({jwt.token_type.lower().removeprefix("application/")})
    return Verifier(rules, frozenset(jwt.algorithm or PUBLIC), keys, ids, typ)


def source_of(jwt: JWTVerifier) -> Source | None:
    """Where the verifier's keys are fetched, if they are."""
    if jwt.openid and jwt.issuer is not None:
        return Source(jwt.issuer, openid=True)
    return None if jwt.jwks_url is None else Source(jwt.jwks_url)


def _keys(jwt: JWTVerifier, key_sets: Mapping[Source, KeySet]) -> Keys | KeySet:
    """The keys of one verifier. Raises ``KeyProblem``."""
    source = source_of(jwt)
    if source is not None:
        if SECRET in jwt.algorithm:
            raise KeyProblem("jwks_url", "does not fit HS256: a secret must not be published")
        return key_sets[source]
    if jwt.jwks_file is not None:
        try:
            return key_set(read_file("jwks_file", jwt.jwks_file), jwt.algorithm or PUBLIC)
        except KeyProblem:
            raise
        except ValueError as error:
            raise KeyProblem("jwks_file", f"{jwt.jwks_file!r} {error}") from None
    if not jwt.algorithm:
        raise KeyProblem("algorithm", "is missing: only a key set says by itself what its keys are for")
    return Keys.of([configured_key(jwt.algorithm, jwt.key_id, jwt.public_key_file, jwt.secret)])
