"""A plugin that uses everything that docs/reference/plugins.md promises. It is never changed: a change of the contract
that breaks it breaks the plugins of users."""

from typing import Any, ClassVar

from twisted.internet.defer import Deferred

from apigw.plugin import Busy, Context, FetchFailed, Refusal, View


class Promised:
    name = "promised"
    schema: ClassVar[dict[str, Any]] = {
        "header": {"type": "string", "required": True},
        "greeting": {"type": "string", "default": "hello"},
        "within": {"duration": ["1ms", "1h"], "default": "250ms"},
        "most": {"size": ["1", "1MiB"], "default": "1KiB"},
    }
    position = "after_limit"
    changes_body = True
    own_headers = ("X-Promised",)

    def prepare(self, config: dict[str, Any], context: Context) -> None:
        self.header = config["header"]
        self.greeting = config["greeting"]
        assert (config["within"], config["most"]) == (0.25, 1024)
        self.context = context
        assert context.name
        assert context.directory
        assert context.timeout == 1.0
        assert context.seconds() >= 0
        assert context.now() > 1e9
        assert context.redis is None
        self.requests = context.counter("requests", "Requests.", ["method"])
        self.open = context.gauge("open", "Exchanges.")
        self.sizes = context.histogram("sizes", "Bytes.", buckets=(1, 10))
        self.ended: list[int] = []
        self.life: list[str] = []

    def start(self) -> None:
        self.life.append("start")
        self.context.log.info("started with {header}", header=self.header)

    async def stop(self) -> None:
        self.life.append("stop")

    async def on_request(self, view: View) -> Any:
        self.requests.labels(view.method).inc()
        self.open.inc()
        view.state["began"] = self.context.seconds()
        assert view.context is self.context
        assert view.id
        assert view.host == "gateway.test"
        assert view.scheme == "http"
        assert view.client
        assert view.pattern == "/things/:thing/*"
        assert view.route
        assert view.caller is None
        if "refuse" in view.query:
            raise Refusal(422, "no", "not_so", {"X-Why": "because"})
        if "answer" in view.query:
            return view.respond(201, {"X-Made": "here"}, "made")
        if "body" in view.query:
            body = await view.read_body(1000)
            self.sizes.observe(len(body))
            view.replace_body(body.upper())
        if "pass" in view.query:
            view.pass_body()
        if "wait" in view.query:
            waited: Deferred[None] = Deferred()
            self.context.later(0.1, waited.callback, None)
            await waited
        if "thread" in view.query:
            view.request.set("X-Sum", str(await self.context.in_thread(sum, [1, 2, 3])))
        if "fetch" in view.query:
            try:
                fetched = await self.context.fetch(
                    "POST", view.query["fetch"][0], {"X-A": "b"}, json={"a": 1}, timeout=1.0
                )
                view.request.set("X-Fetched", f"{fetched.status} {fetched.json()['body']}")
                assert fetched.headers["content-type"] == "application/json"
                assert fetched.text.encode() == fetched.body
            except (FetchFailed, Busy) as error:
                view.request.set("X-Fetched", type(error).__name__)
        view.request.set(self.header, f"{view.parameters['thing']}/{view.parameters['rest']}")
        view.request.set("X-Promised", view.query_string)
        view.request.add("X-Several", "1")
        view.request.add("X-Several", b"2")
        view.request.remove("X-Unwanted")
        assert view.request.get("x-several") == "1"
        assert view.request.all("X-SEVERAL") == ["1", "2"]
        assert "x-several" in view.request
        assert ("x-several", "2") in view.request.items()
        view.log.info("{path} was seen", path=view.path)
        return None

    def on_forward(self, view: View) -> None:
        assert view.service == "main"
        if "rewrite" in view.query:
            view.rewrite(path="/elsewhere", host="inner.example")

    def on_request_body(self, view: View, data: bytes, last: bool) -> bytes | None:
        return data + b"!" if last else None

    def on_answer(self, view: View) -> None:
        assert view.answer.own == (view.answer.status > 200)
        view.answer.set("X-Greeting", self.greeting)
        view.answer.add("X-Greeting", b"again")
        view.answer.remove("Server")
        assert "x-greeting" in view.answer
        assert view.answer.get("X-Greeting") == self.greeting
        assert len(view.answer.all("X-Greeting")) == 2
        assert ("x-greeting", "again") in view.answer.items()
        if "pass" in view.query:
            view.pass_body()

    async def on_answer_body(self, view: View, data: bytes, last: bool) -> bytes:
        return data + (b"?" if last else b"")

    def on_end(self, view: View) -> None:
        self.open.dec()
        self.ended.append(view.answer.status)


class Choosing:
    """Chooses by a header among the services of a split, and among the targets of a service."""

    name = "choosing"
    schema: ClassVar[dict[str, Any]] = {}

    def choose_service(self, view: View, services: Any) -> str | None:
        return next((name for name in services if name == view.request.get("X-Service")), None)

    def choose_target(self, view: View, targets: Any) -> str | None:
        wanted = view.request.get("X-Target")
        return next((name for name in targets if name.endswith(f":{wanted}")), None)
