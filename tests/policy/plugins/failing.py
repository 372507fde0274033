"""Plugins that do what no plugin should."""

from __future__ import annotations

import sys
import threading
import time
from functools import partial
from typing import Any, ClassVar

from twisted.internet.defer import Deferred

from apigw.plugin import Context, Refusal, View


class Kept:
    """What was kept beyond an exchange."""

    views: ClassVar[list[View]] = []


class Failing:
    """Does what the query says, in ``on_request``."""

    name = "failing"
    schema: ClassVar[dict[str, Any]] = {}

    def prepare(self, config: Any, context: Context) -> None:
        self.context = context

    def on_request(self, view: View) -> Any:
        view.request.set("X-Before", "1")
        for name in view.query:
            return getattr(self, name)(view)
        return None

    def raises(self, view: View) -> None:
        raise RuntimeError("broken")

    def exits(self, view: View) -> None:
        sys.exit(3)

    def interrupts(self, view: View) -> None:
        raise KeyboardInterrupt

    def recurses(self, view: View) -> None:
        self.recurses(view)

    def text(self, view: View) -> str:
        return "rubbish"

    def number(self, view: View) -> int:
        return 200

    def never(self, view: View) -> Deferred[None]:
        return Deferred()

    async def stubborn(self, view: View) -> None:
        while True:
            try:
                await Deferred()
            except Exception:
                continue

    async def replaces(self, view: View) -> None:
        await view.read_body()
        view.replace_body(b"changed")
        raise RuntimeError("broken")

    def uncancellable(self, view: View) -> Any:
        return Deferred(lambda _: sys.exit(4))

    async def late(self, view: View) -> None:
        waited: Deferred[None] = Deferred()
        self.context.later(0.01, waited.callback, None)
        await waited
        raise RuntimeError("broken")

    async def waits(self, view: View) -> None:
        waited: Deferred[None] = Deferred()
        self.context.later(0.01, partial(self.blocks_then, waited))
        await waited

    def blocks_then(self, waited: Deferred[None]) -> None:
        time.sleep(0.06)  # for which the plugin is not called
        waited.callback(None)

    async def asyncio(self, view: View) -> None:
        class Future:
            def __await__(self) -> Any:
                yield self

        await Future()

    def lines(self, view: View) -> None:
        view.request.set("X-Bad", "a\r\nX-Forged: 1")

    def length(self, view: View) -> None:
        view.request.set("Content-Length", "7")

    def coding(self, view: View) -> None:
        view.request.set("Transfer_Encoding", "chunked")

    def host(self, view: View) -> None:
        view.request.set("Host", "elsewhere")

    def identity(self, view: View) -> None:
        view.request.set("X_User+ID", "admin")

    def status(self, view: View) -> Any:
        return view.respond(99)

    def twice(self, view: View) -> Any:
        view.respond(200)
        return view.respond(201)

    def answers_number(self, view: View) -> Any:
        return view.respond(200, {}, 7)

    def replaces_by_text(self, view: View) -> None:
        view.replace_body("text")  # type: ignore[arg-type]

    def answers_length(self, view: View) -> Any:
        return view.respond(200, {"Content-Length": "99"})

    def path(self, view: View) -> None:
        view.rewrite(path="/a/../b")

    def refusal(self, view: View) -> None:
        raise Refusal(200)

    def early(self, view: View) -> None:
        view.answer.set("X-A", "b")

    def keeps(self, view: View) -> None:
        Kept.views.append(view)

    def thread(self, view: View) -> None:
        said: list[str] = []

        def touch() -> None:
            try:
                view.request.set("X-Thread", "1")
            except RuntimeError as error:
                said.append(str(error))

        run = threading.Thread(target=touch)
        run.start()
        run.join()
        view.request.set("X-Said", said[0])

    def blocks(self, view: View) -> None:
        time.sleep(0.06)

    def floods(self, view: View) -> None:
        for number in range(1000):
            view.log.info("line {number}", number=number)


class Idle:
    name = "idle"
    schema: ClassVar[dict[str, Any]] = {}

    def on_request(self, view: View) -> None: ...


class Answering:
    name = "answering"
    schema: ClassVar[dict[str, Any]] = {}

    def on_answer(self, view: View) -> Any:
        if view.path == "/raises":
            raise RuntimeError("broken")
        if view.path == "/text":
            return "rubbish"
        if view.path == "/lines":
            view.answer.set("X-Bad", "a\nb")
        if view.path == "/request":
            view.request.set("X-Late", "1")
        return None

    def on_end(self, view: View) -> None:
        if view.path == "/ends":
            raise SystemExit


class Body:
    name = "body"
    schema: ClassVar[dict[str, Any]] = {}

    def on_answer_body(self, view: View, data: bytes, last: bool) -> Any:
        if view.path == "/text":
            return "text"
        if view.path == "/raises" and last:
            raise RuntimeError("broken")
        return None
