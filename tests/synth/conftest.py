"""Templates that several tests read are synthesised once; PostgreSQL's wheel is a stand-in: nothing is downloaded."""

from __future__ import annotations

import zipfile

import pytest
from cdk_nag import AwsSolutionsChecks, HIPAASecurityChecks, NIST80053R5Checks, PCIDSS321Checks

from cdk_aurora_backup import assets
from tests.synth.synthesis import Synthesised, deployable


@pytest.fixture(scope="session", autouse=True)
def _no_download(tmp_path_factory):
    """`test_assets.py` reads the real wheels; everywhere else a tiny one takes their place."""
    wheel = tmp_path_factory.mktemp("wheel") / "stand-in.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name in ("pg_dump", "pg_restore"):
            archive.writestr(zipfile.ZipInfo(f"package/pginstall/bin/{name}"), f"stands in for {name}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(assets, "_download", lambda _wheel: wheel)
        assets.postgres_directory.cache_clear()
        yield
    assets.postgres_directory.cache_clear()


@pytest.fixture(scope="session")
def default() -> Synthesised:
    """The deployable app as it is without any setting."""
    return deployable()


@pytest.fixture(scope="session")
def dev() -> Synthesised:
    """The deployable app that can be torn down, under every compliance pack."""
    packs = (HIPAASecurityChecks, NIST80053R5Checks, PCIDSS321Checks, AwsSolutionsChecks)
    return deployable({"profile": "dev"}, packs=packs)
