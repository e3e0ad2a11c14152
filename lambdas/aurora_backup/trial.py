"""The trial restore: a throw-away PostgreSQL beside this process, restored into and compared row for row."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aurora_backup.errors import RestoreFailed, redact
from aurora_backup.postgres import Session, Target, client_version
from aurora_backup.restore import RestoreOptions, restore_set

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aurora_backup.manifest import Manifest
    from aurora_backup.s3 import Bucket

_SUPERUSER = "aurora_backup_trial"
_SPACE_FACTOR = 2.5  # rows, their indexes and the write-ahead log, per byte of heap
_SPACE_EXTRA = 300_000_000


def trial_restore(bucket: Bucket, manifest: Manifest) -> tuple[bool | None, str, int]:
    """Restore the set here and compare. Returns (ok, detail, bytes read); ok is None where it cannot run."""
    missing = [name for name in ("initdb", "pg_ctl", "postgres", "pg_restore") if shutil.which(name) is None]
    if missing:
        return None, f"no server here: {', '.join(missing)} not on PATH", 0
    needed = int(sum(t.bytes for t in manifest.facts.tables) * _SPACE_FACTOR) + _SPACE_EXTRA
    free = shutil.disk_usage(tempfile.gettempdir()).free
    if free < needed:
        return None, f"about {needed} bytes of temporary space are needed, and {free} are free", 0
    major, _ = client_version("postgres")
    if major < manifest.facts.server_major:
        return None, f"the server here is PostgreSQL {major}, the source was {manifest.facts.server_major}", 0
    encoding = str(manifest.source.get("database", {}).get("encoding") or "UTF8")
    with _server(encoding) as target:
        with Session(target) as session:
            available = {row[0] for row in session.run("SELECT name FROM pg_catalog.pg_available_extensions")}
        absent = sorted(manifest.facts.extensions.keys() - available)
        if absent:
            return None, f"extensions that the server here does not have: {', '.join(absent)}", 0
        done = restore_set(bucket, manifest, target, RestoreOptions(roles=True, analyze=False))
    if done.differences:
        return False, "; ".join(str(difference) for difference in done.differences[:10]), done.bytes_read
    told = f"{done.rows_restored} of {done.rows_expected} rows restored and compared"
    if done.estimated:
        told += f"; {done.estimated} tables were not counted when dumped"
    return True, told, done.bytes_read


@contextmanager
def _server(encoding: str) -> Iterator[Target]:
    """Run a server on a Unix socket in a private directory, and remove all of it afterwards."""
    with tempfile.TemporaryDirectory(prefix="trial-") as name:
        directory = Path(name)
        as_user = _unprivileged(directory)
        data = directory / "data"
        _run(
            ["initdb", f"--pgdata={data}", f"--username={_SUPERUSER}", "--auth=trust", f"--encoding={encoding}",
             "--locale=C", "--no-sync"],
            as_user,
        )  # fmt: skip
        options = (
            f"-c listen_addresses='' -c unix_socket_directories={directory} -c port=5432 -c fsync=off"
            " -c full_page_writes=off -c wal_level=minimal -c max_wal_senders=0 -c max_wal_size=1GB"
        )
        log = directory / "log"
        start = ["pg_ctl", "start", f"--pgdata={data}", "--wait", f"--log={log}", f"--options={options}"]
        try:
            _run(start, as_user)
            yield Target(host=str(directory), port=5432, dbname="postgres", user=_SUPERUSER)
        finally:
            subprocess.run(
                ["pg_ctl", "stop", f"--pgdata={data}", "--mode=immediate"], capture_output=True, check=False, **as_user
            )


def _unprivileged(directory: Path) -> dict[str, Any]:
    """PostgreSQL refuses to run as root: as root, give the directory to `nobody` and run as that user."""
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    os.chown(directory, nobody.pw_uid, nobody.pw_gid)
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": [], "cwd": str(directory)}


def _run(command: list[str], as_user: dict[str, Any]) -> None:
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        **as_user,
    )
    if done.returncode != 0:
        raise RestoreFailed(
            f"the trial server: {command[0]} exited with status {done.returncode}: {redact(done.stderr)}"
        )
