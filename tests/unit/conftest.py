"""Fixtures of the dump engine's tests: client programs on PATH, a target, a bucket on a real S3 server."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from aurora_backup.postgres import Target
from aurora_backup.s3 import Bucket, make_client
from tests.unit.dumping import SAMPLE, SPLIT, dump

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="session")
def clients(postgres):
    """PATH begins with PostgreSQL's programs, server included, where an unprivileged user can run them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{postgres.server.home.bin}{os.pathsep}{os.environ['PATH']}")
        yield postgres.server.home.bin


@pytest.fixture
def fake_program(clients, tmp_path, monkeypatch):
    """A function that puts a shell script before the real program on PATH; $REAL is that one, $DIR where it lies."""

    def make(name: str, script: str) -> Path:
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\nREAL={clients / name}\nDIR={tmp_path}\n{script}\n")
        path.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
        return path

    return make


@pytest.fixture(scope="session")
def target(postgres, clients):
    """A function from a database's name to its Target, as the superuser unless told otherwise."""

    def make(dbname: str, user: str = postgres.user, password: str | None = postgres.password) -> Target:
        return Target(
            host=postgres.host,
            port=postgres.port,
            dbname=dbname,
            user=user,
            password=lambda: password,
            sslrootcert=str(postgres.ca),
        )

    return make


@pytest.fixture(scope="session")
def sample_template(postgres):
    name = postgres.database()
    postgres.psql(SAMPLE, name)
    return name


@pytest.fixture(scope="session")
def sample(postgres, sample_template, target):
    """One copy of the sample database, which nobody changes."""
    return target(postgres.database(template=sample_template))


@pytest.fixture
def own_sample(postgres, sample_template, target):
    """A copy of the sample database for one test to change."""
    return target(postgres.database(template=sample_template))


@pytest.fixture
def empty(postgres, target):
    return target(postgres.database())


@pytest.fixture
def s3_login(s3_server, monkeypatch):
    """The S3 server's own keys in the environment, as the command line and the functions find theirs."""
    _log_in(monkeypatch, s3_server)
    # Retries follow at once: their number is what matters here.
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_: 0)


def _log_in(patch, s3_server):
    patch.setenv("AWS_ACCESS_KEY_ID", s3_server.access_key)
    patch.setenv("AWS_SECRET_ACCESS_KEY", s3_server.secret_key)
    patch.delenv("AWS_SESSION_TOKEN", raising=False)
    patch.setattr("boto3.DEFAULT_SESSION", None)  # it would keep the keys of an earlier test


@pytest.fixture(scope="session")
def bucket_name(s3_server):
    """One bucket for all: each new one costs the server a second, and every test's keys are its own."""
    return s3_server.bucket()


@pytest.fixture(scope="session")
def shared_bucket(s3_server, bucket_name):
    """The bucket, with one client for all: making one takes a tenth of a second."""
    with pytest.MonkeyPatch.context() as patch:
        _log_in(patch, s3_server)
        return Bucket(make_client(endpoint_url=s3_server.endpoint_url, region="us-east-1"), bucket_name)


@pytest.fixture(scope="session")
def made(sample, shared_bucket):
    """One set of the sample in several archives, for all who only read it: whoever changes an object puts it back."""
    return dump(sample, shared_bucket, jobs=2, split_bytes=SPLIT, digest=True)


@pytest.fixture
def bucket(shared_bucket, s3_login):
    """The bucket, for tests that leave its client alone."""
    return shared_bucket


@pytest.fixture
def own_bucket(s3_server, s3_login, bucket_name):
    """The bucket, with a client of the test's own for its faults (they use up a client's allowance of retries)."""
    return Bucket(make_client(endpoint_url=s3_server.endpoint_url, region="us-east-1"), bucket_name)
