"""Recorded calls as the IAM requests that AWS would make of them, against the policies of the synthesised roles.

tests/data/calls.json holds what was recorded; the reviewed table (tests/data/operations.json) says for each operation
which actions are asked for, on what, and when: `[action, resource, parameter that must be there or "!" absent]`. A
resource is an ARN with `{Parameter}` in it, or short for one: `cluster:{DBClusterIdentifier}`, `{object}`, `{key}`.
"""

from __future__ import annotations

import json
import re
import sys
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests import recording
from tests.synth.synthesis import ROOT, states

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from tests.synth.resolution import Resolved

CALLS = ROOT / "tests/data/calls.json"
TABLE = json.loads((ROOT / "tests/data/operations.json").read_text())
_SHORT = {"object": "arn:aws:s3:::{Bucket}/{Key}", "bucket": "arn:aws:s3:::{Bucket}", "key": "<BACKUP_KEY_ARN>"}
_ANY = {  # what a call without the parameter is about
    "DBClusterIdentifier", "DBClusterSnapshotIdentifier", "DBInstanceIdentifier", "DBSubnetGroupName",
}  # fmt: skip
_SERVICES = {"secret": "secretsmanager", "backup-vault": "backup", "backup-plan": "backup"}
_HASH = re.compile(r"[0-9A-F]{8}$")
_CONDITIONS = {"IfNoneMatch": "s3:if-none-match", "LegalHold": "s3:object-lock-legal-hold"}  # of puts, by parameter
_WORKFLOW = re.compile(r"[A-Z][a-z]+$")  # what a function's key has after its workflow's
_CREATES = re.compile("restore_db_cluster|create_db_instance|create_db_cluster_snapshot")


@dataclass(frozen=True)
class Function:
    """A deployed function. key: its logical id without the hash, by which what it called is written down."""

    key: str
    handler: str
    role: str
    environment: dict[str, str] = field(hash=False)
    statements: dict[str, dict[str, Any]] = field(hash=False)


def functions(stack: Resolved) -> list[Function]:
    """Every function of ours, with its role's statements by sid."""
    prefix = "aurora_backup.handlers."
    policies = {p["Roles"][0]: p["PolicyDocument"]["Statement"] for _, p in stack.of("AWS::IAM::ManagedPolicy")}
    return [
        Function(
            _HASH.sub("", name),
            p["Handler"].removeprefix(prefix).removesuffix(".handler"),
            p["Role"],
            p["Environment"]["Variables"],
            {s["Sid"]: s for s in policies[p["Role"].rpartition("/")[2]]},
        )
        for name, p in stack.of("AWS::Lambda::Function")
        if str(p.get("Handler")).startswith(prefix)
    ]


def declared(stack: Resolved) -> Iterator[tuple[Function, list[tuple[str, str]]]]:
    """What the roles of workflows, schedules and rules are used for, as the template itself says: (action, resource).

    Raises KeyError for a task of a kind that is not known here.
    """
    policies = {p["Roles"][0]: p["PolicyDocument"]["Statement"] for _, p in stack.of("AWS::IAM::ManagedPolicy")}

    def named(key: str, role: str) -> Function:
        statements = policies[role.rpartition("/")[2]]
        return Function(_HASH.sub("", key), "", role, {}, {s["Sid"]: s for s in statements})

    for name, machine in stack.of("AWS::StepFunctions::StateMachine"):
        tasks = [s for _, s in states(json.loads(machine["DefinitionString"])) if s["Type"] == "Task"]
        asked = [request for task in tasks for request in _of_task(task, stack)]
        yield named(name, machine["RoleArn"]), asked
    for name, schedule in stack.of("AWS::Scheduler::Schedule"):
        target, key = schedule["Target"], schedule["KmsKeyArn"]
        asked = [_start(target["Arn"]), ("sqs:SendMessage", target["DeadLetterConfig"]["Arn"])]
        yield named(name, target["RoleArn"]), [*asked, ("kms:Decrypt", key), ("kms:GenerateDataKey", key)]
    for name, rule in stack.of("AWS::Events::Rule"):
        for target in rule["Targets"]:
            if "RoleArn" in target:
                yield named(name, target["RoleArn"]), [_start(target["Arn"])]


def _start(arn: str) -> tuple[str, str]:
    actions = {"lambda": "lambda:InvokeFunction", "states": "states:StartExecution"}
    return actions[arn.split(":")[2]], arn


def _of_task(task: Mapping[str, Any], stack: Resolved) -> list[tuple[str, str]]:
    resource = task["Resource"]
    if not resource.startswith("arn:aws:states:::"):
        return [_start(resource)]
    kinds = {"sns:publish": "sns:Publish"}
    arn = task["Parameters"]["TopicArn"]
    (key,) = {p["KmsMasterKeyId"] for name, p in stack.of("AWS::SNS::Topic") if stack.arn(name) == arn}
    asked = [(kinds[resource.removeprefix("arn:aws:states:::")], arn)]
    return [*asked, ("kms:Decrypt", key), ("kms:GenerateDataKey", key)]


def wanted() -> dict[str, set[str]]:
    """The parameters that decide about a call, by the call's name."""
    found: dict[str, set[str]] = {}
    for call, rows in TABLE["operations"].items():
        text = " ".join(_SHORT.get(row[1].strip("{}"), row[1]) for row in rows)
        found[call] = {*re.findall(r"\{(\w+)\}", text), *(row[2].lstrip("!") for row in rows if len(row) > 2)}
        if _CREATES.match(call):
            found[call].add("Tags")
        if call.startswith(("put_object", "complete_")):
            found[call] |= set(_CONDITIONS)
    return found


def written(invocations: Iterable[Mapping[str, Any]], known: Iterable[Function]) -> dict[str, set[str]]:
    """What was recorded, by function: each call as the JSON that calls.json holds.

    Raises LookupError for a function that is none of the known ones, and KeyError for a call that the table lacks.
    """
    found: dict[str, set[str]] = {}
    parameters = wanted()
    of_handler: dict[str, list[Function]] = {}
    for function in known:
        of_handler.setdefault(function.handler, []).append(function)
    for invocation in invocations:
        handler = invocation["handler"].removeprefix("aurora_backup.handlers.").removesuffix(".handler")
        if handler not in of_handler:
            continue  # not ours: CDK's own custom resources
        key = _key(invocation["function"], of_handler[handler])
        calls = found.setdefault(key, set())
        calls.update(json.dumps(call, sort_keys=True) for call in recording.normalised(invocation, parameters))
    return found


def _key(name: str, candidates: list[Function]) -> str:
    """The function that a recorded one is: by its handler, and where several have it, by its name.

    CloudFormation puts the stack's name before the logical id and cuts what is too long.
    """
    if len(candidates) == 1:
        return candidates[0].key
    alike = {
        function.key: max(_common(function.key, way) for way in (f"Backup{name}", name.partition("-")[2]))
        for function in candidates
    }
    best = [key for key, length in alike.items() if length == max(alike.values())]
    if len(best) != 1:
        raise LookupError(f"{name} could be any of {', '.join(best)}")
    return best[0]


def _common(one: str, other: str) -> int:
    """How many characters both begin with."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def recorded() -> dict[str, list[tuple[str, dict[str, Any]]]]:
    """calls.json: (call, parameters) by function."""
    return {key: [(call, p) for call, p in calls] for key, calls in json.loads(CALLS.read_text())["functions"].items()}


def write(found: Mapping[str, Iterable[str]]) -> None:
    """Add to calls.json, sorted, a call a line."""
    data = json.loads(CALLS.read_text())
    merged = {key: {json.dumps(call, sort_keys=True) for call in calls} for key, calls in data["functions"].items()}
    for key, calls in found.items():
        merged[key] = merged.get(key, set()) | set(calls)
    rows = {key: ",".join(f"\n      {call}" for call in sorted(calls)) for key, calls in sorted(merged.items())}
    body = ",".join(f"\n    {json.dumps(key)}: [{calls}{calls and chr(10) + '    '}]" for key, calls in rows.items())
    CALLS.write_text(f'{{\n  "about": {json.dumps(data["about"])},\n  "functions": {{{body}\n  }}\n}}\n')


@dataclass(frozen=True)
class Request:
    """One question to IAM: may this role do this to that?"""

    function: str
    call: str
    action: str
    resource: str
    context: tuple[tuple[str, str], ...]


class Requests:
    """Makes requests of recorded calls, as the stack would see them."""

    def __init__(self, stack: Resolved, calls: Mapping[str, list[tuple[str, dict[str, Any]]]]) -> None:
        """calls: (call, parameters) by function, as `recorded` gives them."""
        self._stack, self._calls = stack, calls
        self.functions = {f.key: f for f in functions(stack)}
        self._tags = dict(self._made())

    def all(self) -> list[Request]:
        """Every request, once."""
        found = (
            request
            for key, calls in self._calls.items()
            for call, parameters in calls
            for request in self.of(self.functions[key], call, parameters)
        )
        return list(dict.fromkeys(found))

    def of(self, function: Function, call: str, parameters: Mapping[str, Any]) -> Iterator[Request]:
        """What IAM is asked for one call."""
        told = {**dict.fromkeys(_ANY, "any"), **self._filled(function, parameters)}
        for action, resource, *when in TABLE["operations"][call]:
            if when and (when[0].lstrip("!") in parameters) == when[0].startswith("!"):
                continue
            arn = self._arn(resource, told, function)
            context = {**self._context(call, action, arn, function), **_of_request(told)}
            yield Request(function.key, call, action, arn, tuple(sorted(context.items())))

    def _restored_by(self, function: Function) -> str:
        """The ARN of a cluster that this function's workflow restored."""
        workflow = _WORKFLOW.sub("", function.key)
        return next(
            self._arn(
                "cluster:{DBClusterIdentifier}", self._filled(self.functions[key], parameters), self.functions[key]
            )
            for key, calls in self._calls.items()
            for call, parameters in calls
            if _WORKFLOW.sub("", key) == workflow and call.startswith("restore_db_cluster")
        )

    def _made(self) -> Iterator[tuple[str, dict[str, str]]]:
        """(ARN, tags) of everything that was created with tags."""
        for key, calls in self._calls.items():
            for call, parameters in calls:
                if "Tags" in parameters and _CREATES.match(call):
                    told = self._filled(self.functions[key], parameters)
                    made = next(row[1] for row in TABLE["operations"][call] if row[0] == "rds:AddTagsToResource")
                    yield self._arn(made, told, self.functions[key]), told["Tags"]

    def _filled(self, function: Function, parameters: Mapping[str, Any]) -> dict[str, Any]:
        known = {
            **recording.variables(function.environment), "account": self._stack.account, "region": self._stack.region,
            "restored-secret": self._short("secret:rds!cluster-0"),
        }  # fmt: skip

        def fill(value: Any) -> Any:
            if isinstance(value, dict):
                return {key: fill(inner) for key, inner in value.items()}
            return re.sub(r"<([\w.-]+)>", lambda m: known[m[1]], value) if isinstance(value, str) else value

        told = {key: fill(value) for key, value in parameters.items()}
        if "Key" in told:  # the record writes every owner as 0, and what a function looks up is its own owner's
            told["Key"] = re.sub(r"^(ledger/[\w-]+)/0/", rf"\1/{function.environment.get('OWNER', '0')}/", told["Key"])
        return told

    def _arn(self, template: str, told: Mapping[str, Any], function: Function) -> str:
        short = _SHORT.get(template.strip("{}"), template)
        if short == _SHORT["key"]:
            return function.environment["BACKUP_KEY_ARN"]
        text = re.sub(r"\{(\w+)\}", lambda m: str(told[m[1]]), short)
        if ":arn:" in text:  # a name was asked for, and an ARN was given
            text = text[text.index("arn:") :]
        return text if text == "*" or text.startswith("arn:") else self._short(text)

    def _short(self, text: str) -> str:
        service = _SERVICES.get(text.partition(":")[0], "rds")
        return f"arn:aws:{service}:{self._stack.region}:{self._stack.account}:{text}"

    def _context(self, call: str, action: str, arn: str, function: Function) -> dict[str, str]:
        """What AWS puts beside a request: the tags of what is there, and through which service a key is used."""
        found = {"aws:SecureTransport": "true", "s3:TlsVersion": "1.3", "aws:PrincipalArn": function.role}
        found["aws:PrincipalAccount"] = found["kms:CallerAccount"] = self._stack.account
        found |= {f"aws:ResourceTag/{key}": value for key, value in self._tags.get(arn, {}).items()}
        if arn.endswith(":secret:rds!cluster-0"):
            found["aws:ResourceTag/aws:rds:primaryDBClusterArn"] = self._restored_by(function)
        if action.startswith("kms:"):
            service = TABLE["operations"][call][0][0].partition(":")[0]
            found["kms:ViaService"] = f"{service}.{self._stack.region}.amazonaws.com"
        if action == "kms:CreateGrant":
            found["kms:GrantIsForAWSResource"] = "true"
        if action == "iam:PassRole":
            found["iam:PassedToService"] = "monitoring.rds.amazonaws.com"
        return found


def _of_request(told: Mapping[str, Any]) -> dict[str, str]:
    """What a request itself says that policies ask for."""
    tags = {f"aws:RequestTag/{key}": value for key, value in told.get("Tags", {}).items()}
    return tags | {key: told[parameter] for parameter, key in _CONDITIONS.items() if parameter in told}


def simulation(request: Request, number: int, function: Function, stack: Resolved) -> dict[str, Any]:
    """The request as the engine takes it, with the policy of the bucket or the key that it is made of.

    The engine does not know Secrets Manager's own name of aws:ResourceTag.
    """
    text = json.dumps(list(function.statements.values()))
    statements = json.loads(text.replace("secretsmanager:ResourceTag/", "aws:ResourceTag/"))
    resource = _resource_policy(request.resource, stack)
    return {
        "id": str(number),
        "request": {
            "principal": function.role,
            "action": request.action,
            "resource": {"resource": request.resource, "accountId": stack.account},
            "contextVariables": dict(request.context),
        },
        "identityPolicies": [{"name": function.key, "policy": {"Version": "2012-10-17", "Statement": statements}}],
        "serviceControlPolicies": [],
        "resourceControlPolicies": [],
        **({"resourcePolicy": resource} if resource else {}),
    }


def _resource_policy(arn: str, stack: Resolved) -> Any:
    for name, properties in stack.of("AWS::KMS::Key"):
        if stack.arn(name) == arn:
            return properties["KeyPolicy"]
    for _, properties in stack.of("AWS::S3::BucketPolicy"):
        if arn.split("/", maxsplit=1)[0] == f"arn:aws:s3:::{properties['Bucket']}":
            return properties["PolicyDocument"]
    return None


def main(files: list[str]) -> None:
    """Add what drills and tests recorded to calls.json."""
    from tests.synth import hardened

    invocations = [json.loads(line) for file in files for line in Path(file).read_text().splitlines()]
    write(written(invocations, functions(hardened.synthesised("strongest").protected)))


if __name__ == "__main__":
    main(sys.argv[1:])
