"""Authentication as a policy: what it does with one configuration after the other, and at the end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from support.parts import context_of
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from apigw.config.model import Config
from apigw.contract.policy import Prepared
from apigw.policy.auth.jwt.model import JWTVerifier
from apigw.policy.auth.model import Auth, AuthSection
from apigw.policy.auth.policy import AuthPolicy, PreparedAuth
from apigw.process.pieces import at_once

from .jwt.test_jwks import document, jwk


class Scene:
    """The policy over a clock, and what it fetches."""

    def __init__(self) -> None:
        self.clock: Any = Clock()
        self.fetched: list[str] = []
        self.silent = False
        self.cancelled = 0
        self.policy = AuthPolicy(context_of(Config(), reactor=self.clock, fetch=lambda limit: self.fetch))
        self.prepared: PreparedAuth | None = None

    async def fetch(self, url: str) -> tuple[bytes, dict[str, str]]:
        self.fetched.append(url)
        if self.silent:
            answer: Deferred[None] = Deferred(lambda _: setattr(self, "cancelled", self.cancelled + 1))
            await answer
        return document(jwk("a")), {}

    def prepare(self, config: Config) -> PreparedAuth:
        return at_once(self.policy.prepare(config, self.prepared, {"oauth": Prepared()}))

    def use(self, *urls: str) -> None:
        verifiers = tuple(JWTVerifier(f"v{index}", "RS256", jwks_url=url, issuer=url) for index, url in enumerate(urls))
        section = AuthSection(Auth(verifiers) if urls else None)
        config = Config(added=(section,))
        prepared = self.prepare(config)
        prepared.adopt(self.prepared)
        self.prepared = prepared


@pytest.mark.parametrize("end", [lambda scene: scene.policy.stop(), lambda scene: scene.use()], ids=["end", "reload"])
def test_key_sets_end_with_the_program_and_with_their_configuration(end: Callable[[Scene], object]) -> None:
    """Nothing is fetched any more; a fetch that nobody waits for is given up, and leaves no timer."""
    scene = Scene()
    scene.use("https://one", "https://two")
    assert sorted(scene.fetched) == ["https://one", "https://two"]
    scene.silent = True
    scene.clock.advance(480)
    assert len(scene.fetched) == 4
    end(scene)
    assert scene.cancelled == 2
    assert scene.clock.getDelayedCalls() == []
    scene.clock.advance(10_000)
    assert len(scene.fetched) == 4


def test_a_key_set_goes_from_one_configuration_to_the_next() -> None:
    """What stays is not fetched again; what is used again after it had gone is."""
    scene = Scene()
    scene.use("https://one")
    scene.use("https://one", "https://two")
    assert scene.fetched == ["https://one", "https://two"]
    scene.use("https://two")
    scene.use("https://two", "https://one")
    assert scene.fetched == ["https://one", "https://two", "https://one"]
    scene.policy.stop()
    scene.policy.stop()
    assert scene.clock.getDelayedCalls() == []


def test_a_policy_that_was_never_used_ends() -> None:
    """As in a start that failed."""
    scene = Scene()
    scene.policy.stop()
    assert scene.clock.getDelayedCalls() == []
