"""Tell AWS Backup how its restore test ended."""

from __future__ import annotations

from typing import Any

from aurora_backup.validation import Outcome

_LONGEST = 1024  # of a validation message


def handler(event: dict[str, Any], _context: object) -> dict[str, Any]:
    """Put the validation result. event: `{restore_job, judged}` or `{restore_job, failure: {step, cause}}`."""
    import boto3

    judged = event.get("judged")
    passed = judged is not None and judged["outcome"] == Outcome.RESTORED.value
    if judged:
        message = f"{judged['outcome']}; report {judged['report']}"
    else:
        message = f"the validation failed at step {event['failure']['step']}"
    status = "SUCCESSFUL" if passed else "FAILED"
    boto3.client("backup").put_restore_validation_result(
        RestoreJobId=event["restore_job"], ValidationStatus=status, ValidationStatusMessage=message[:_LONGEST]
    )
    return {"status": status}
