"""``make run``: two sample services, the gateway in front of them, and what to try. Ctrl-C ends all of it.

The environment may hold other ports (PORT, TLS_PORT, ADMIN_PORT, USERS_PORT, LIVE_PORT), and RUN_DIR, instead of
``run``, for what is made on the way.
"""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import NoReturn
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from twisted.internet.endpoints import quoteStringArgument

from apigw.policy.auth.secrets import hash_generated, new_secret

ROOT = Path(__file__).resolve().parents[1]
RUN = Path(os.environ.get("RUN_DIR") or ROOT / "run").absolute()
PORTS = {"PORT": 8080, "TLS_PORT": 8443, "ADMIN_PORT": 9090, "USERS_PORT": 9001, "LIVE_PORT": 9002}
READY_WITHIN = 30.0
STOPPED_WITHIN = 10.0

TRY = (
    ("curl -i http://127.0.0.1:{PORT}/api/v1/users", "HTTP/1.1"),
    ("""curl -i -d '{{"name": "Edsger"}}' http://127.0.0.1:{PORT}/api/v1/users""", ""),
    ("curl -i --http2-prior-knowledge http://127.0.0.1:{PORT}/api/v1/users/1", "HTTP/2"),
    ("curl -i --cacert {run}/tls.pem https://localhost:{TLS_PORT}/api/v1/users", "TLS, HTTP/2 by ALPN"),
    ("curl http://127.0.0.1:{PORT}/echo/hello", "the request as the service sees it"),
    (
        "TOKEN=$(curl -su partner:$(cat {run}/partner.secret) -d grant_type=client_credentials "
        "http://127.0.0.1:{PORT}/oauth/token | cut -d'\"' -f4)",
        "a token, good for an hour",
    ),
    ("""curl -i -H "Authorization: Bearer $TOKEN" http://127.0.0.1:{PORT}/partner/users""", "for partners only"),
    ("""curl -H "Authorization: Bearer $TOKEN" http://127.0.0.1:{PORT}/echo/hello""", "with the caller's id"),
    ("curl -N http://127.0.0.1:{PORT}/live/clock", "server-sent events, one a second"),
    ("{python} contrib/sample/say.py ws://127.0.0.1:{PORT}/live/echo hello", "WebSocket"),
    ("curl http://127.0.0.1:{PORT}/nothing/here", "the gateway's own answer"),
    ("curl http://127.0.0.1:{ADMIN_PORT}/ready", "for operators"),
)
WIDTH = 80


def fail(sentence: str) -> NoReturn:
    sys.exit(f"make run: {sentence}")


def read_ports() -> dict[str, int]:
    """From the environment, each free. Ends the program otherwise."""
    ports = {}
    for name, usual in PORTS.items():
        text = os.environ.get(name) or str(usual)
        if not text.isdecimal() or not 0 < int(text) < 65536:
            fail(f"{name}={text} is not a port")
        ports[name] = int(text)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", ports[name]))
            except OSError as error:
                another = f"take another one: make run {name}={ports[name] + 1}"
                fail(f"port {text} cannot be used ({error.strerror}); {another}")
    return ports


def write_private(file: Path, content: bytes) -> None:
    """For nobody else to read, from the first byte on."""
    file.unlink(missing_ok=True)
    with open(file, "xb", opener=lambda path, flags: os.open(path, flags, 0o600)) as out:
        out.write(content)


def write_credentials() -> None:
    """A signing key and a partner's secret, for this run only; of the secret the gateway learns just the hash."""
    signing, secret = rsa.generate_private_key(public_exponent=65537, key_size=2048), new_secret()
    write_private(RUN / "token.key", signing.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    write_private(RUN / "partner.secret", secret.encode())
    os.environ["APIGW_TOKEN_KEY_FILE"] = str(RUN / "token.key")
    os.environ["APIGW_PARTNER_SECRET_HASH"] = hash_generated(secret)


def write_certificate(certificate: Path, key: Path) -> None:
    """A self-signed one for this machine, good for a month."""
    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    addresses = (x509.IPAddress(ip_address(address)) for address in ("127.0.0.1", "::1"))
    names = x509.SubjectAlternativeName([x509.DNSName("localhost"), *addresses])
    begin = datetime.now(UTC) - timedelta(hours=1)
    serial = x509.random_serial_number()
    builder = x509.CertificateBuilder(name, name, private.public_key(), serial, begin, begin + timedelta(days=30))
    signed = builder.add_extension(names, False).sign(private, SHA256())
    write_private(key, private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    certificate.write_bytes(signed.public_bytes(Encoding.PEM))


def start(stack: ExitStack, *command: str) -> subprocess.Popen[bytes]:
    """Start a program in a session of its own, so that Ctrl-C does not reach it but through us: the stack stops it."""
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, start_new_session=True)
    stack.callback(stop, process)
    return process


def stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOPPED_WITHIN)
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        process.kill()
        process.wait()


def wait_until_ready(url: str, processes: dict[str, subprocess.Popen[bytes]]) -> None:
    deadline = time.monotonic() + READY_WITHIN
    answer = "nothing"
    while time.monotonic() < deadline:
        check_alive(processes)
        try:
            with urlopen(url, timeout=5):
                return
        except HTTPError as error:
            answer = error.read().decode("utf-8", "replace").strip()
        except (URLError, OSError):
            pass
        time.sleep(0.1)
    fail(f"the gateway is not ready after {READY_WITHIN:g} s; it says: {answer}")


def check_alive(processes: dict[str, subprocess.Popen[bytes]]) -> None:
    for name, process in processes.items():
        if process.poll() is not None:
            fail(f"{name} ended with exit code {process.returncode}")


def what_to_try(python: Path, ports: dict[str, int]) -> str:
    def shown(path: Path) -> str:
        return shlex.quote(str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path))

    lines = ["", "The gateway is ready. In another terminal:", ""]
    for command, comment in TRY:
        filled = command.format(python=shown(python), run=shown(RUN), **ports)
        lines.append(f"  {filled:{WIDTH}} # {comment}" if comment else f"  {filled}")
    apigw = shown(python.with_name("apigw"))
    reload = f"To apply a change in etc/: {apigw} reload --admin http://127.0.0.1:{ports['ADMIN_PORT']}"
    lines += ["", reload, "Ctrl-C ends everything.", ""]
    return "\n".join(lines)


def main() -> None:
    # A closed terminal and a plain kill end us as Ctrl-C does: through every callback of the stack.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: signal.raise_signal(signal.SIGINT))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    ports = read_ports()
    RUN.mkdir(parents=True, exist_ok=True)
    certificate, key = RUN / "tls.pem", RUN / "tls.key"
    write_certificate(certificate, key)
    os.environ.update({name: str(port) for name, port in ports.items()})
    os.environ["APIGW_LISTEN"] = f"tcp:{ports['PORT']}:interface=127.0.0.1"
    quoted = [quoteStringArgument(str(file)) for file in (certificate, key)]
    files = "certKey={}:privateKey={}".format(*quoted)
    os.environ["APIGW_LISTEN_TLS"] = f"ssl:{ports['TLS_PORT']}:interface=127.0.0.1:{files}"
    os.environ["APIGW_ADMIN"] = f"tcp:{ports['ADMIN_PORT']}:interface=127.0.0.1"
    write_credentials()
    os.environ["APIGW_ISSUER"] = f"http://127.0.0.1:{ports['PORT']}"
    os.environ["APIGW_DRAIN_TIMEOUT"] = "2s"  # an event stream never ends by itself
    python, pidfile = Path(sys.executable), RUN / "apigw.pid"
    twistd = python.with_name("twistd")
    with ExitStack() as stack:
        sample = ROOT / "contrib" / "sample"
        processes = {
            "the service users": start(stack, str(python), str(sample / "users.py"), str(ports["USERS_PORT"])),
            "the service live": start(stack, str(python), str(sample / "live.py"), str(ports["LIVE_PORT"])),
            "the gateway": start(stack, str(twistd), "-n", f"--pidfile={pidfile}", "apigw", "--config", "etc"),
        }
        wait_until_ready(f"http://127.0.0.1:{ports['ADMIN_PORT']}/ready", processes)
        print(what_to_try(python, ports), flush=True)
        while True:
            check_alive(processes)
            time.sleep(0.5)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        print("\nmake run: everything has ended.", flush=True)
