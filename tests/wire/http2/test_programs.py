"""HTTP/2 against implementations that are not ours, and against bytes that are nobody's."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, ResponseReceived, StreamEnded
from hypothesis import given
from hypothesis import strategies as st
from support.http2_client import Pipe, Recorder, Server, get, hello, post, raw

from apigw.wire.request import Request


def test_the_h2_library_as_client() -> None:
    """An independent implementation, strict about both directions, uploads and downloads a megabyte side by side."""
    size = 1_000_000

    class Echo(Recorder):
        def __init__(self, request: Request) -> None:
            super().__init__()
            self.request = request

        def body_received(self, data: bytes) -> None:
            self.request.write(data)
            self.request.flush()

        def body_finished(self) -> None:
            self.request.finish()

    def on_request(request: Request) -> None:
        request.start(200, [(b"x-size", b"%d" % size), (b"date", b"now")])
        request.listener = Echo(request)
        request.read_body()

    server = Server(on_request=on_request)
    channel = type(server.connect().channel)(server.factory, b"192.0.2.1", False)
    pipe = Pipe()
    channel.makeConnection(pipe)
    client = H2Connection(H2Configuration(client_side=True, header_encoding=None))
    client.initiate_connection()
    left, came = {1: size, 3: size}, {1: 0, 3: 0}
    heads: list[Any] = []
    ended: set[int] = set()
    for number in left:
        client.send_headers(number, post((b"content-length", b"%d" % size)))
    while len(ended) < 2:
        for number, rest in left.items():
            piece = min(rest, client.local_flow_control_window(number), 16_384)
            if rest and piece:
                client.send_data(number, b"x" * piece, end_stream=piece == rest)
                left[number] -= piece
        channel.dataReceived(client.data_to_send())
        for event in client.receive_data(pipe.drain()):
            if isinstance(event, ResponseReceived):
                heads.append(dict(event.headers))
            elif isinstance(event, DataReceived):
                came[event.stream_id] += len(event.data)
                client.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, StreamEnded):
                ended.add(event.stream_id)
    assert came == {1: size, 3: size}
    assert heads == [{b":status": b"200", b"x-size": b"%d" % size, b"date": b"now"}] * 2
    assert not channel.streams


@given(st.binary(max_size=200))
def test_no_bytes_raise(data: bytes) -> None:
    """Whatever bytes follow the preface, the connection answers or ends, and the next one is served."""
    server = Server(on_request=hello)
    client = server.connect()
    client.send_bytes(data)
    client.send_bytes(client.headers(1, get()).serialize() + data)
    other = server.connect()
    other.ask(1, get())
    assert other.answer(1)[2] == b"hello"


@given(
    st.lists(
        st.builds(raw, st.integers(0, 10), st.integers(0, 255), st.sampled_from([0, 1, 3]), st.binary(max_size=20)),
        max_size=20,
    )
)
def test_no_frames_raise(frames: list[bytes]) -> None:
    """Nor do frames that are whole but make no sense together."""
    server = Server(on_request=hello)
    client = server.connect()
    client.send_bytes(b"".join(frames))
    other = server.connect()
    other.ask(1, get())
    assert other.answer(1)[2] == b"hello"


SERVER = """
import socket, sys
from twisted.internet import reactor
from apigw.wire.channel import ChannelFactory, Settings
from apigw.wire.deadlines import Deadlines
from apigw.wire.reactor.ports import serve
from apigw.wire.tls import KeyPair, ServerContexts, TLSFactory

class Echo:
    def __init__(self, request):
        self.request = request
        request.stream.set_producer(self)
    def pauseProducing(self): self.request.pause_body()
    def resumeProducing(self): self.request.resume_body()
    def body_received(self, data):
        self.request.write(data)
        self.request.flush()
    def body_finished(self): self.request.finish()
    def client_failed(self, error): pass

def on_request(request):
    if request.content_length == 0:
        request.respond(200, [(b"content-length", b"60")], b"x" * 60)
    else:
        request.start(200, [])
        request.listener = Echo(request)
        request.read_body()

deadlines = Deadlines(reactor)
deadlines.start()
factory = ChannelFactory(Settings(), deadlines, on_request, lambda *refused: (400, [], b""), lambda: 0.0)
plain = serve(reactor, socket.create_server(("127.0.0.1", 0)), factory)
contexts = ServerContexts([KeyPair(sys.argv[1], sys.argv[1])])
tls = serve(reactor, socket.create_server(("127.0.0.1", 0)), TLSFactory(contexts, factory))
print(plain.getHost().port, tls.getHost().port, flush=True)
reactor.run()
"""


@pytest.fixture(scope="module")
def ports(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """A real server: its plain and its TLS port."""
    pem = tmp_path_factory.mktemp("tls") / "pem"
    pem.write_text(_certificate())
    process = subprocess.Popen([sys.executable, "-c", SERVER, str(pem)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    plain, tls = process.stdout.readline().split()
    yield f"http://127.0.0.1:{plain}", f"https://127.0.0.1:{tls}"
    process.terminate()
    process.wait()
    process.stdout.close()


def _certificate() -> str:
    from datetime import UTC, datetime, timedelta

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, now - timedelta(days=1), now + timedelta(days=1))
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return (secret + builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)).decode()


needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl on PATH")
needs_h2load = pytest.mark.skipif(shutil.which("h2load") is None, reason="needs h2load (nghttp2) on PATH")


@needs_curl
@pytest.mark.parametrize("secure", [False, True], ids=["prior knowledge", "ALPN"])
def test_curl(ports: tuple[str, str], secure: bool, tmp_path: Path) -> None:
    """curl speaks HTTP/2 to us on both kinds of port, and gets back the eight megabytes that it sends."""
    sent, back = tmp_path / "sent", tmp_path / "back"
    sent.write_bytes(bytes(range(256)) * 32_768)
    how = ["-k", "--http2"] if secure else ["--http2-prior-knowledge"]
    command = [
        "curl",
        "-sS",
        *how,
        "-m",
        "20",
        "--data-binary",
        f"@{sent}",
        "-o",
        str(back),
        "-w",
        "%{http_version} %{http_code}",
    ]
    assert subprocess.check_output([*command, ports[secure] + "/a"], text=True) == "2 200"
    assert back.read_bytes() == sent.read_bytes()


@needs_h2load
@pytest.mark.parametrize("secure", [False, True], ids=["plain", "TLS"])
def test_h2load(ports: tuple[str, str], secure: bool) -> None:
    """A thousand requests on four connections, eight at a time: not one fails."""
    report = subprocess.check_output(["h2load", "-c4", "-m8", "-n1000", ports[secure] + "/a"], text=True)
    assert "1000 succeeded, 0 failed, 0 errored" in report
