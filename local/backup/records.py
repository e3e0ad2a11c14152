"""Audit frameworks, report plans and restore testing: kept and told, and nothing else happens.

No control is evaluated, no report is written, and no restore test starts by itself.
"""

from __future__ import annotations

import re
from typing import Any

from ministack.core.responses import get_account_id, get_region

from local.protocol import AwsError
from local.rds.state import now

_records: dict[tuple[str, str, str], dict[str, dict[str, Any]]] = {}

_AUDIT_NAME = r"[a-zA-Z][_a-zA-Z0-9]{0,255}"
_TESTING_NAME = r"[a-zA-Z0-9_]{1,50}"
_LONGEST_WINDOW = 168


def _kind(name: str) -> dict[str, dict[str, Any]]:
    return _records.setdefault((get_account_id(), get_region(), name), {})


def _arn(kind: str, name: str) -> str:
    return f"arn:aws:backup:{get_region()}:{get_account_id()}:{kind}:{name}"


def _named(pattern: str, field: str, value: str) -> str:
    if not re.fullmatch(pattern, value):
        raise AwsError("InvalidParameterValueException", f"{field} must match {pattern}, received {value}")
    return value


def _get(kind: str, name: str) -> dict[str, Any]:
    if name not in _kind(kind):
        raise AwsError("ResourceNotFoundException", f"{kind} {name} does not exist")
    return _kind(kind)[name]


def _new(kind: str, name: str, record: dict[str, Any]) -> dict[str, Any]:
    if name in _kind(kind):
        raise AwsError("AlreadyExistsException", f"{kind} {name} already exists")
    _kind(kind)[name] = record
    return record


def create_framework(request: dict[str, Any]) -> dict[str, Any]:
    """CreateFramework."""
    name = _named(_AUDIT_NAME, "FrameworkName", request["FrameworkName"])
    state = {"FrameworkArn": _arn("framework", name), "CreationTime": now(), "DeploymentStatus": "COMPLETED"}
    return _new("framework", name, {**request, **state, "FrameworkStatus": "ACTIVE"})


def describe_framework(request: dict[str, Any]) -> dict[str, Any]:
    """DescribeFramework."""
    return _get("framework", request["FrameworkName"])


def update_framework(request: dict[str, Any]) -> dict[str, Any]:
    """UpdateFramework."""
    record = _get("framework", request["FrameworkName"])
    record.update(request)
    return record


def list_frameworks(_request: dict[str, Any]) -> dict[str, Any]:
    """ListFrameworks."""
    told = ("FrameworkName", "FrameworkArn", "FrameworkDescription", "CreationTime", "DeploymentStatus")
    found = [
        {**{key: record[key] for key in told if key in record}, "NumberOfControls": len(record["FrameworkControls"])}
        for record in _kind("framework").values()
    ]
    return {"Frameworks": found}


def delete_framework(request: dict[str, Any]) -> None:
    """DeleteFramework."""
    del _kind("framework")[_get("framework", request["FrameworkName"])["FrameworkName"]]


def create_report_plan(request: dict[str, Any]) -> dict[str, Any]:
    """CreateReportPlan."""
    name = _named(_AUDIT_NAME, "ReportPlanName", request["ReportPlanName"])
    state = {"ReportPlanArn": _arn("report-plan", name), "CreationTime": now(), "DeploymentStatus": "COMPLETED"}
    return _new("report-plan", name, {**request, **state})


def describe_report_plan(request: dict[str, Any]) -> dict[str, Any]:
    """DescribeReportPlan."""
    return {"ReportPlan": _get("report-plan", request["ReportPlanName"])}


def update_report_plan(request: dict[str, Any]) -> dict[str, Any]:
    """UpdateReportPlan."""
    record = _get("report-plan", request["ReportPlanName"])
    record.update(request)
    return record


def list_report_plans(_request: dict[str, Any]) -> dict[str, Any]:
    """ListReportPlans."""
    return {"ReportPlans": list(_kind("report-plan").values())}


def delete_report_plan(request: dict[str, Any]) -> None:
    """DeleteReportPlan."""
    del _kind("report-plan")[_get("report-plan", request["ReportPlanName"])["ReportPlanName"]]


def create_testing_plan(request: dict[str, Any]) -> dict[str, Any]:
    """CreateRestoreTestingPlan."""
    plan = request["RestoreTestingPlan"]
    name = _named(_TESTING_NAME, "RestoreTestingPlanName", plan["RestoreTestingPlanName"])
    state = {"RestoreTestingPlanArn": _arn("restore-testing-plan", name), "CreationTime": now()}
    return _new("restore-testing-plan", name, {**plan, **state})


def get_testing_plan(request: dict[str, Any]) -> dict[str, Any]:
    """GetRestoreTestingPlan."""
    return {"RestoreTestingPlan": _get("restore-testing-plan", request["RestoreTestingPlanName"])}


def update_testing_plan(request: dict[str, Any]) -> dict[str, Any]:
    """UpdateRestoreTestingPlan."""
    record = _get("restore-testing-plan", request["RestoreTestingPlanName"])
    record.update(request["RestoreTestingPlan"], UpdateTime=now())
    return record


def list_testing_plans(_request: dict[str, Any]) -> dict[str, Any]:
    """ListRestoreTestingPlans."""
    return {"RestoreTestingPlans": list(_kind("restore-testing-plan").values())}


def delete_testing_plan(request: dict[str, Any]) -> None:
    """DeleteRestoreTestingPlan: one without selections."""
    name = request["RestoreTestingPlanName"]
    _get("restore-testing-plan", name)
    if any(record["RestoreTestingPlanName"] == name for record in _kind("restore-testing-selection").values()):
        raise AwsError("InvalidRequestException", f"Restore testing plan {name} still has selections")
    del _kind("restore-testing-plan")[name]


def create_testing_selection(request: dict[str, Any]) -> dict[str, Any]:
    """CreateRestoreTestingSelection."""
    plan = _get("restore-testing-plan", request["RestoreTestingPlanName"])
    selection = request["RestoreTestingSelection"]
    name = _named(_TESTING_NAME, "RestoreTestingSelectionName", selection["RestoreTestingSelectionName"])
    hours = selection.get("ValidationWindowHours", 0)
    if not 0 <= hours <= _LONGEST_WINDOW:
        raise AwsError("InvalidParameterValueException", f"ValidationWindowHours must be 0 to 168, received {hours}")
    state = {
        "RestoreTestingPlanName": plan["RestoreTestingPlanName"],
        "RestoreTestingPlanArn": plan["RestoreTestingPlanArn"],
        "CreationTime": now(),
    }
    return _new("restore-testing-selection", f"{plan['RestoreTestingPlanName']}/{name}", {**selection, **state})


def _selection(request: dict[str, Any]) -> dict[str, Any]:
    return _get("restore-testing-selection", _key(request))


def _key(request: dict[str, Any]) -> str:
    return f"{request['RestoreTestingPlanName']}/{request['RestoreTestingSelectionName']}"


def get_testing_selection(request: dict[str, Any]) -> dict[str, Any]:
    """GetRestoreTestingSelection."""
    return {"RestoreTestingSelection": _selection(request)}


def update_testing_selection(request: dict[str, Any]) -> dict[str, Any]:
    """UpdateRestoreTestingSelection."""
    record = _selection(request)
    record.update(request["RestoreTestingSelection"], UpdateTime=now())
    return record


def list_testing_selections(request: dict[str, Any]) -> dict[str, Any]:
    """ListRestoreTestingSelections."""
    name = request["RestoreTestingPlanName"]
    found = [r for r in _kind("restore-testing-selection").values() if r["RestoreTestingPlanName"] == name]
    return {"RestoreTestingSelections": found}


def delete_testing_selection(request: dict[str, Any]) -> None:
    """DeleteRestoreTestingSelection."""
    _selection(request)
    del _kind("restore-testing-selection")[_key(request)]
