from __future__ import annotations

from collections.abc import Iterator

import pytest

from apigw.shared.page import Page


@pytest.fixture
def page() -> Iterator[Page]:
    """For two workers, the first of which is the test's process."""
    page = Page.make(2, 1024 * 1024)
    page.become(0, 1)
    yield page
    page.close()
