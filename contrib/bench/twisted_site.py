"""Twisted's own HTTP channels over TLS, HTTP/2 by ALPN, with an answer of its own.

``python -m bench.twisted_site PORT``. The certificate and its key are in the working directory.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

from bench import certificates
from bench.nginx import ANSWER
from bench.programs import HOST, REPOSITORY, Program


def _missing() -> str:
    return "" if find_spec("h2") and find_spec("priority") else "Twisted's HTTP/2 needs h2 and priority"


PROGRAM = Program(
    name="twisted.web",
    executable=sys.executable,
    argv=lambda place: [sys.executable, "-m", "bench.twisted_site", str(place.port)],
    files=lambda _: certificates.files(),
    path=(str(REPOSITORY / "contrib"),),
    missing=_missing,
)


def serve(port: int) -> None:
    """Until it is told to stop."""
    from twisted.internet import reactor
    from twisted.internet.ssl import PrivateCertificate
    from twisted.web.resource import Resource
    from twisted.web.server import Site

    class Answer(Resource):
        isLeaf = True

        def render_GET(self, request: object) -> bytes:
            return ANSWER.encode()

    pair = PrivateCertificate.loadPEM(Path("cert.pem").read_bytes() + Path("key.pem").read_bytes())
    reactor.listenSSL(port, Site(Answer()), pair.options(), 4096, HOST)  # type: ignore[attr-defined]
    reactor.run()


if __name__ == "__main__":
    serve(int(sys.argv[1]))
