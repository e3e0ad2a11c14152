"""The recovery constructs in a stack of their own, and their state machines ready to be driven in-process."""

from __future__ import annotations

import json
from functools import cache
from typing import TYPE_CHECKING, Any

from aws_cdk import aws_backup as backup

from aurora_backup.policy import RetentionPolicy
from cdk_aurora_backup.alerts import BackupAlerts
from cdk_aurora_backup.backup_bucket import BackupBucket
from cdk_aurora_backup.backup_key import BackupKey
from cdk_aurora_backup.functions import BackupFunctions, DatabaseNetwork
from cdk_aurora_backup.recovery import Recovery
from cdk_aurora_backup.restore_testing import RestoreTesting
from tests.recovery_world import PROD, PROD_ID, Machine
from tests.synth.synthesis import Synthesised, imported_cluster, new_stack, some_clients, some_secret, some_vpc

if TYPE_CHECKING:
    from collections.abc import Mapping

WORKFLOWS = ("Baselines", "OnDemandSnapshot", "PointInTimeRecovery", "RecoveryTest", "NativeRestoreTest")


def recovery_stack(**options: Any) -> Synthesised:
    """A stack with everything of Recovery, of an imported cluster with a secret."""
    stack = new_stack("Recovery")
    target = imported_cluster(stack, secret=some_secret(stack), endpoint="clinic.example")
    policy = RetentionPolicy.hipaa()
    key = BackupKey(stack, "Key").key
    bucket = BackupBucket(stack, "Storage", key=key, policy=policy).bucket
    alerts = BackupAlerts(stack, "Alerts", key=key, cluster=target.cluster, emails=["oncall@example.org"])
    vpc = some_vpc(stack)
    network = DatabaseNetwork(stack, "Network", vpc=vpc, target=target)
    vault = backup.BackupVault(stack, "Vault", encryption_key=key)
    testing = RestoreTesting(stack, "Testing", target=target, policy=policy, vault=vault, key=key, vpc=vpc)
    functions = BackupFunctions(
        stack, "Functions", target=target, policy=policy, bucket=bucket, key=key, clients=some_clients(stack)
    )
    Recovery(
        stack,
        "Recovery",
        functions=functions,
        network=network,
        alerts=alerts,
        **{"heartbeat": True, "restore_testing": testing, **options},
    )
    return Synthesised.of(stack)


@cache
def synthesised() -> Synthesised:
    """The stack with its defaults, made once."""
    return recovery_stack()


def machine(workflow: str) -> Machine:
    """One workflow's state machine, told that the cluster is the world's."""
    stack = synthesised()
    (name,) = [n for n in stack.state_machines() if f"Recovery{workflow}Workflow" in n]
    definition = json.loads(json.dumps(stack.state_machines()[name]))
    functions = {}
    for function in stack.ids("AWS::Lambda::Function"):
        properties = stack.resources[function]["Properties"]
        handler = properties["Handler"].split(".")[-2]
        functions[f"<{function}.Arn>"] = (handler, _environment(function, properties))
    return Machine(workflow, definition, functions)


def _environment(name: str, properties: Mapping[str, Any]) -> dict[str, str]:
    variables = {name: str(value) for name, value in properties["Environment"]["Variables"].items()}
    return {**variables, "CLUSTER_ID": PROD, "CLUSTER_RESOURCE_ID": PROD_ID, "AWS_LAMBDA_FUNCTION_NAME": name}


def environment_of(handler: str) -> dict[str, str]:
    """The environment of the only function with this handler."""
    stack = synthesised()
    functions = {name: stack.resources[name]["Properties"] for name in stack.ids("AWS::Lambda::Function")}
    ((name, found),) = [(n, f) for n, f in functions.items() if f["Handler"].split(".")[-2] == handler]
    return _environment(name, found)


def task_states(workflow: str) -> list[str]:
    """The names of all task states of a workflow."""
    return [name for name, state in machine(workflow).definition["States"].items() if state["Type"] == "Task"]
