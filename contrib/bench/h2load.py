"""One run of h2load, which speaks HTTP/2 and HTTP/1.1 over TLS, and what it said."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from attrs import frozen

from bench.result import NoResult, Result, quantile

_COUNTS = re.compile(r"^requests: (\d+) total, .* (\d+) done, (\d+) succeeded, (\d+) failed, (\d+) errored", re.M)
_STATUSES = re.compile(r"^status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", re.M)
_TIME = re.compile(r"^finished in ([\d.]+)(us|ms|s|m)\b", re.M)
_BYTES = re.compile(r"^traffic: \S+ \((\d+)\) total", re.M)
_PROTOCOL = re.compile(r"^Application protocol: (\S+)", re.M)
_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0}


def parse(output: str, durations: Iterable[str], protocol: str) -> Result:
    """What h2load printed, with the lines of its log: start, status and duration in microseconds, separated by tabs.

    Raises ``NoResult`` if it is incomplete, or another protocol than ``protocol`` was agreed on.
    """
    found = [pattern.search(output) for pattern in (_COUNTS, _STATUSES, _TIME, _BYTES, _PROTOCOL)]
    counts, statuses, time, traffic, agreed = found
    if not (counts and statuses and time and traffic and agreed):
        raise NoResult(f"h2load printed no result: {output.strip()[-500:]}")
    if agreed[1] != protocol:
        raise NoResult(f"h2load was to speak {protocol}, and {agreed[1]} was agreed on")
    _, done, _, failed, errored = map(int, counts.groups())
    took = sorted(int(line.split("\t")[2]) / 1e3 for line in durations)
    return Result(
        requests=done,
        bytes=int(traffic[1]),
        seconds=float(time[1]) * _UNITS[time[2]],
        p50=quantile(took, 0.5),
        p95=quantile(took, 0.95),
        p99=quantile(took, 0.99),
        errors={"failed": failed, "errored": errored, "status": sum(map(int, statuses.groups()[1:]))},
    )


@frozen
class H2load:
    """A tool that speaks ``protocol``, with so many ``streams`` at a time on a connection: ``h2`` or ``http/1.1`` over
    TLS, or ``h2c``. With ``data`` each request is a POST of it."""

    protocol: str
    streams: int = 1
    data: bytes = b""

    def argv(
        self, url: str, seconds: int, connections: int, headers: Iterable[tuple[str, str]], log: Path
    ) -> list[str]:
        """One thread: the load has one core."""
        fields = [f"--header={name}: {value}" for name, value in headers]
        spoken = "--no-tls-proto=h2c" if self.protocol == "h2c" else f"--npn-list={self.protocol}"
        size = [f"--clients={connections}", f"--max-concurrent-streams={self.streams}", f"--duration={seconds}"]
        return ["h2load", "--threads=1", spoken, *size, f"--log-file={log}", *fields, url]

    def __call__(
        self,
        url: str,
        seconds: int,
        connections: int,
        headers: Sequence[tuple[str, str]] = (),
        authorizations: Sequence[str] = (),
    ) -> Result:
        """Load ``url``; blocks for ``seconds``. Of ``authorizations`` the first is sent. Raises ``NoResult``."""
        headers = (*headers, *(("Authorization", value) for value in authorizations[:1]))
        with tempfile.TemporaryDirectory(prefix="bench-h2load-") as directory:
            log = Path(directory) / "log"
            command = self.argv(url, seconds, connections, headers, log)
            if self.data:
                body = Path(directory) / "data"
                body.write_bytes(self.data)
                command.insert(1, f"--data={body}")
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            lines = log.read_text().splitlines() if log.exists() else []
        return parse(done.stdout + done.stderr, lines, self.protocol)
