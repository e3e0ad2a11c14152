"""Judge the facts, store the report as evidence, and say how it ended. Outside the VPC."""

from __future__ import annotations

import json
import os
from typing import Any

from aurora_backup import compliance_settings, deployment
from aurora_backup.compliance_metrics import metrics
from aurora_backup.compliance_page import render
from aurora_backup.compliance_report import KIND, Report, build, documents_beside
from aurora_backup.evidence import DOCUMENTS, EvidenceError
from aurora_backup.evidence_store import ChainBroken, EvidenceStore
from aurora_backup.s3 import Bucket, make_client

_NAMED = 10


def handler(event: dict[str, Any], _context: object) -> dict[str, Any]:
    """Return the verdict, its findings, and where the evidence is.

    event: `{execution, started, facts}`. A replay of an execution gives the record that was written first.

    Raises:
        EvidenceNotWritten: the report could not be stored. It is then INCOMPLETE, whatever it says. Where the chain
            itself was altered the report is stored outside it, INCOMPLETE or FAIL, and says so.
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
    try:
        before = store.document(KIND, "report.json")
    except EvidenceError:  # the gatherer met it too, and what is chained to it meets it below
        before = None
    report = build(
        json.loads(facts),
        expected,
        now=now,
        execution=str(event["execution"]),
        controls=controls,
        before=before,
    )
    document = report.document
    attachments = {**_shown(report), "facts.json": facts}
    verifications = {v["name"]: v["verdict"] for v in document["verifications"]}
    kept: dict[str, Any]
    try:
        written = store.append(
            kind=KIND,
            execution=str(event["execution"]),
            created=now,
            body={
                "compliance_status": document["compliance_status"],
                "remediation_needed": document["remediation_needed"],
                "verifications": verifications,
                "cluster": document["cluster"],
                DOCUMENTS: documents_beside(json.loads(facts), now),
            },
            attachments=attachments,
        )
        kept = {"record": written.record.key, "head": written.head}
        kept["attachments"] = {a.name: a.key for a in written.record.attachments}
        verifications = written.record.body["verifications"]
    except ChainBroken as error:
        # The alert must come, with what can be known. Outside the chain it is marked, and no evidence.
        _mark(document, str(error))
        attachments = {**_shown(report), "facts.json": facts}
        keys = {n: store.put_unchained(str(event["execution"]), now, n, d) for n, d in attachments.items()}
        kept = {"record": None, "head": None, "attachments": keys, "outside_the_chain": str(error)}
    for line in metrics(document, json.loads(facts), now):
        print(json.dumps(line))  # noqa: T201  CloudWatch reads it from the log
    return {
        "compliance_status": document["compliance_status"],
        "remediation_needed": document["remediation_needed"],
        "verifications": verifications,
        "findings": [
            {k: f[k] for k in ("check", "verdict", "reason", "remedy")} for f in document["findings"][:_NAMED]
        ],
        **kept,
    }


def _shown(report: Report) -> dict[str, bytes]:
    return {"report.json": report.to_json().encode(), "report.html": render(report.document).encode()}


def _mark(document: dict[str, Any], reason: str) -> None:
    """Altered evidence is a failure, whatever the checks found."""
    document["compliance_status"], document["remediation_needed"] = "FAIL", True
    finding = {
        "check": "integrity.documents",
        "title": "This report is outside the evidence chain: a record of the chain was altered",
        "verdict": "FAIL",
        "level": "observed",
        "reason": reason,
        "remedy": "Delete the forged version, so that the locked one is the newest again: docs/compliance.md, A forged "
        "record. Then run the workflow again.",
    }
    document["findings"] = [finding, *document["findings"]]
