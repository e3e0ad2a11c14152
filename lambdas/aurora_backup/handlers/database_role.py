"""A CloudFormation custom resource: makes the database role, with the master secret, in every database.

In the VPC. It never blocks a stack: deleting does nothing (dumps and restored copies still know the role), and a
statement that PostgreSQL refuses is reported in the resource's attribute `Refused` and in the log.
"""

from __future__ import annotations

import json
import logging
import urllib.request
from typing import Any

from aurora_backup import deployment
from aurora_backup.database_role import ROLE, apply, cluster_statements, database_statements, missing
from aurora_backup.errors import BackupError, cause
from aurora_backup.postgres import Session, discover
from aurora_backup.settings import Settings

_log = logging.getLogger(__name__)
_REASON_LIMIT = 800  # a response may hold 4 KB


def handler(event: dict[str, Any], _context: object) -> dict[str, Any]:
    """Answer a CloudFormation event, or make the role again when called directly with `{"host", "port"}`."""
    if "ResponseURL" not in event:
        return {"refused": make_role(event)}
    reason, refused = "", []
    try:
        if event["RequestType"] != "Delete":
            refused = make_role(event["ResourceProperties"])
    except BackupError as error:
        reason = cause(error)
    except Exception as error:  # noqa: BLE001  whatever it is, CloudFormation waits for an answer
        reason = f"unexpected failure: {type(error).__name__}"  # its message is not known to be fit for a log
        _log.error("the database role could not be made: %s", type(error).__name__)
    respond(event, reason, refused)
    return {"reason": reason, "refused": refused}


def make_role(instance: dict[str, Any]) -> list[str]:
    """Make the role on the cluster at `{"host", "port"}`; return the statements that were refused.

    Raises:
        BackupError: the cluster or the secret could not be reached.

    """
    settings = Settings.from_environment()
    with Session(deployment.target(settings, instance, "postgres")) as session:
        refused = apply(session, cluster_statements())
        names = settings.databases or discover(session)
    for name in names:
        with Session(deployment.target(settings, instance, name)) as session:
            refused += [f"{name}: {text}" for text in [*apply(session, database_statements()), *missing(session)]]
    for text in refused:
        _log.warning("refused: %s", text)
    return refused


def respond(event: dict[str, Any], reason: str, refused: list[str]) -> None:
    """Tell CloudFormation, by the presigned S3 address that it gave."""
    body = {
        "Status": "FAILED" if reason else "SUCCESS",
        "Reason": (reason or "done")[:_REASON_LIMIT],
        "PhysicalResourceId": event.get("PhysicalResourceId") or f"database-role-{ROLE}",
        **{key: event[key] for key in ("StackId", "RequestId", "LogicalResourceId")},
        "Data": {"Role": ROLE, "Refused": "; ".join(refused)[:_REASON_LIMIT]},
    }
    data = json.dumps(body).encode()
    request = urllib.request.Request(event["ResponseURL"], data=data, method="PUT", headers={"Content-Type": ""})  # noqa: S310  CloudFormation's own address
    with urllib.request.urlopen(request, timeout=30):  # noqa: S310  the same
        pass
