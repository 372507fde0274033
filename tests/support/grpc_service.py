"""A gRPC server of grpcio, whose messages are plain bytes, and a client for it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

from support.client import Address

HEALTH = "/grpc.health.v1.Health/Check"
SERVING, NOT_SERVING = b"\x08\x01", b"\x08\x02"


class GrpcService:
    """Listens on ``port`` until ``stop``. ``seen`` has the metadata of each call but those of health checks."""

    def __init__(self, port: int = 0, credentials: grpc.ServerCredentials | None = None) -> None:
        self.seen: list[dict[str, str | bytes]] = []
        self.health = SERVING
        self.health_checks: list[bytes] = []
        self.hangs = threading.Event()
        self.slow = 0
        self.release = threading.Event()
        self.cancelled = threading.Event()
        self.sent = 0
        self.name = ""
        # so_reuseport off: two servers of a test must not share a port.
        options = [("grpc.so_reuseport", 0)]
        self._server = grpc.server(ThreadPoolExecutor(32), options=options)
        self._server.add_generic_rpc_handlers((_Methods(self),))
        address = f"127.0.0.1:{port}"
        if credentials is None:
            self.port = self._server.add_insecure_port(address)
        else:
            self.port = self._server.add_secure_port(address, credentials)
        self._server.start()

    def url(self, scheme: str = "http", host: str = "127.0.0.1") -> str:
        return f"{scheme}://{host}:{self.port}"

    def stop(self, grace: float | None = None) -> None:
        self._server.stop(grace).wait()

    def rests(self) -> bool:
        """Whether no call has come for a moment."""
        before = len(self.seen)
        time.sleep(0.1)
        return len(self.seen) == before

    # The methods, by the last segment of their paths.

    def Unary(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        context.send_initial_metadata((("x-initial", "first"),))
        context.set_trailing_metadata((("x-trailing", "last"), ("x-binary-bin", b"\0\xff")))
        return b"%b from %b" % (request, self.name.encode()) if self.name else request

    def Remaining(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        remaining = context.time_remaining()
        return b"none" if remaining is None or remaining > 1e6 else b"%f" % remaining

    def Fail(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        code = next(code for code in grpc.StatusCode if code.value[0] == int(request))
        context.abort(code, "as wished: 100 % – ä")
        raise AssertionError

    def Hang(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        ended = threading.Event()
        if context.add_callback(ended.set):  # else it has ended already
            self.hangs.set()
            ended.wait(30)
        self.cancelled.set()
        return b""

    def Slow(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        self.slow += 1
        assert self.release.wait(30)
        return request

    def Upload(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
        return b"%d" % sum(map(len, requests))

    def Download(self, request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        size, times = map(int, request.split())
        for _ in range(times):
            self.sent += 1
            yield b"x" * size

    def Chat(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        for request in requests:
            if request == b"fail":
                context.abort(grpc.StatusCode.ABORTED, "enough")
            yield request.upper()

    def Check(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        self.health_checks.append(request)
        return self.health


class _Methods(grpc.GenericRpcHandler):
    def __init__(self, service: GrpcService) -> None:
        self._service = service

    def service(self, handler_call_details: Any) -> Any:
        name = handler_call_details.method.rpartition("/")[2]
        method: Callable[..., Any] | None = getattr(self._service, name, None)
        if method is None:
            return None
        if name != "Check":
            self._service.seen.append(dict(handler_call_details.invocation_metadata))
        kinds = {"Upload": grpc.stream_unary_rpc_method_handler, "Download": grpc.unary_stream_rpc_method_handler}
        kinds["Chat"] = grpc.stream_stream_rpc_method_handler
        return kinds.get(name, grpc.unary_unary_rpc_method_handler)(method)


class GrpcClient:
    """One channel through a gateway. Raises ``grpc.RpcError``, which has ``code()`` and ``details()``."""

    def __init__(self, address: Address, path: str = "/test.Service", credentials: Any = None) -> None:
        # No proxies of the environment, and no retries of the client's own: what a call returns is the gateway's.
        options = [("grpc.enable_http_proxy", 0), ("grpc.enable_retries", 0), ("grpc.use_local_subchannel_pool", 1)]
        target = f"localhost:{address[1]}" if credentials is not None else f"127.0.0.1:{address[1]}"
        if credentials is None:
            self.channel = grpc.insecure_channel(target, options)
        else:
            self.channel = grpc.secure_channel(target, credentials, options)
        self.path = path

    def __enter__(self) -> GrpcClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.channel.close()

    def of(self, method: str, kind: str = "unary_unary") -> Any:
        """What calls a method, whose messages are bytes."""
        return getattr(self.channel, kind)(f"{self.path}/{method}")

    def unary(self, method: str = "Unary", request: bytes = b"hello", **more: Any) -> Any:
        """The answer; ``more`` are ``timeout`` and ``metadata``."""
        return self.of(method)(request, timeout=more.pop("timeout", 20), **more)

    def download(self, size: int, times: int) -> Any:
        return self.of("Download", "unary_stream")(b"%d %d" % (size, times), timeout=60)

    def upload(self, requests: Iterator[bytes]) -> Any:
        return self.of("Upload", "stream_unary")(requests, timeout=20)

    def chat(self, requests: Iterator[bytes]) -> Any:
        return self.of("Chat", "stream_stream")(requests, timeout=20)


def code_of(call: Callable[[], object]) -> grpc.StatusCode:
    """The status with which it fails."""
    try:
        call()
    except grpc.RpcError as error:
        code: grpc.StatusCode = error.code()
        return code
    return grpc.StatusCode.OK
