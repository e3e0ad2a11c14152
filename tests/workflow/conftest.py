"""One local AWS for all workflow tests; each test makes what it needs under names of its own."""

from __future__ import annotations

import pytest

from local.server import LocalAws


@pytest.fixture(scope="session")
def local_aws(tmp_path_factory):
    """A running `LocalAws` whose first states are short and whose state machines hardly wait."""
    with LocalAws(tmp_path_factory.mktemp("local-aws"), creating_seconds=0.3, wait_scale=0.01) as aws:
        yield aws
