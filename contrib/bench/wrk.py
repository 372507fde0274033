"""One run of wrk, and what it said."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from bench.result import NoResult, Result

SCRIPT = Path(__file__).with_name("wrk.lua")


def parse(output: str) -> Result:
    """The line that ``wrk.lua`` printed. Raises ``NoResult`` if it is not there."""
    for line in output.splitlines():
        if line.startswith("RESULT "):
            said = json.loads(line.removeprefix("RESULT "))
            return Result(**said)
    raise NoResult(f"wrk printed no result: {output.strip()}")


def argv(
    url: str,
    seconds: int,
    connections: int,
    headers: Iterable[tuple[str, str]] = (),
    authorizations: Path | None = None,
    body: Path | None = None,
) -> list[str]:
    """One thread: the load has one core. ``seconds`` is whole because wrk takes no fractions.

    ``authorizations`` is a file with a value of ``Authorization`` a line, which are sent in turn; ``body`` is one with
    the body of each request, which then is a PUT.
    """
    fields = [f"--header={name}: {value}" for name, value in headers]
    more = ["--", "" if authorizations is None else str(authorizations)] if authorizations or body else []
    more += [] if body is None else [str(body)]
    first = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout=10s", f"--script={SCRIPT}"]
    return [*first, *fields, url, *more]


def run(
    url: str,
    seconds: int,
    connections: int,
    headers: Iterable[tuple[str, str]] = (),
    authorizations: Sequence[str] = (),
    body: bytes = b"",
) -> Result:
    """Load ``url``; blocks for ``seconds``. Raises ``NoResult``."""
    if len(authorizations) == 1:
        headers = (*headers, ("Authorization", authorizations[0]))
    with tempfile.TemporaryDirectory(prefix="bench-wrk-") as directory:
        file = None
        if len(authorizations) > 1:
            file = Path(directory) / "authorizations"
            file.write_text("\n".join(authorizations))
        sent = None
        if body:
            sent = Path(directory) / "body"
            sent.write_bytes(body)
        command = argv(url, seconds, connections, headers, file, sent)
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    return parse(done.stdout + done.stderr)
