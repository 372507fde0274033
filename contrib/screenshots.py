"""Takes the pictures docs/images/status-page*.png: a gateway with 1,500 routes, some of them busy, in Chromium.

``python contrib/screenshots.py``, in a checkout with ``make .venv/test.installed``, and Debian's chromium. Prints how
long the page takes to show all routes, and how many bytes it asks for in a second.
"""

from __future__ import annotations

import base64
import sys
import tempfile
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from support.chromium import Chromium  # noqa: E402
from support.client import Client  # noqa: E402
from support.daemon import Daemon, gateway  # noqa: E402
from support.services import Received, Service  # noqa: E402
from support.waiting import eventually  # noqa: E402

ROUTES = 1500
BUSY = 12
SIZES = {"status-page": (1280, 1300, False), "status-page-telephone": (390, 1400, True)}


def configured(service: str) -> dict[str, Any]:
    names = ("orders", "users", "stock", "search")
    routes: list[dict[str, Any]] = [
        {"path": f"/{names[number % len(names)]}/v{number // len(names)}/:id", "service": names[number % len(names)]}
        for number in range(ROUTES)
    ]
    targets = {"targets": [service, "http://127.0.0.1:1"]}
    return gateway(services={name: dict(targets) for name in names}, routes=routes)


def behave(received: Received) -> None:
    received.body()
    bad = received.target.startswith("/search/v0") and hash(received.target) % 3 == 0
    received.conversation.answer(503 if bad else 404 if received.target.endswith("00") else 200)


def load(daemon: Daemon, ended: threading.Event) -> None:
    number = 0
    with daemon.connect() as client:
        while not ended.wait(0.004):
            number += 1
            name = ("orders", "users", "stock", "search")[number % 4]
            client.get(f"/{name}/v{number // 4 % (BUSY // 4)}/{number}")


def picture(browser: Chromium, name: str) -> None:
    width, height, telephone = SIZES[name]
    browser.call(
        "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=telephone
    )
    time.sleep(1.5)
    browser.evaluate("window.scrollTo(0, 0)")
    data = browser.call("Page.captureScreenshot", format="png")["data"]
    (ROOT / "docs/images" / f"{name}.png").write_bytes(base64.b64decode(data))


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch, closing(Service()) as service:
        service.behave = behave
        folder = Path(scratch)
        with Daemon(folder / "gateway", configured(service.url)) as daemon, Chromium(folder / "chromium") as browser:
            ended = threading.Event()
            thread = threading.Thread(target=load, args=(daemon, ended))
            thread.start()
            try:
                time.sleep(20)
                host, port = daemon.admin
                began = time.monotonic()
                browser.open(f"http://{host}:{port}/")
                eventually(lambda: browser.text("#count") == str(ROUTES))
                print(f"all {ROUTES} routes are shown after {time.monotonic() - began:.2f} s")
                with Client(daemon.admin) as client:
                    size = len(client.get("/status.json", "Accept-Encoding: gzip").body)
                print(f"{size} bytes a second, compressed")
                browser.evaluate("document.querySelector('#routes button').click()")
                eventually(lambda: "service: " in browser.text("#explanation"))
                for name in SIZES:
                    picture(browser, name)
            finally:
                ended.set()
                thread.join()


if __name__ == "__main__":
    main()
