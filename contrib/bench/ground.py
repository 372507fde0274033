"""Where a check is run: which gateway, on which cores, below which directory."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from attrs import field, frozen

from bench.load import Address
from bench.machine import Cores
from bench.programs import HOST, Document, Place, Running, Variant, start


@frozen
class Ground:
    """``stack`` ends everything that was started. ``say`` reports progress."""

    variant: Variant
    cores: Cores
    directory: Path
    stack: ExitStack = field(repr=False)
    say: Callable[[str], None] = field(repr=False)

    def gateway(
        self, config: Callable[[Place], Document], origins: tuple[int, ...], profile: tuple[str, ...] = ()
    ) -> Running:
        """The gateway on the proxy's core, ready. Raises ``NotStarted``."""
        return start(
            self.variant.program(config, profile=profile), self.cores.proxy, self.directory, self.stack, origins
        )


def address_of(running: Running) -> Address:
    return (HOST, running.port)
