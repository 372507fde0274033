"""The daemon's own log never holds up a request."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

from support.client import Client
from support.daemon import TWISTD, Daemon, gateway
from support.services import Service
from support.waiting import eventually


def test_standard_output_that_nobody_reads(service: Service, tmp_path: Path) -> None:
    """The gateway serves on, counts what is lost, and stops when it is told to; who reads again is told how much."""
    daemon = Daemon(tmp_path / "etc")
    admin, public = tmp_path / "admin", tmp_path / "public"
    settings = {"listen": [f"unix:{public}"], "admin": f"unix:{admin}"}
    daemon.configure(gateway(services={"main": service.url}, routes=[{"path": "/*", "service": "main"}], **settings))
    reader, writer = os.pipe()
    command = [TWISTD, "-n", "--pidfile=", "apigw", "--config", str(daemon.directory), "--log-decisions"]
    process = subprocess.Popen(command, stdout=writer, stderr=writer)
    os.close(writer)
    try:
        eventually(lambda: Client(str(public)).get("/health").status == 200)
        with Client(str(public)) as client:
            for _ in range(400):
                assert client.get("/" + "x" * 4000).status == 200
        with Client(str(admin)) as operator:
            metrics = operator.get("/metrics").body.decode()
        sample = metrics.partition('gateway_log_lines_lost_total{log="daemon"} ')[2]
        count = float(sample.split()[0])
        assert count > 10
        received = b""

        def told() -> bool:
            nonlocal received
            received += os.read(reader, 1 << 16)
            return b" lines of this log were lost" in received

        eventually(told, interval=0)
        assert b"%d lines of this log were lost" % count in received
        with Client(str(public)) as client:
            for _ in range(400):
                assert client.get("/" + "x" * 4000).status == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(15) == 0
    finally:
        process.kill()
        process.wait()
        os.close(reader)
