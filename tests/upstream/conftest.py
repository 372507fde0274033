from __future__ import annotations

from collections.abc import Iterator

import pytest

from apigw.shared.page import Page


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    """For two workers, both of which are the test's process; ``become`` tells which it is."""
    page = Page.make(2, 1024 * 1024)
    for worker in (1, 0):
        page.become(worker, worker + 1)
    yield page
