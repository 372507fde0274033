"""A real Prometheus on a port of its own."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import threading
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest


def needs(program: str) -> pytest.MarkDecorator:
    """Skip where ``prometheus`` or ``promtool`` is not installed."""
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"{program} is not installed (Debian: prometheus)")


class Prometheus:
    """Runs in ``directory`` from ``prometheus.yml`` there, with its store in ``data``."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def __enter__(self) -> Prometheus:
        command = ["prometheus", "--config.file=prometheus.yml", "--storage.tsdb.path=data"]
        self._process = subprocess.Popen(
            [*command, "--web.listen-address=127.0.0.1:0", "--log.format=logfmt"],
            cwd=self._directory,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._process.stderr
        log, self._port, ready = [], "", False
        for line in self._process.stderr:
            log.append(line)
            found = re.search(r'msg="Listening on" address=127\.0\.0\.1:(\d+)', line)
            self._port = found[1] if found else self._port
            ready = ready or "Server is ready" in line
            if ready and self._port:  # it says the two in either order
                break
        if not self._port:
            self.__exit__()
            raise AssertionError("".join(log))
        self._drain = threading.Thread(target=self._process.stderr.read, daemon=True)
        self._drain.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(30)

    def query(self, expr: str, at: float | None = None) -> list[dict[str, Any]]:
        """The samples of an instant query; a scalar is one without labels."""
        data = self._get("query", query=expr, **({} if at is None else {"time": at}))
        if data["resultType"] == "scalar":
            return [{"metric": {}, "value": data["result"]}]
        result: list[dict[str, Any]] = data["result"]
        return result

    def value(self, expr: str, at: float | None = None) -> float | None:
        """The first sample's value, if there is one."""
        found = self.query(expr, at)
        return float(found[0]["value"][1]) if found else None

    def _get(self, what: str, **arguments: object) -> Any:
        url = f"http://127.0.0.1:{self._port}/api/v1/{what}?{urlencode(arguments)}"
        with urlopen(url, timeout=30) as answer:
            document = json.load(answer)
        assert document["status"] == "success"
        return document["data"]
