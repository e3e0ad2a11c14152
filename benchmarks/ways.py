"""The ways to get a pg_dump into S3 that we are compared with, each as a program of its own.

The connection comes from libpq's environment variables, the login for S3 from AWS's. Each exits with an error when
any of its programs does. All of them sign without hashing the body, as they would over HTTPS.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

PART = 24 << 20
"""The part size of `serial-parts`: ours, so that only the overlap differs."""


def _client(endpoint_url: str) -> Any:
    import boto3
    from botocore.config import Config

    return boto3.client("s3", endpoint_url=endpoint_url, config=Config(s3={"payload_signing_enabled": False}))


def document(arguments: argparse.Namespace) -> None:
    """What the strategy document does: gzip level 9 into a file, then upload the file."""
    path = Path(arguments.scratch) / "logical-backup.sql"
    try:
        subprocess.run(["pg_dump", "-F", "c", "-Z", "9", "-f", str(path)], check=True)
        _client(arguments.endpoint_url).upload_file(str(path), arguments.bucket, arguments.key)
    finally:
        path.unlink(missing_ok=True)


def _piped(arguments: argparse.Namespace, consume: Callable[[IO[bytes]], object]) -> None:
    with subprocess.Popen(["pg_dump", "-Fc", f"--compress={arguments.compress}"], stdout=subprocess.PIPE) as dump:
        consume(dump.stdout)  # type: ignore[arg-type]  # it is a pipe
    if dump.returncode:
        sys.exit(f"pg_dump ended with status {dump.returncode}")


def aws_s3_cp(arguments: argparse.Namespace) -> None:
    """`pg_dump | aws s3 cp -`."""
    target = f"s3://{arguments.bucket}/{arguments.key}"
    command = [arguments.aws, "s3", "cp", "--only-show-errors", "--endpoint-url", arguments.endpoint_url, "-", target]
    _piped(arguments, lambda pipe: subprocess.run(command, stdin=pipe, check=True))


def upload_fileobj(arguments: argparse.Namespace) -> None:
    """Upload with boto3's `upload_fileobj` and its defaults."""
    client = _client(arguments.endpoint_url)
    _piped(arguments, lambda pipe: client.upload_fileobj(pipe, arguments.bucket, arguments.key))


def serial_parts(arguments: argparse.Namespace) -> None:
    """Read a part, upload the part, in turn."""
    client, target = _client(arguments.endpoint_url), {"Bucket": arguments.bucket, "Key": arguments.key}
    upload = {**target, "UploadId": client.create_multipart_upload(**target)["UploadId"]}
    parts: list[dict[str, Any]] = []

    def consume(pipe: IO[bytes]) -> None:
        while data := pipe.read(PART):
            number = len(parts) + 1
            answer = client.upload_part(**upload, PartNumber=number, Body=data)
            parts.append({"PartNumber": number, "ETag": answer["ETag"]})

    _piped(arguments, consume)
    client.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts})


WAYS = {
    "document": document,
    "aws-s3-cp": aws_s3_cp,
    "upload-fileobj": upload_fileobj,
    "serial-parts": serial_parts,
}


def main() -> None:
    """Run one way."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("way", choices=WAYS)
    parser.add_argument("--endpoint-url", required=True)
    parser.add_argument("--bucket", required=True)
    parser.add_argument("--key", required=True)
    parser.add_argument("--compress", default="zstd:1")
    parser.add_argument("--scratch", default=".")
    parser.add_argument("--aws", default="aws")
    arguments = parser.parse_args()
    WAYS[arguments.way](arguments)


if __name__ == "__main__":
    main()
