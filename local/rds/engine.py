"""The PostgreSQL behind one DB cluster, and the backups that outlive it.

    clusters/<resource id>/       the live server: `data`, `log`
    automated/<resource id>/      continuous backup: `base` (a base backup) and `wal` (the archive)
    snapshots/<name>/             each a base backup

A restore reads the last two only. The live directory can be gone.
"""

from __future__ import annotations

import datetime as dt
import shutil
import threading
from typing import TYPE_CHECKING

from local.postgres import ARCHIVE_SECONDS, Server, recovery_to
from local.processes import ProcessDiedError, free_port
from local.runtime import current

if TYPE_CHECKING:
    from pathlib import Path

ADMIN = "rdsadmin"
_NOT_REACHED = "recovery ended before configured recovery target was reached"

# Who may do what on Aurora, as far as roles go: the master user is no superuser. `rds_superuser` has what its
# documentation lists; `rds_iam` marks the roles that log in with a token. ADMIN without INHERIT or SET lets the master
# user hand these roles out.
_ROLES = """
create role rds_superuser nologin;
create role rds_iam nologin;
create role rds_password nologin;
create role rds_replication nologin;
grant pg_monitor, pg_signal_backend, pg_checkpoint, pg_read_all_data, pg_write_all_data, rds_password, rds_replication
  to rds_superuser with admin option;
create role {master} login createdb createrole valid until 'infinity' password {password};
grant rds_superuser to {master} with admin option;
grant rds_iam to {master} with admin true, inherit false, set false;
alter database postgres owner to {master};
create database rdsadmin strategy file_copy;
revoke all on database rdsadmin from public;
"""


class Engine:
    """Start, stop, back up and restore one cluster's PostgreSQL."""

    def __init__(self, resource_id: str, master: str, password: str, database: str | None) -> None:
        """Nothing is written before `ensure` or a restore."""
        home = current().home
        self.home, self.master, self.password, self.database = home, master, password, database
        self.automated = home.path / "automated" / resource_id
        self.server = Server(
            home,
            home.path / "clusters" / resource_id,
            superuser=ADMIN,
            password=current().admin_password,
            archive=self.automated / "wal",
            port=free_port(),
        )
        # An instance's deletion may still be stopping the server when the cluster's own begins.
        self._one_at_a_time = threading.RLock()
        self._password_waits = False
        self.set_iam(enabled=False)

    @property
    def port(self) -> int:
        """Where the cluster listens once it has an instance."""
        return self.server.port

    @property
    def running(self) -> bool:
        """Whether connections are taken."""
        return self.server.running

    def set_iam(self, *, enabled: bool) -> None:
        """Let the members of `rds_iam` in without a password, or not at all.

        A token is accepted and not looked at: PostgreSQL cannot check one. The master user keeps its password.
        """
        rest = "scram-sha-256"
        self.server.set_access(
            f"hostssl all,replication {ADMIN} 127.0.0.1/32 {rest}\n"
            f"hostssl all {_identifier(self.master)} 127.0.0.1/32 {rest}\n"
            f"hostssl all +rds_iam 127.0.0.1/32 {'trust' if enabled else 'reject'}\n"
            f"hostssl all all 127.0.0.1/32 {rest}\n",
        )

    def set_password(self, password: str) -> None:
        """Change the master user's password, at the next start if the server is down."""
        with self._one_at_a_time:
            self.password, self._password_waits = password, True
            self._apply_password()

    def _apply_password(self) -> None:
        if self._password_waits and self.running:
            self.server.psql(f"alter role {_identifier(self.master)} password {_literal(self.password)}")
            self._password_waits = False

    def start(self) -> None:
        """Start the server, making it if it is new, and begin continuous backup if there is none yet."""
        with self._one_at_a_time:
            self._start()

    def _start(self) -> None:
        self.home.account.own(self.automated)
        if not self.server.data.exists():
            self.server.create()
            self.server.start()
            roles = _ROLES.format(master=_identifier(self.master), password=_literal(self.password))
            statements = [statement for part in roles.split(";") if (statement := part.strip())]
            if self.database and self.database != "postgres":
                owner = f"owner {_identifier(self.master)}"
                statements.append(f"create database {_identifier(self.database)} {owner} strategy file_copy")
            self.server.psql(*statements)
        elif not self.running:
            self.server.start()
        self._apply_password()
        if not self.base.exists():
            self.server.base_backup(self.base)

    @property
    def base(self) -> Path:
        """The base backup under the continuous backup."""
        return self.automated / "base"

    def stop(self) -> None:
        """Stop the server, with everything it committed in the archive if it can still say so."""
        with self._one_at_a_time:
            if self.running:
                try:
                    self.server.archive_now()
                finally:
                    self.server.stop()

    def destroy(self) -> None:
        """Stop and delete the live server. Backups stay."""
        with self._one_at_a_time:
            try:
                self.stop()
            finally:
                shutil.rmtree(self.server.directory, ignore_errors=True)

    def forget_backups(self) -> None:
        """Delete the continuous backup."""
        shutil.rmtree(self.automated, ignore_errors=True)

    def snapshot(self, target: Path) -> None:
        """Copy the cluster as it is into the new directory `target`; a cluster without an instance is copied cold."""
        if self.running:
            self.server.base_backup(target)
            return
        if not self.server.data.exists():
            self.start()
            self.stop()
        copy(self.server.data, target)

    def adopt(self, source: Path) -> None:
        """Become a copy of the base backup at `source`."""
        self.server.adopt(source)

    def recover(self, automated: Path, target: dt.datetime | None) -> None:
        """Become what the continuous backup in `automated` says the cluster was at `target`, or at its end.

        PostgreSQL refuses a target that lies after the last archived commit; the end of the archive is then the same
        state.
        """
        self.home.account.own(self.automated)
        for moment in dict.fromkeys((target, None)):
            shutil.rmtree(self.server.data, ignore_errors=True)
            self.server.adopt(automated / "base")
            try:
                self.server.start(recovery=recovery_to(automated / "wal", moment))
            except ProcessDiedError as error:
                if moment is None or _NOT_REACHED not in str(error):
                    raise
            else:
                break
        self.server.stop()

    def earliest(self) -> dt.datetime | None:
        """The first moment that can be restored: when the base backup was complete."""
        return base_time(self.automated)

    def latest(self) -> dt.datetime | None:
        """The last moment that can be restored: a little ago while the server runs, then the archive's end."""
        earliest = self.earliest()
        if earliest is None:
            return None
        if self.running and self.server.data.exists():
            return max(earliest, dt.datetime.now(dt.UTC) - dt.timedelta(seconds=ARCHIVE_SECONDS))
        return archive_end(self.automated)


def base_time(automated: Path) -> dt.datetime | None:
    """When the base backup of a continuous backup was complete, or None if there is none."""
    return _modified(automated / "base" / "backup_manifest")


def archive_end(automated: Path) -> dt.datetime | None:
    """The last moment that a continuous backup without a live server reaches."""
    base = base_time(automated)
    segments = filter(None, map(_modified, (automated / "wal").glob("?" * 24)))
    return max([*segments, base]) if base else None


def copy(source: Path, target: Path) -> None:
    """Copy a data directory as the user who owns it."""
    home = current().home
    home.account.own(target.parent)
    home.copy(source, target)


def _modified(path: Path) -> dt.datetime | None:
    """When the file was written; None if there is none, or not any more."""
    try:
        return dt.datetime.fromtimestamp(path.stat().st_mtime, dt.UTC)
    except FileNotFoundError:
        return None


def _identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
