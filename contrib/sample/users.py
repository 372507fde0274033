"""A sample service on Twisted: users as JSON, and an echo. ``python users.py PORT``"""

from __future__ import annotations

import json
import sys
from typing import Any
from urllib.parse import unquote

from twisted.internet import endpoints, reactor
from twisted.web.http import Request
from twisted.web.resource import Resource
from twisted.web.server import Site


def answer(request: Request, document: Any, status: int = 200) -> bytes:
    request.setResponseCode(status)
    request.setHeader("content-type", "application/json")
    return json.dumps(document).encode() + b"\n"


def body_of(request: Request) -> bytes:
    return request.content.read() if request.content else b""


class Health(Resource):
    isLeaf = True

    def render_GET(self, request: Request) -> bytes:
        return answer(request, {"status": "ok"})


class Users(Resource):
    """``/users`` and ``/users/ID``. They live in memory."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self._users: list[dict[str, Any]] = [{"id": 1, "name": "Ada"}, {"id": 2, "name": "Grace"}]

    def render_GET(self, request: Request) -> bytes:
        wanted = unquote(request.path.removeprefix(b"/users").removeprefix(b"/"))
        if not wanted:
            return answer(request, self._users)
        for user in self._users:
            if str(user["id"]) == wanted:
                return answer(request, user)
        return answer(request, {"error": f"no user {wanted}"}, 404)

    def render_POST(self, request: Request) -> bytes:
        try:
            name = json.loads(body_of(request))["name"]
        except (ValueError, LookupError, TypeError):
            return answer(request, {"error": 'send {"name": …}'}, 400)
        user = {"id": len(self._users) + 1, "name": name}
        self._users.append(user)
        return answer(request, user, 201)


class Echo(Resource):
    """Answers any method with the request as it arrived: what the gateway made of it."""

    isLeaf = True

    def render(self, request: Request) -> bytes:
        headers = {
            name.decode().lower(): b", ".join(values).decode("utf-8", "replace")
            for name, values in request.requestHeaders.getAllRawHeaders()
        }
        body = body_of(request).decode("utf-8", "replace")
        line = f"{request.method.decode()} {request.uri.decode()} {request.clientproto.decode()}"
        return answer(request, {"request": line, "headers": headers, "body": body})


def main(port: int) -> None:
    root = Resource()
    for name, resource in ((b"health", Health()), (b"users", Users()), (b"echo", Echo())):
        root.putChild(name, resource)
    # Twisted's own backlog of 50 is too short for a gateway that opens a hundred connections at once.
    listening = endpoints.TCP4ServerEndpoint(reactor, port, backlog=1024, interface="127.0.0.1").listen(Site(root))
    listening.addErrback(lambda failure: sys.exit(failure.getErrorMessage()))
    reactor.run()


if __name__ == "__main__":
    main(int(sys.argv[1]))
