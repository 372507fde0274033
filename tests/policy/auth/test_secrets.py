"""Client secrets: how they are stored, and where they are hashed."""

from __future__ import annotations

import os
import sys
import threading
from typing import Any

import pytest
import pytest_twisted
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, gatherResults

from apigw.errors import Overloaded
from apigw.policy.auth.secrets import (
    HASHING_NICE,
    SecretHash,
    SecretThreads,
    hash_generated,
    hash_secret,
    new_secret,
)

CHOSEN = "correct+horse/battery=staple"


def test_a_stored_secret_matches_itself_alone() -> None:
    """A client's secret is refused, or another one taken."""
    generated = new_secret()
    for secret, stored in ((generated, hash_generated(generated)), (CHOSEN, hash_secret(CHOSEN))):
        assert secret not in stored
        assert "$$" not in stored
        assert "${" not in stored
        parsed = SecretHash.parse(stored)
        assert parsed.matches(secret)
        assert not parsed.matches(secret + "x")
        assert not parsed.matches("")
        assert parsed.digest.hex() not in repr(parsed)
    assert hash_secret(CHOSEN) != hash_secret(CHOSEN)
    assert len({new_secret() for _ in range(10)}) == 10


@pytest.mark.parametrize(
    ("secret", "sentence"),
    [
        ("short", "at least 16"),
        ("x" * 257, "at most 256"),
        ("with spaces in between", "printable ASCII"),
        ("hundred%percent%safe", "printable ASCII"),
        ("gar-nicht-übel-oder", "printable ASCII"),
        ("a-newline-at-the-end\n", "printable ASCII"),
        ("aaaaaaaaaaaaaaaabbbb", "6 different"),
    ],
)
def test_a_poor_secret_is_refused(secret: str, sentence: str) -> None:
    """Somebody protects a partner's access with a secret that can be guessed, or that no client can send."""
    with pytest.raises(ValueError, match=sentence) as caught:
        hash_secret(secret)
    assert secret not in str(caught.value)


SALT, DIGEST = "A" * 22, "A" * 43


@pytest.mark.parametrize(
    "stored",
    [
        "",
        "plain text secret",
        "sha256$abc",
        "sha256$" + "G" * 64,
        "sha256$" + "0" * 64 + "\n",
        "md5$" + "0" * 32,
        f"scrypt$1024$8$1${SALT}${DIGEST}",
        f"scrypt$16384$1$1${SALT}${DIGEST}",
        f"scrypt$16384$8$0${SALT}${DIGEST}",
        f"scrypt$16385$8$1${SALT}${DIGEST}",
        f"scrypt$1048576$8$1${SALT}${DIGEST}",
        f"scrypt$16384$8$9${SALT}${DIGEST}",
        f"scrypt$16384$8$1$AA${DIGEST}",
        f"scrypt$16384$8$1${SALT}$AA",
    ],
)
def test_a_hash_that_is_none_or_weak_is_refused(stored: str) -> None:
    """A plain secret in the configuration, or parameters that cost nothing or a minute, are found out too late."""
    with pytest.raises(ValueError, match=r"is not a hash|too weak or too costly"):
        SecretHash.parse(stored)


@given(st.text(max_size=200))
def test_parsing_never_breaks(stored: str) -> None:
    """A typing error in the configuration becomes a traceback."""
    with pytest.raises(ValueError, match=r"is not a hash|too weak or too costly"):
        SecretHash.parse(stored)


@pytest.mark.skipif(sys.platform != "linux", reason="a thread has a priority of its own on Linux alone")
@pytest_twisted.ensureDeferred
async def test_a_hash_waits_for_the_reactor_and_not_the_reactor_for_it() -> None:
    """On a single core, a flood of wrong secrets takes half of the time from everybody else."""
    threads = SecretThreads(reactor)  # type: ignore[arg-type]
    threads.start()
    try:
        nice = await threads.run(lambda: os.getpriority(os.PRIO_PROCESS, threading.get_native_id()), "a")
        assert nice >= HASHING_NICE
    finally:
        threads.stop()


@pytest_twisted.ensureDeferred
async def test_hashing_happens_in_other_threads_and_few() -> None:
    """A flood of wrong secrets stops the reactor, or takes all memory."""
    threads = SecretThreads(reactor, threads=2, queue=3)  # type: ignore[arg-type]
    threads.start()
    gate = threading.Event()
    idents: set[int] = set()

    def work() -> bool:
        gate.wait(30)
        idents.add(threading.get_ident())
        return True

    try:
        answers = [threads.run(work, f"client{number}") for number in range(5)]
        with pytest.raises(Overloaded) as caught:
            threads.run(work, "another")
        assert caught.value.status == 503
        gone = answers.pop()
        gone.cancel()
        with pytest.raises(CancelledError):
            await gone
        gate.set()
        assert await gatherResults(answers) == [True] * 4
        assert threading.get_ident() not in idents
        assert len(idents) <= 2

        def broken() -> Any:
            raise MemoryError

        with pytest.raises(MemoryError):
            await threads.run(broken, "a")
        assert await threads.run(lambda: 7, "a") == 7
    finally:
        gate.set()
        threads.stop()


@pytest_twisted.ensureDeferred
async def test_no_client_takes_all_places() -> None:
    """Who guesses at one client's secret is told to wait, and others are served meanwhile."""
    threads = SecretThreads(reactor, threads=1, queue=9, each=3)  # type: ignore[arg-type]
    threads.start()
    gate = threading.Event()

    def work() -> bool:
        return gate.wait(30)

    try:
        answers = [threads.run(work, "acme") for _ in range(3)]
        for _ in range(5):
            with pytest.raises(Overloaded):
                threads.run(work, "acme")
        answers += [threads.run(work, id) for id in ("nobody", "choosy") for _ in range(3)]
        gate.set()
        assert await gatherResults(answers) == [True] * 9
        assert await gatherResults([threads.run(work, "acme") for _ in range(3)]) == [True] * 3
        gate.clear()
        answers = [threads.run(work, str(number), "192.0.2.1") for number in range(4)]
        with pytest.raises(Overloaded):
            threads.run(work, "5", "192.0.2.1")
        answers += [threads.run(work, "5", "192.0.2.2"), threads.run(work, "6")]
        gate.set()
        assert await gatherResults(answers) == [True] * 6
        assert await threads.run(work, "7", "192.0.2.1")
    finally:
        gate.set()
        threads.stop()
