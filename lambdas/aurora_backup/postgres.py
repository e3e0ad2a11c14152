"""The PostgreSQL edge: where a database is, how to connect to it, and how its client programs get the password.

Our own statements go through pg8000; pg_dump and pg_restore get a 0600 passfile in a private directory, never an
argument or a PGPASSWORD. Both verify the server's certificate and its name.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import tempfile
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from aurora_backup.errors import ConnectionFailed, QueryFailed, SettingsError, redact

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from ssl import SSLContext

SslMode = Literal["verify-full", "disable"]
CONNECT_SECONDS = 15
# A role's own settings must not end a dump. Start-up options outrank ALTER ROLE ... SET.
_TIMEOUTS = {"statement_timeout": "0", "lock_timeout": "0", "idle_in_transaction_session_timeout": "0"}
_UNKNOWN_ISSUERS = {18, 19, 20, 21}  # OpenSSL's X509_V_ERR: self-signed, self-signed in the chain, no issuer, one only
_PG14, _PG17 = 140000, 170000


def _no_password() -> None:
    return None


@dataclass(frozen=True, kw_only=True)
class Target:
    """One database of one server. A host that begins with "/" is the directory of a Unix socket (no TLS).

    password: called for every connection, because an IAM token lives for fifteen minutes; None asks for no password.
    """

    host: str
    port: int
    dbname: str
    user: str
    password: Callable[[], str | None] = field(default=_no_password, repr=False, compare=False)
    sslmode: SslMode = "verify-full"
    sslrootcert: str | None = None

    def database(self, name: str) -> Target:
        """Return the same server and role, another database."""
        return replace(self, dbname=name)

    def conninfo(self) -> str:
        """Return the libpq connection string: safe for any database name, without the password."""
        pairs = {
            "host": self.host,
            "port": str(self.port),
            "user": self.user,
            "dbname": self.dbname,
            "connect_timeout": str(CONNECT_SECONDS),
            "keepalives_idle": "30",
            "keepalives_interval": "10",
            "keepalives_count": "3",
            "tcp_user_timeout": "60000",
            "sslmode": "disable" if self.host.startswith("/") else self.sslmode,
        }
        if self.sslrootcert and not self.host.startswith("/"):
            pairs["sslrootcert"] = self.sslrootcert
        return " ".join(f"{key}={_conninfo_value(value)}" for key, value in pairs.items())


def _conninfo_value(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def quote(*names: str) -> str:
    """Quote an SQL identifier, always; several are joined with dots. Also a pg_dump pattern that matches only it."""
    return ".".join('"' + name.replace('"', '""') + '"' for name in names)


class Session:
    """One connection. Statements run one at a time; failures are redacted QueryFailed with the SQLSTATE in `.code`."""

    def __init__(self, target: Target, *, application_name: str = "aurora-backup") -> None:
        import pg8000.native

        self.target = target
        self._errors = (pg8000.native.Error, OSError)
        password = target.password() or None
        where = f"{target.user}@{target.host}:{target.port}/{target.dbname}"
        local = target.host.startswith("/")
        context = None if local or target.sslmode == "disable" else tls_context(target.sslrootcert)
        try:
            self._connection = pg8000.native.Connection(
                target.user,
                database=target.dbname,
                password=password,
                host=target.host,
                port=target.port,
                unix_sock=f"{target.host}/.s.PGSQL.{target.port}" if local else None,
                ssl_context=False if context is None else context,
                timeout=CONNECT_SECONDS,
                application_name=application_name,
                startup_params={**_TIMEOUTS, "lock_timeout": "60s"},
            )
        except AttributeError:  # how pg8000 finds that it was given none
            if password is not None:
                raise
            raise ConnectionFailed(f"{where}: the server asks for a password, and none was given") from None
        except self._errors as error:
            reason = redact(_reason(error), [password or ""])
            raise ConnectionFailed(f"{where}: {reason}{_untrusted(error, target.sslrootcert)}") from None
        # The timeout was for connecting only: a count over a large table may be silent for minutes.
        self._connection._usock.settimeout(None)  # noqa: SLF001  pg8000 offers no other way
        self._keep_alive()
        self.version = int(self.value("SELECT current_setting('server_version_num')"))
        # One text form for every value, whatever the role's settings: digests depend on it.
        self.run(
            "SELECT set_config('search_path', '', false), set_config('datestyle', 'ISO, MDY', false),"
            " set_config('timezone', 'UTC', false), set_config('bytea_output', 'hex', false),"
            " set_config('extra_float_digits', '1', false), set_config('intervalstyle', 'postgres', false),"
            " set_config('lc_monetary', 'C', false), set_config('row_security', 'off', false)"
        )
        if self.version >= _PG14:  # the server notices a broken connection while it counts
            with suppress(QueryFailed):  # an aid only, and not every platform has it
                self.run("SET client_connection_check_interval = '5s'")
        if self.version >= _PG17:
            self.run("SET transaction_timeout = 0")

    def _keep_alive(self) -> None:
        import socket

        if not self.target.host.startswith("/"):
            sock = self._connection._usock  # noqa: SLF001  as above
            for option, value in (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3)):
                if hasattr(socket, option):
                    sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)

    def run(self, sql: str, **parameters: Any) -> list[list[Any]]:
        """Run one statement; `:name` parameters are bound by the server."""
        try:
            return self._connection.run(sql, **parameters) or []
        except self._errors as error:
            raise SqlError(_reason(error), _code(error)) from None

    def value(self, sql: str, **parameters: Any) -> Any:
        """Return the first column of the first row, or None."""
        rows = self.run(sql, **parameters)
        return rows[0][0] if rows else None

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """Run statements whose failure must not end the transaction: it is rolled back to here and re-raised."""
        self.run("SAVEPOINT aurora_backup")
        try:
            yield
        except QueryFailed:
            self.run("ROLLBACK TO SAVEPOINT aurora_backup")
            raise
        finally:
            self.run("RELEASE SAVEPOINT aurora_backup")

    def interrupt(self) -> None:
        """Break the connection from another thread: the statement that runs fails at once."""
        import socket

        with suppress(OSError):
            self._connection._usock.shutdown(socket.SHUT_RDWR)  # noqa: SLF001  pg8000 offers no other way

    def close(self) -> None:
        """Close the connection; a broken one is closed quietly."""
        with suppress(*self._errors):
            self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


# The messages of these classes quote values, or are the words of the database's own functions.
_QUOTING = {"22": "a value that PostgreSQL refuses", "P0": "a function of the database raised an error"}


class SqlError(QueryFailed):
    """A statement failed; `.code` is the SQLSTATE, or an empty string for a broken connection."""

    def __init__(self, message: str, code: str) -> None:
        instead = _QUOTING.get(code[:2])
        super().__init__(f"{instead} (SQLSTATE {code})" if instead else redact(message))
        self.code = code


def _untrusted(error: BaseException, root_certificate: str | None) -> str:
    """Name the remedy when no authority that we know has signed the server's certificate."""
    from ssl import SSLCertVerificationError

    if not isinstance(error, SSLCertVerificationError) or error.verify_code not in _UNKNOWN_ISSUERS:
        return ""
    known = root_certificate or "the system's authorities"
    return (
        f": its authority is not in {known}; set PGSSLROOTCERT to a bundle that has it "
        "(GovCloud's is not shipped: docs/logical-backup.md, Roles and TLS)"
    )


def _reason(error: BaseException) -> str:
    if error.args and isinstance(error.args[0], dict):
        fields = error.args[0]
        return f"{fields.get('M', 'unknown error')} (SQLSTATE {fields.get('C', '?')})"
    return str(error) or type(error).__name__


def _code(error: BaseException) -> str:
    return str(error.args[0].get("C", "")) if error.args and isinstance(error.args[0], dict) else ""


def tls_context(root_certificate: str | None) -> SSLContext:
    """Verify the certificate and the host name, against this bundle or the system's authorities."""
    import ssl

    if root_certificate and not Path(root_certificate).is_file():
        raise SettingsError(f"sslrootcert: the certificate authority file {root_certificate} does not exist")
    return ssl.create_default_context(cafile=root_certificate)


@contextmanager
def client_environment(target: Target, *, application_name: str = "aurora-backup") -> Iterator[dict[str, str]]:
    """Give the environment for pg_dump or pg_restore: everything inherited except PG*, and a passfile of our own.

    The passfile is made anew for each program, with a fresh password, and is gone when the context ends.
    """
    if target.sslrootcert and not Path(target.sslrootcert).is_file():
        raise SettingsError(f"sslrootcert: the certificate authority file {target.sslrootcert} does not exist")
    env = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    env["PGAPPNAME"] = application_name
    env["PGOPTIONS"] = " ".join(f"-c {name}={value}" for name, value in _TIMEOUTS.items())
    password = target.password()
    with tempfile.TemporaryDirectory(prefix="aurora-backup-") as directory:
        if password:
            if "\n" in password:
                raise SettingsError("the database password must not contain a line break: libpq cannot read it")
            path = Path(directory) / "passfile"
            path.touch(mode=0o600)
            escaped = password.replace("\\", "\\\\").replace(":", "\\:")
            path.write_text(f"*:*:*:*:{escaped}\n", encoding="utf-8")
            env["PGPASSFILE"] = str(path)
        else:
            env["PGPASSFILE"] = str(Path(directory) / "none")
        yield env


def client_version(program: str = "pg_dump") -> tuple[int, str]:
    """Major version, and the whole version text, of the client program found on PATH."""
    try:
        text = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError) as error:
        raise SettingsError(f"{program} must be on PATH (the client layer puts it in /opt/bin): {error}") from None
    found = re.search(r"(\d+)(?:\.\d+)?", text)
    if not found:
        raise SettingsError(f"{program} --version must name a version, got {text!r}")
    return int(found[1]), text


def iam_password(host: str, port: int, user: str) -> Callable[[], str]:
    """Return a provider of RDS IAM authentication tokens: signed locally, good for fifteen minutes."""

    def token() -> str:
        import boto3

        return str(boto3.client("rds").generate_db_auth_token(DBHostname=host, Port=port, DBUsername=user))

    return token


@dataclass(frozen=True)
class Login:
    """A role and the way to its password."""

    user: str
    password: Callable[[], str | None] = field(repr=False)


def secret_login(secret_arn: str) -> Login:
    """Read the user of a JSON secret now, and its password again for every connection: it may rotate meanwhile."""

    def read() -> dict[str, Any]:
        import boto3

        text = boto3.client("secretsmanager").get_secret_value(SecretId=secret_arn).get("SecretString", "")
        try:
            secret = json.loads(text)
            return {"username": str(secret["username"]), "password": str(secret["password"])}
        except (ValueError, KeyError, TypeError):
            raise SettingsError(f"secret {secret_arn} must be JSON with username and password") from None

    return Login(read()["username"], lambda: str(read()["password"]))


def passfile_password(path: str, target: Target) -> str | None:
    """Return the password that libpq would take from this passfile for this target, or None.

    Raises:
        SettingsError: the file cannot be read.

    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise SettingsError(f"passfile {path} cannot be read: {error.strerror}") from None
    wanted = [target.host, str(target.port), target.dbname, target.user]
    for line in lines:
        if line.startswith("#"):
            continue
        *fields, password = _split_passfile(line)
        if len(fields) == len(wanted) and all(f in ("*", w) for f, w in zip(fields, wanted, strict=True)):
            return password
    return None


def _split_passfile(line: str) -> list[str]:
    r"""Split at the first four colons; `\:` and `\\` stand for themselves. The password is the rest."""
    fields: list[str] = []
    current, characters = "", iter(line)
    for character in characters:
        if character == "\\":
            current += next(characters, "")
        elif character == ":" and len(fields) < 4:  # noqa: PLR2004  host, port, database, user
            fields.append(current)
            current = ""
        else:
            current += character
    return [*fields, current]


def discover(session: Session) -> list[str]:
    """Names of the databases that hold data of ours: never templates, never rdsadmin."""
    rows: Sequence[Sequence[Any]] = session.run(
        "SELECT datname FROM pg_catalog.pg_database"
        " WHERE NOT datistemplate AND datallowconn AND datname <> 'rdsadmin' ORDER BY datname"
    )
    return [str(row[0]) for row in rows]
