"""Ask AWS everything that a compliance report rests on. Outside the VPC; reads only, but for its own document."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from aurora_backup import compliance_settings, deployment
from aurora_backup.compliance_gather import SERVICES, Gatherer
from aurora_backup.evidence import ROOT
from aurora_backup.evidence_store import EvidenceStore
from aurora_backup.holds import HoldKeeper
from aurora_backup.rds import Rds
from aurora_backup.read_back import LIMIT_SECONDS
from aurora_backup.s3 import Bucket, make_client


def handler(event: dict[str, Any], _context: object) -> dict[str, Any]:
    """Write the facts; return `{execution, started, facts}`, facts being their key."""
    import boto3
    from botocore.config import Config

    expected = compliance_settings.expected()
    execution, started = str(event["execution"]), deployment.moment("started", event["started"])
    bucket = Bucket(make_client(), expected.bucket, kms_key=expected.key_arn)
    patient = Config(read_timeout=2 * LIMIT_SECONDS, retries={"total_max_attempts": 2})
    clients = {s: boto3.client(s, config=patient if s == "lambda" else None) for s in SERVICES}
    gatherer = Gatherer(
        clients,
        bucket,
        expected,
        evidence=EvidenceStore(
            bucket.client, bucket.name, expected.owner, keep=expected.policy.evidence_keep, mode=None
        ),
        holds=HoldKeeper(bucket=bucket, rds=Rds(clients["rds"]), owner=expected.owner),
        clock=lambda: datetime.now(UTC),
    )
    key = f"{ROOT}facts/{quote(expected.owner, safe='')}/{quote(execution, safe='')}.json"
    # A replay gathers again: facts are of the moment. The report attaches those that it used, under their hash.
    bucket.write(key, json.dumps(gatherer.gather(), sort_keys=True), once=False)
    return {"execution": execution, "started": started.isoformat(), "facts": key}
