"""One local AWS for all workflow tests; each test makes what it needs under names of its own. Calls are recorded."""

from __future__ import annotations

import io
import zipfile

import pytest

from cdk_aurora_backup.assets import code_directory
from local.server import LocalAws
from tests import recording


@pytest.fixture(scope="session", autouse=True)
def _recorded():
    """What handlers call through boto3 in this process; `test_what_was_called.py` looks at it last."""
    with recording.of_clients():
        yield


@pytest.fixture(scope="session")
def package() -> bytes:
    """Our code as a function's zip."""
    target, root = io.BytesIO(), code_directory()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as out:
        for path in sorted(root.rglob("*")):
            if path.is_file():
                out.write(path, path.relative_to(root))
    return target.getvalue()


@pytest.fixture(scope="session")
def local_aws(tmp_path_factory):
    """A running `LocalAws` whose first states are short and whose state machines hardly wait."""
    with LocalAws(tmp_path_factory.mktemp("local-aws"), creating_seconds=0.3, wait_scale=0.01) as aws:
        yield aws
