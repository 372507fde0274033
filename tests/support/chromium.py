"""A headless Chromium that a test looks through, driven by the DevTools protocol."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
from websockets.sync.client import connect

from support.waiting import PATIENCE, eventually

PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

needs_chromium = pytest.mark.skipif(PROGRAM is None, reason="chromium is not installed (Debian: chromium)")

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-extensions", "--disable-dev-shm-usage",
    "--hide-scrollbars", "--window-size=1200,900", "--remote-debugging-port=0",
)  # fmt: skip


class Chromium:
    """One browser with one page. What the page complains of is in ``complaints``."""

    def __init__(self, directory: Path) -> None:
        assert PROGRAM is not None
        self._process = subprocess.Popen(
            [PROGRAM, *FLAGS, f"--user-data-dir={directory}", "about:blank"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.complaints: list[str] = []
        self.dialogs: list[str] = []
        self.asked: list[str] = []
        """Every URL that was fetched."""
        self._number = 0
        self._stack = ExitStack()
        try:
            told = directory / "DevToolsActivePort"
            port = eventually(lambda: told.exists() and told.read_text().split("\n")[0], 60)
            new = Request(f"http://127.0.0.1:{port}/json/new?about:blank", method="PUT")
            with urlopen(new, timeout=PATIENCE) as answer:
                url = json.load(answer)["webSocketDebuggerUrl"]
            self._socket = self._stack.enter_context(connect(url, max_size=None, compression=None, ping_interval=None))
        except BaseException:
            self._process.kill()
            raise
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def __enter__(self) -> Chromium:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(Exception):
            self._stack.close()
        self._process.terminate()
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def call(self, method: str, **parameters: Any) -> Any:
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv(60))
            if message.get("id") == self._number:
                assert "error" not in message, message
                return message["result"]
            self._note(message)

    def open(self, url: str) -> None:
        self.call("Page.navigate", url=url)

    def evaluate(self, expression: str) -> Any:
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def text(self, selector: str) -> str:
        text: str = self.evaluate(f"document.querySelector({json.dumps(selector)})?.innerText ?? ''")
        return text

    def picture(self, file: Path) -> None:
        """Of the whole page, as PNG."""
        found = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        file.write_bytes(base64.b64decode(found["data"]))

    def _note(self, message: dict[str, Any]) -> None:
        what, given = message.get("method"), message.get("params", {})
        if what == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(given["exceptionDetails"]))
        elif what == "Log.entryAdded" and given["entry"]["level"] in ("error", "warning"):
            self.complaints.append(given["entry"]["text"])
        elif what == "Runtime.consoleAPICalled" and given["type"] in ("error", "warning", "assert"):
            self.complaints.append(json.dumps(given["args"]))
        elif what == "Network.requestWillBeSent":
            self.asked.append(given["request"]["url"])
        elif what == "Page.javascriptDialogOpening":
            self.dialogs.append(given["message"])
            self.call("Page.handleJavaScriptDialog", accept=True)
