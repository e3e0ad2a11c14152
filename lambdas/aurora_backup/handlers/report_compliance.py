"""Judge the facts, store the report as evidence, and say how it ended. Outside the VPC."""

from __future__ import annotations

import json
import os
from typing import Any

from aurora_backup import compliance_settings, deployment
from aurora_backup.compliance_metrics import metrics
from aurora_backup.compliance_page import render
from aurora_backup.compliance_report import KIND, build, documents_beside
from aurora_backup.evidence import DOCUMENTS
from aurora_backup.evidence_store import EvidenceStore
from aurora_backup.s3 import Bucket, make_client

_NAMED = 10


def handler(event: dict[str, Any], _context: object) -> dict[str, Any]:
    """Return the verdict, its findings, and where the evidence is.

    event: `{execution, started, facts}`. A replay of an execution gives the record that was written first.

    Raises:
        EvidenceNotWritten: the report could not be stored. It is then INCOMPLETE, whatever it says.
        ControlsError: the own table of controls (CONTROLS_KEY) is malformed.

    """
    expected = compliance_settings.expected()
    now = deployment.moment("started", event["started"])
    bucket = Bucket(make_client(), expected.bucket, kms_key=expected.key_arn)
    facts = bucket.read(str(event["facts"]))
    own = os.environ.get("CONTROLS_KEY")
    controls = bucket.read(own).decode() if own else None
    store = EvidenceStore(
        bucket.client,
        bucket.name,
        expected.owner,
        keep=expected.policy.evidence_keep,
        mode=compliance_settings.lock_mode(),
        kms_key=expected.key_arn,
    )
    report = build(
        json.loads(facts),
        expected,
        now=now,
        execution=str(event["execution"]),
        controls=controls,
        before=store.document(KIND, "report.json"),
    )
    document = report.document
    written = store.append(
        kind=KIND,
        execution=str(event["execution"]),
        created=now,
        body={
            "compliance_status": document["compliance_status"],
            "remediation_needed": document["remediation_needed"],
            "verifications": {v["name"]: v["verdict"] for v in document["verifications"]},
            "cluster": document["cluster"],
            DOCUMENTS: documents_beside(json.loads(facts), now),
        },
        attachments={
            "report.json": report.to_json().encode(),
            "report.html": render(document).encode(),
            "facts.json": facts,
        },
    )
    for line in metrics(document, json.loads(facts), now):
        print(json.dumps(line))  # noqa: T201  CloudWatch reads it from the log
    return {
        "compliance_status": document["compliance_status"],
        "remediation_needed": document["remediation_needed"],
        "verifications": written.record.body["verifications"],
        "findings": [
            {k: f[k] for k in ("check", "verdict", "reason", "remedy")} for f in document["findings"][:_NAMED]
        ],
        "record": written.record.key,
        "head": written.head,
        "attachments": {a.name: a.key for a in written.record.attachments},
    }
