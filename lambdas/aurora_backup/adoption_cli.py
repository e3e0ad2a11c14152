"""The subcommand `adopt` of `aurora-backup`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import argparse

    Answer = tuple[int, dict[str, Any], str]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `adopt`."""
    parser.add_argument("--bucket", required=True, help="the backup bucket")
    parser.add_argument("--endpoint-url", help="another AWS than AWS's")
    parser.add_argument("--region", help="default: the AWS environment's")
    parser.add_argument("--kms-key", help="encrypt what is written with this key; default: the bucket's own")
    parser.add_argument("--owner", required=True, help="the strategy's owner, as in tags and in the hand-over document")
    parser.add_argument("--cluster", required=True, help="the new cluster's identifier")
    parser.add_argument(
        "--previous",
        action="append",
        required=True,
        help="a predecessor's DbClusterResourceId; repeat it, oldest first",
    )


def run(arguments: argparse.Namespace) -> Answer:
    """Write the adoption down, and print what to put into the app."""
    import boto3

    from aurora_backup.adoption import Adoptions, adopt
    from aurora_backup.rds import Rds
    from aurora_backup.s3 import Bucket, make_client

    where = {"endpoint_url": arguments.endpoint_url, "region_name": arguments.region}
    s3 = make_client(endpoint_url=arguments.endpoint_url, region=arguments.region)
    adoptions = Adoptions(Bucket(s3, arguments.bucket, kms_key=arguments.kms_key))
    rds = Rds(boto3.client("rds", **where))
    made = adopt(
        rds.cluster(arguments.cluster),
        arguments.previous,
        {resource_id: adoptions.lineage(resource_id) for resource_id in arguments.previous},
        owner=arguments.owner,
        now=datetime.now(UTC),
        instances=rds.instances(arguments.cluster),
    )
    key = adoptions.keep(made)
    lines = f"adopted {made.cluster}; recorded in {key}. Now in your app:\n{made.construct_arguments()}"
    return 0, {**made.to_dict(), "key": key}, lines
