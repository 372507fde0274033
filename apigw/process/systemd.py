"""What systemd is told: that the gateway is ready, reloads, stops (sd_notify(3)), and that its reactor runs."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Mapping

from twisted.application.internet import TimerService
from twisted.internet.interfaces import IReactorTime


def notify(state: str) -> None:
    """Send a message to the service manager, if there is one. Errors are ignored."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as to:
        try:
            to.sendto(state.encode("ascii"), address)
        except OSError:
            return


def reloading() -> None:
    """Another configuration, or another program, is about to be used; ``READY=1`` follows."""
    notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")


def expect_within(environ: Mapping[str, str], seconds: float | None = None) -> None:
    """Have the watchdog, if there is one, wait for the next sign of life so long, or None: as long as is configured.

    For what takes long, and is no hang: nothing can be said while another program starts in this process.
    """
    configured = environ.get("WATCHDOG_USEC", "")
    if configured.isdecimal() and int(configured):
        notify(f"WATCHDOG_USEC={configured if seconds is None else int(seconds * 1_000_000)}")


def watchdog(
    clock: IReactorTime, environ: Mapping[str, str], lives: Callable[[], bool] = lambda: True
) -> TimerService | None:
    """Tells the service manager twice in each ``WatchdogSec`` that the reactor runs; a reactor that hangs is restarted.

    It is not told while ``lives`` says no.
    None where there is no watchdog, or where it is another process's (sd_watchdog_enabled(3)).
    """
    interval, process = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID")
    if not interval.isdecimal() or not int(interval) or process not in (None, str(os.getpid())):
        return None
    timer = TimerService(int(interval) / 2_000_000, lambda: notify("WATCHDOG=1") if lives() else None)
    timer.clock = clock
    return timer
