"""AWS::Backup::*: vaults with their lock, policy and notifications, selections, and the audit objects."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from ministack.services import backup
from ministack.services.cloudformation import provisioners

from local.backup import records, vaults
from local.backup.api import api
from local.backup.points import lifecycle
from local.cloudformation.register import Created, Properties, Provisioner, physical_name, register
from local.protocol import AwsError, coerce
from local.rds.state import now

if TYPE_CHECKING:
    from collections.abc import Callable


def install() -> None:
    """Register the types."""
    _vaults("AWS::Backup::BackupVault")
    _air_gapped_vaults()
    _plans()
    register("AWS::Backup::BackupSelection", Provisioner(create=_create_selection, delete=_delete_selection))
    register(
        "AWS::Backup::Framework",
        _record("Framework", records.create_framework, records.update_framework, records.delete_framework),
    )
    register(
        "AWS::Backup::ReportPlan",
        _record("ReportPlan", records.create_report_plan, records.update_report_plan, records.delete_report_plan),
    )
    register("AWS::Backup::RestoreTestingPlan", _testing_plan())
    register("AWS::Backup::RestoreTestingSelection", _testing_selection())


def _vaults(kind: str) -> None:
    theirs = dict(provisioners._RESOURCE_HANDLERS[kind])

    def create(logical_id: str, properties: Properties, stack: str) -> Created:
        name, attributes = theirs["create"](logical_id, properties, stack)
        _configure_vault(name, properties, {})
        return name, attributes

    def update(name: str, old: Properties, new: Properties, stack: str) -> Created:
        changed, attributes = theirs["update"](name, old, new, stack)
        _configure_vault(changed, new, old)
        return changed, attributes

    register(kind, Provisioner(create=create, update=update, delete=_delete_vault))


def _delete_vault(name: str, _properties: Properties) -> None:
    if name in backup._vaults:
        vaults.delete({"BackupVaultName": name})


def _configure_vault(name: str, properties: Properties, old: Properties) -> None:
    lock = properties.get("LockConfiguration")
    if lock and lock != old.get("LockConfiguration"):
        if "MinRetentionDays" not in lock:
            raise AwsError("InvalidParameterValueException", "LockConfiguration: MinRetentionDays is required")
        vaults.put_lock({"BackupVaultName": name, **{key: int(value) for key, value in lock.items()}})
    elif old.get("LockConfiguration") and not lock:
        vaults.delete_lock({"BackupVaultName": name})
    policy = properties.get("AccessPolicy")
    if policy:
        text = policy if isinstance(policy, str) else json.dumps(policy)
        vaults.put_policy({"BackupVaultName": name, "Policy": text})
    elif old.get("AccessPolicy"):
        vaults.delete_policy({"BackupVaultName": name})
    if properties.get("Notifications"):
        vaults.put_notifications({"BackupVaultName": name, **properties["Notifications"]})


def _air_gapped_vaults() -> None:
    def create(_logical_id: str, properties: Properties, _stack: str) -> Created:
        name = properties["BackupVaultName"]
        backup._create_vault(name, {"BackupVaultTags": properties.get("BackupVaultTags") or {}})
        record = vaults.vault(name)
        record["VaultType"] = "LOGICALLY_AIR_GAPPED_BACKUP_VAULT"
        retention = {key: properties[key] for key in ("MinRetentionDays", "MaxRetentionDays")}
        _configure_vault(name, {**properties, "LockConfiguration": retention}, {})
        return name, {"BackupVaultArn": record["BackupVaultArn"], "BackupVaultName": name}

    register("AWS::Backup::LogicallyAirGappedBackupVault", Provisioner(create=create, delete=_delete_vault))


def _plans() -> None:
    theirs = dict(provisioners._RESOURCE_HANDLERS["AWS::Backup::BackupPlan"])

    def create(logical_id: str, properties: Properties, stack: str) -> Created:
        _check_plan(properties)
        created: Created = theirs["create"](logical_id, properties, stack)
        return created

    def update(name: str, old: Properties, new: Properties, stack: str) -> Created:
        _check_plan(new)
        updated: Created = theirs["update"](name, old, new, stack)
        return updated

    def delete(name: str, properties: Properties) -> None:
        if any(selection["BackupPlanId"] == name for selection in backup._selections.values()):
            raise ValueError(f"Related backup plan selections must be deleted prior to backup plan deletion: {name}")
        theirs["delete"](name, properties)

    register("AWS::Backup::BackupPlan", Provisioner(create=create, update=update, delete=delete))


def _check_plan(properties: Properties) -> None:
    plan = properties["BackupPlan"]
    for rule in plan["BackupPlanRule"]:
        vaults.vault(rule["TargetBackupVault"])
        days = {key: int(value) for key, value in (rule.get("Lifecycle") or {}).items() if key.endswith("Days")}
        lifecycle(days, now())
        completion, start = int(rule.get("CompletionWindowMinutes", 10080)), int(rule.get("StartWindowMinutes", 480))
        if start < 60 or completion < start + 60:
            raise ValueError(
                f"Invalid windows in rule {rule['RuleName']}: StartWindowMinutes {start} must be at least 60, "
                f"CompletionWindowMinutes {completion} at least 60 more",
            )


def _create_selection(_logical_id: str, properties: Properties, _stack: str) -> Created:
    plan_id = properties["BackupPlanId"]
    status, _, body = backup._create_selection(plan_id, {"BackupSelection": properties["BackupSelection"]})
    document = json.loads(body)
    if status != 200:
        raise ValueError(document["Message"])
    selection_id = document["SelectionId"]
    return f"{selection_id}_{plan_id}", {"SelectionId": selection_id, "BackupPlanId": plan_id, "Id": selection_id}


def _delete_selection(name: str, _properties: Properties) -> None:
    backup._selections.pop(name.partition("_")[0], None)


def _record(
    kind: str,
    create: Callable[[dict[str, Any]], dict[str, Any]],
    update: Callable[[dict[str, Any]], dict[str, Any]],
    delete: Callable[[dict[str, Any]], None],
) -> Provisioner:
    """A provisioner for a type that is only kept, and whose properties are the API's parameters."""
    key, shape = f"{kind}Name", api.model.operation_model(f"Create{kind}").input_shape

    def attributes(record: dict[str, Any]) -> dict[str, Any]:
        return {f"{kind}Arn": record[f"{kind}Arn"], key: record[key], "DeploymentStatus": "COMPLETED"}

    def make(logical_id: str, properties: Properties, stack: str) -> Created:
        name = properties.get(key) or physical_name(stack, logical_id, longest=200).replace("-", "_")
        record = create({**coerce(shape, properties), key: name})
        return record[f"{kind}Arn"], attributes(record)

    def change(arn: str, _old: Properties, new: Properties, _stack: str) -> Created:
        record = update({**coerce(shape, new), key: arn.rsplit(":", 1)[-1]})
        return arn, attributes(record)

    return Provisioner(make, lambda arn, _properties: delete({key: arn.rsplit(":", 1)[-1]}), change)


def _testing_plan() -> Provisioner:
    shape = api.model.operation_model("CreateRestoreTestingPlan").input_shape.members["RestoreTestingPlan"]

    def make(_logical_id: str, properties: Properties, _stack: str) -> Created:
        record = records.create_testing_plan({"RestoreTestingPlan": coerce(shape, properties)})
        return record["RestoreTestingPlanName"], {"RestoreTestingPlanArn": record["RestoreTestingPlanArn"]}

    def change(name: str, _old: Properties, new: Properties, _stack: str) -> Created:
        record = records.update_testing_plan(
            {"RestoreTestingPlanName": name, "RestoreTestingPlan": coerce(shape, new)},
        )
        return name, {"RestoreTestingPlanArn": record["RestoreTestingPlanArn"]}

    return Provisioner(make, lambda name, _p: records.delete_testing_plan({"RestoreTestingPlanName": name}), change)


def _testing_selection() -> Provisioner:
    members = api.model.operation_model("CreateRestoreTestingSelection").input_shape.members
    shape = members["RestoreTestingSelection"]

    def request(properties: Properties) -> dict[str, Any]:
        return {
            "RestoreTestingPlanName": properties["RestoreTestingPlanName"],
            "RestoreTestingSelectionName": properties["RestoreTestingSelectionName"],
            "RestoreTestingSelection": coerce(shape, properties),
        }

    def make(_logical_id: str, properties: Properties, _stack: str) -> Created:
        wanted = request(properties)
        records.create_testing_selection(wanted)
        return f"{wanted['RestoreTestingPlanName']}|{wanted['RestoreTestingSelectionName']}", {}

    def change(name: str, _old: Properties, new: Properties, _stack: str) -> Created:
        records.update_testing_selection(request(new))
        return name, {}

    return Provisioner(make, lambda _name, properties: records.delete_testing_selection(request(properties)), change)
