"""Start and stop the local AWS from Python."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from local import schedules
from local.emulator import ABOUT, ACCOUNT, REGION
from local.faults import Faults
from local.processes import Guarded, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import TracebackType

    from local.faults import Fault

REPOSITORY = Path(__file__).resolve().parent.parent


class LocalAws:
    """A local AWS that ends with this process at the latest.

    with LocalAws(Path("build/aws")) as aws:
        aws.client("rds").describe_db_clusters()
    """

    account = ACCOUNT

    def __init__(
        self,
        root: Path,
        *,
        region: str = REGION,
        creating_seconds: float = 2.0,
        wait_scale: float = 0.01,
    ) -> None:
        """Nothing starts here. `root` is emptied at `start`; the log stays in it after `stop`."""
        self.root, self.region = root.absolute(), region
        self._creating_seconds, self._wait_scale = creating_seconds, wait_scale
        self.port = 0
        self._process: Guarded | None = None

    def __enter__(self) -> Self:
        """Start."""
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop."""
        self.stop()

    @property
    def endpoint_url(self) -> str:
        """Where every service answers."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> Path:
        """What the emulator said."""
        return self.root / "emulator.log"

    @property
    def calls(self) -> Path:
        """What every invocation of a function called; `local.lambdas` has the shape."""
        return self.root / "calls.jsonl"

    @property
    def ca(self) -> Path:
        """The authority that signed the databases' certificates: the local stand-in for the RDS bundle."""
        return Path(self._about()["ca"])

    def live_directory(self, resource_id: str) -> Path:
        """The live server's directory of the cluster with this resource id, for tests that destroy or hide it."""
        return Path(self._about()["home"]) / "clusters" / resource_id

    def run_schedule(self, name: str, group: str = "default") -> dict[str, Any]:
        """Invoke the target of a deployed schedule now, with its own input; see `local.schedules`."""
        return schedules.run(self.client, name, group)

    @contextmanager
    def faulty(self, *refuse: Fault, page_size: int | None = None, creating: Sequence[str] = ()) -> Iterator[None]:
        """Let calls fail, pages be short and snapshots stay `creating` for a while; see `local.faults`."""
        Faults(refuse=refuse, page_size=page_size, creating=tuple(creating)).write(self.root)
        try:
            yield
        finally:
            Faults().write(self.root)

    def _about(self) -> dict[str, str]:
        about: dict[str, str] = json.loads((self.root / ABOUT).read_text())
        return about

    def start(self) -> None:
        """Start the emulator on a free port and wait until it answers."""
        shutil.rmtree(self.root, ignore_errors=True)
        self.root.mkdir(parents=True)
        self.port = free_port()
        self._process = Guarded(
            [
                sys.executable, "-m", "local", "--port", str(self.port), "--root", self.root, "--region", self.region,
                "--creating-seconds", str(self._creating_seconds), "--wait-scale", str(self._wait_scale),
            ],
            log=self.log,
            cwd=REPOSITORY,
            env={**_clean_environment(), **self.credentials()},
        )  # fmt: skip
        self._process.wait_until(self._answers)

    def stop(self) -> None:
        """End the emulator, its databases and its functions."""
        if self._process:
            self._process.stop()
            self._process = None
            if not (self.root / ABOUT).exists():  # it died, or was ended, before it had begun
                return
            home = Path(self._about()["home"])
            if not home.is_relative_to(self.root):  # the emulator removes it too, unless it was killed
                shutil.rmtree(home, ignore_errors=True)

    def _answers(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def credentials(self) -> dict[str, str]:
        """Variables that keep every SDK away from real credentials."""
        return {
            "AWS_ACCESS_KEY_ID": "local",
            "AWS_SECRET_ACCESS_KEY": "local",
            "AWS_REGION": self.region,
            "AWS_DEFAULT_REGION": self.region,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }

    def env(self) -> dict[str, str]:
        """The environment in which the unmodified AWS and CDK command lines reach this AWS."""
        return {
            **_clean_environment(),
            **self.credentials(),
            "AWS_ENDPOINT_URL": self.endpoint_url,
            "CDK_DEFAULT_ACCOUNT": self.account,
            "CDK_DEFAULT_REGION": self.region,
        }

    def client(self, service: str, **options: Any) -> Any:
        """A boto3 client for `service`."""
        import boto3

        return boto3.client(
            service,
            endpoint_url=self.endpoint_url,
            region_name=options.pop("region_name", self.region),
            aws_access_key_id="local",
            aws_secret_access_key="local",
            **options,
        )


def _clean_environment() -> dict[str, str]:
    """Ours, without anything that would lead an SDK elsewhere."""
    return {name: value for name, value in os.environ.items() if not re.match(r"AWS_|CDK_DEFAULT_|PG|MINISTACK_", name)}
