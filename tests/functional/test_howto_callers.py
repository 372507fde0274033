"""How-to pages about who calls: see ``test_howto``."""

from __future__ import annotations

from pathlib import Path

import pytest

from .test_howto import checkout as checkout
from .test_howto import environment, follow, page_of
from .test_howto import running as running
from .test_run import Running


@pytest.mark.parametrize(
    "page", ["api-keys", "external-check", "issue-tokens", "mutual-tls", "verify-tokens", "rotate-keys"]
)
def test_commands_do_what_the_page_shows(page: str, checkout: Path, running: Running) -> None:
    """A reader who types what is printed gets what is printed."""
    follow(checkout, page_of(f"howto/{page}", running), environment(running))
