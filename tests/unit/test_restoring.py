from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from aurora_backup.recovery import TO_TIME, Plan, Point, Purpose
from aurora_backup.restoring import Action, ClusterRestoreFailed, next_step

NOW = datetime(2026, 11, 2, 9, tzinfo=UTC)
PLAN = Plan(
    purpose=Purpose.RECOVERY,
    owner="me",
    execution="run-1",
    started=NOW,
    deadline=NOW + timedelta(hours=1),
    expires=None,
    source="prod",
    source_resource_id="cluster-PROD",
    point=Point(tier="automated", moment=NOW),
    target="rescued",
    operation=TO_TIME,
    parameters={"DBClusterIdentifier": "rescued"},
    settings={"BackupRetentionPeriod": 35, "ManageMasterUserPassword": True},
    instances=(
        {"DBInstanceIdentifier": "rescued-1"},
        {"DBInstanceIdentifier": "rescued-2"},
        {"DBInstanceIdentifier": "rescued-3"},
    ),
)
TAGS = [{"Key": "aurora-backup:execution", "Value": "run-1"}]
CLUSTER = {
    "Status": "available",
    "BackupRetentionPeriod": 35,
    "TagList": TAGS,
    "MasterUserSecret": {"SecretStatus": "active"},
}


def instances(*statuses):
    return {f"rescued-{n}": {"DBInstanceStatus": status} for n, status in enumerate(statuses, 1) if status}


@pytest.mark.parametrize(
    ("cluster", "found", "action", "subject"),
    [
        (None, {}, Action.RESTORE, "rescued"),
        ({**CLUSTER, "Status": "creating"}, {}, Action.WAIT, "rescued"),
        ({**CLUSTER, "BackupRetentionPeriod": 1}, {}, Action.MODIFY, "rescued"),
        (CLUSTER, {}, Action.CREATE_INSTANCE, "rescued-1"),
        (CLUSTER, instances("creating"), Action.WAIT, "rescued-1"),
        (CLUSTER, instances("available"), Action.CREATE_INSTANCE, "rescued-2"),
        (CLUSTER, instances("available", "creating"), Action.CREATE_INSTANCE, "rescued-3"),
        (CLUSTER, instances("available", "creating", "creating"), Action.WAIT, "rescued-2"),
        ({**CLUSTER, "MasterUserSecret": None}, instances(*["available"] * 3), Action.MODIFY, "rescued"),
        (
            {**CLUSTER, "MasterUserSecret": {"SecretStatus": "creating"}},
            instances(*["available"] * 3),
            Action.WAIT,
            "rescued",
        ),
        (CLUSTER, instances(*["available"] * 3), Action.DONE, "rescued"),
    ],
)
def test_the_next_step_follows_from_what_is_there(cluster, found, action, subject):
    step = next_step(PLAN, cluster, found, NOW)
    assert (step.action, step.subject) == (action, subject)


def test_settings_that_need_an_instance_are_not_set_before_there_is_one():
    bare = {**CLUSTER, "BackupRetentionPeriod": 1, "MasterUserSecret": None}
    assert next_step(PLAN, bare, {}, NOW).parameters == {"BackupRetentionPeriod": 35}
    assert next_step(PLAN, {**bare, "BackupRetentionPeriod": 35}, {}, NOW).action is Action.CREATE_INSTANCE


@pytest.mark.parametrize("status", ["failed", "incompatible-restore", "inaccessible-encryption-credentials"])
def test_what_waiting_does_not_mend_ends_the_restore(status):
    with pytest.raises(ClusterRestoreFailed, match=f"cluster rescued is {status}"):
        next_step(PLAN, {**CLUSTER, "Status": status}, {}, NOW)
    with pytest.raises(ClusterRestoreFailed, match=f"instance rescued-1 is {status}"):
        next_step(PLAN, CLUSTER, instances(status), NOW)


def test_the_deadline_names_what_was_waited_for():
    with pytest.raises(ClusterRestoreFailed, match=r"deadline .* passed while cluster rescued is creating"):
        next_step(PLAN, {**CLUSTER, "Status": "creating"}, {}, NOW + timedelta(hours=2))


def test_what_is_done_after_the_deadline_is_done():
    assert next_step(PLAN, CLUSTER, instances(*["available"] * 3), NOW + timedelta(hours=2)).action is Action.DONE


def test_a_cluster_of_that_name_that_another_execution_made_is_not_touched():
    with pytest.raises(ClusterRestoreFailed, match="was not made by execution run-1"):
        next_step(PLAN, {**CLUSTER, "TagList": []}, {}, NOW)


def test_a_cluster_that_somebody_else_restored_must_be_there():
    with pytest.raises(ClusterRestoreFailed, match="does not exist any more"):
        next_step(replace(PLAN, operation=None), None, {}, NOW)
