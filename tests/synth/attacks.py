"""The attack table: what a stolen administrator can do to each copy, evaluated over synthesised policies.

IAM decisions are the engine's (tools/evaluate_iam.mjs); what services refuse by their own rules is the data's
`services`; whether somebody hears of it is decided by matching the rules of the template (moto's matcher).
"""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moto.events.models import EventPattern

from tests.synth.synthesis import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tests.synth.hardened import App
    from tests.synth.resolution import Resolved

DATA = json.loads((ROOT / "tests/data/attacks.json").read_text())
ADMINISTRATOR = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
_OPEN = {  # what an attacker would put in place of the policy of a key or a bucket
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "*", "Resource": "*"}],
}
# Each copy: (tier, which attacks' `destroys` end it, in which account it lies).
COPIES = {
    "point-in-time recovery": ("pitr", "key"),
    "on-demand snapshots": ("on-demand", "key"),
    "weekly and monthly, main vault": ("vault", "key"),
    "weekly and monthly, second account": ("kept-vault", "kept-vault-key"),
    "logical sets, main bucket": ("bucket", "key"),
    "logical sets, second account": ("kept-bucket", "kept-key"),
    "evidence, second account": ("kept-evidence", "kept-key"),
}


@dataclass
class Target:
    """What an attack is made on: an ARN, whose it is, its resource policy, and the state that services look at."""

    arn: str
    account: str
    policy: Any = None
    protection: str | None = None
    names: dict[str, Any] = field(default_factory=dict)
    state: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class Outcome:
    """How one attack ends under one option set, first as deployed, then when every protection that breaks is broken."""

    attack: str
    verdict: str
    why: str
    alarmed: bool
    afterwards: str

    @property
    def cell(self) -> str:
        """The table's cell."""
        if self.verdict == "denied":
            return f"denied ({self.why})"
        possible = "possible, alarmed" if self.alarmed else "possible"
        return f"{possible} ({self.why})" if self.why else possible


def _one(stack: Resolved, kind: str, wanted: str = "") -> tuple[str, dict[str, Any]]:
    found = [(n, p) for n, p in stack.of(kind) if wanted in n]
    if len(found) != 1:
        raise LookupError(f"one {kind} with {wanted!r} was expected in {stack.stack}, got {[n for n, _ in found]}")
    return found[0]


def _policy_of(stack: Resolved, bucket: str) -> Any:
    return next((p["PolicyDocument"] for _, p in stack.of("AWS::S3::BucketPolicy") if p["Bucket"] == bucket), None)


def _vault(stack: Resolved) -> tuple[str, Any, set[str]]:
    """(ARN, access policy, state) of the stack's vault."""
    gapped = list(stack.of("AWS::Backup::LogicallyAirGappedBackupVault"))
    name, properties = gapped[0] if gapped else _one(stack, "AWS::Backup::BackupVault")
    state = {"vault-not-empty"}
    lock = properties.get("LockConfiguration")
    if gapped or lock:
        state.add("vault-lock")
    if gapped or (lock or {}).get("ChangeableForDays"):
        state.add("compliance")
    return stack.arn(name), properties.get("AccessPolicy"), state


def _bucket(stack: Resolved) -> tuple[str, Any, set[str]]:
    """(name, policy, state) of the bucket that holds dump sets."""
    name, properties = _one(stack, "AWS::S3::Bucket", "StorageBucket")
    rule = properties.get("ObjectLockConfiguration", {}).get("Rule", {}).get("DefaultRetention", {})
    return (
        stack.name(name),
        _policy_of(stack, stack.name(name)),
        {"object-lock"} if rule.get("Mode") == "COMPLIANCE" else set(),
    )


def _key(stack: Resolved, wanted: str) -> tuple[str, Any]:
    name, properties = _one(stack, "AWS::KMS::Key", wanted)
    return stack.arn(name), properties["KeyPolicy"]


def targets(app: App) -> dict[str, Target]:
    """Everything that attacks are made on, by the name that the data uses."""
    main, account, region = app.protected, app.protected.account, app.protected.region
    rds = f"arn:aws:rds:{region}:{account}"
    vault, vault_policy, vault_state = _vault(main)
    bucket, bucket_policy, bucket_state = _bucket(main)
    key, key_policy = _key(main, "Key")
    cluster, properties = _one(main, "AWS::RDS::DBCluster")
    encrypted = {"encrypted"} if properties["StorageEncrypted"] else set()
    rule, alarm, function, schedule, topic, role = (
        min(n for n, _ in main.of(f"AWS::{kind}"))
        for kind in (
            "Events::Rule", "CloudWatch::Alarm", "Lambda::Function", "Scheduler::Schedule", "SNS::Topic", "IAM::Role",
        )
    )  # fmt: skip
    plan, _ = _one(main, "AWS::Backup::BackupPlan")
    found = {
        "automated": Target(f"{rds}:cluster-auto-backup:ab-1", account),
        "cluster": Target(main.arn(cluster), account),
        "manual-snapshot": Target(f"{rds}:cluster-snapshot:by-hand", account, state=encrypted),
        "recovery-point": Target(
            f"{rds}:cluster-snapshot:awsbackup:job-1", account, vault_policy, "vault-policy", state=vault_state
        ),
        "vault": Target(vault, account, vault_policy, "vault-policy", state=vault_state),
        "bucket": Target(
            f"arn:aws:s3:::{bucket}", account, bucket_policy, "bucket-policy", {"bucketName": bucket}, bucket_state
        ),
        "object": Target(
            f"arn:aws:s3:::{bucket}/logical-backups/a", account, bucket_policy, "bucket-policy", {}, bucket_state
        ),
        "key": Target(key, account, key_policy, "key-policy"),
        "rule": Target(main.arn(rule), account, names={"name": main.name(rule)}),
        "rule-targets": Target(main.arn(rule), account, names={"rule": main.name(rule)}),
        "alarm": Target(main.arn(alarm), account, names={"alarmNames": [main.name(alarm)]}),
        "function": Target(main.arn(function), account, names={"functionName": main.name(function)}),
        "schedule": Target(main.arn(schedule), account, names={"name": main.name(schedule)}),
        "topic": Target(main.arn(topic), account, names={"topicArn": main.arn(topic)}),
        "topic-data": Target(main.arn(topic), account, names={"resourceArn": main.arn(topic)}),
        "subscription": Target(
            main.arn(topic),
            account,
            names={"subscriptionArn": f"{main.arn(topic)}:1f8c0ab2-0000-4000-8000-000000000000"},
        ),
        "role": Target(main.arn(role), account, names={"roleName": main.name(role)}),
        "plan": Target(main.arn(plan), account),
        "change-set": Target(
            f"arn:aws:cloudformation:{region}:{account}:stack/{main.stack}/1f8c0ab2",
            account,
            names={"changeSetName": f"arn:aws:cloudformation:{region}:{account}:changeSet/quiet/1f8c0ab2"},
        ),
        "trail": Target(f"arn:aws:cloudtrail:{region}:{account}:trail/all", account, names={"name": "all"}),
        "account": Target("*", account),
    }
    if glass := _break_glass(key_policy):
        found["break-glass"] = Target(glass, account, names={"roleName": glass.rpartition("/")[2]})
    if app.keeper:
        found |= _kept(app.keeper, _evidence_mode(main))
        # The same object as its replica sees it: what is overwritten here is overwritten there.
        state = {"keeps-overwritten"} if _keeps_overwritten(app.keeper) else set()
        found["replicated-object"] = replace(found["object"], state=state)
    return found


def _evidence_mode(stack: Resolved) -> str:
    """The mode of Object Lock in which evidence is written, and so replicated."""
    variables = (p.get("Environment", {}).get("Variables", {}) for _, p in stack.of("AWS::Lambda::Function"))
    (mode,) = {v["EVIDENCE_LOCK"] for v in variables if "EVIDENCE_LOCK" in v}
    return str(mode)


def _keeps_overwritten(stack: Resolved) -> bool:
    """Whether the lifecycle of the stack's bucket keeps overwritten versions as long as those that are not."""
    _, properties = _one(stack, "AWS::S3::Bucket", "StorageBucket")
    rules = [r for r in properties["LifecycleConfiguration"]["Rules"] if "ExpirationInDays" in r]
    return all(r["NoncurrentVersionExpiration"]["NoncurrentDays"] >= r["ExpirationInDays"] for r in rules)


def _break_glass(key_policy: Any) -> str | None:
    """The role that the key's policy lets delete it; None for the root user, whom no administrator becomes."""
    denials = [s for s in key_policy["Statement"] if s["Effect"] == "Deny"]
    named = [arn for s in denials for arn in s["Condition"]["ArnNotEquals"]["aws:PrincipalArn"] if ":role/" in arn]
    return named[0] if named else None


def _kept(stack: Resolved, evidence: str) -> dict[str, Target]:
    account, region = stack.account, stack.region
    vault, vault_policy, vault_state = _vault(stack)
    bucket, bucket_policy, bucket_state = _bucket(stack)
    key, key_policy = _key(stack, "SetsKey")
    point = f"arn:aws:rds:{region}:{account}:cluster-snapshot:awsbackup:copyjob-1"
    names = {"bucketName": bucket}
    found = {
        "kept-recovery-point": Target(point, account, vault_policy, "kept-vault-policy", state=vault_state),
        "kept-vault": Target(vault, account, vault_policy, "kept-vault-policy", state=vault_state),
        "kept-bucket": Target(
            f"arn:aws:s3:::{bucket}", account, bucket_policy, "kept-bucket-policy", names, bucket_state
        ),
        "kept-object": Target(
            f"arn:aws:s3:::{bucket}/logical-backups/a", account, bucket_policy, "kept-bucket-policy", {}, bucket_state
        ),
        "kept-evidence": Target(  # its own retention takes the place of the bucket's
            f"arn:aws:s3:::{bucket}/compliance-backups/evidence/a",
            account,
            bucket_policy,
            "kept-bucket-policy",
            {},
            {"object-lock"} if evidence == "COMPLIANCE" else set(),
        ),
        "kept-key": Target(key, account, key_policy, "kept-key-policy"),
    }
    if own := [(n, p) for n, p in stack.of("AWS::KMS::Key") if "Sets" not in n]:  # an air-gapped vault has AWS's own
        found["kept-vault-key"] = Target(stack.arn(own[0][0]), account, own[0][1]["KeyPolicy"], "kept-vault-key-policy")
    if glass := _break_glass(key_policy):
        found["kept-break-glass"] = Target(glass, account, names={"roleName": glass.rpartition("/")[2]})
    return found


def _simulation(
    identity: str, principal: str, attack: Mapping[str, Any], target: Target, policy: Any
) -> dict[str, Any]:
    return {
        "id": identity,
        "request": {
            "principal": principal,
            "action": attack["action"],
            "resource": {"resource": target.arn, "accountId": target.account},
            "contextVariables": {"aws:SecureTransport": "true", "s3:TlsVersion": "1.3", **attack.get("context", {})},
        },
        "identityPolicies": [{"name": "administrator", "policy": ADMINISTRATOR}],
        "serviceControlPolicies": [],
        "resourceControlPolicies": [],
        **({"resourcePolicy": policy} if policy else {}),
    }


def evaluate(simulations: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The engine's answers by id. Raises RuntimeError for a simulation that it could not run."""
    done = subprocess.run(
        ["node", "tools/evaluate_iam.mjs"],
        cwd=ROOT,
        input=json.dumps(simulations),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"the IAM engine failed: {done.stderr[-2000:]}")
    answers = {answer["id"]: answer for answer in json.loads(done.stdout)}
    if wrong := [answer for answer in answers.values() if "error" in answer]:
        raise RuntimeError(f"the IAM engine refused a simulation: {wrong[:2]}")
    return answers


def table(apps: Mapping[str, App], *, by: str | None = None) -> dict[str, list[Outcome]]:
    """Every attack under every option set, by an administrator of an account (Default: the protected one).

    One run of the engine. An administrator of the second account is only tried on what lies there.
    """
    simulations: list[dict[str, Any]] = []
    wanted = {
        option: {n: t for n, t in targets(app).items() if by in {None, t.account}} for option, app in apps.items()
    }
    for option, found in wanted.items():
        principal = f"arn:aws:iam::{by or apps[option].protected.account}:role/administrator"
        for n, attack in enumerate(DATA["attacks"]):
            if target := found.get(attack["on"]):
                broken = _OPEN if (target.protection or "").endswith(("key-policy", "bucket-policy")) else None
                simulations += [
                    _simulation(f"{option}/{n}/as deployed", principal, attack, target, target.policy),
                    _simulation(
                        f"{option}/{n}/broken",
                        principal,
                        attack,
                        target,
                        broken if target.protection else target.policy,
                    ),
                ]
    answers = evaluate(simulations)
    return {option: list(_outcomes(option, answers, found, apps[option].protected)) for option, found in wanted.items()}


def _service(action: str, state: Iterable[str]) -> tuple[str, str]:
    """What the service itself makes of a call that policies allow: `harmless` is one that it takes, to no effect."""
    for rule in DATA["services"]:
        for verdict, actions in (("denied", "refuses"), ("harmless", "survives")):
            if action in rule.get(actions, ()) and rule["while"] in state:
                return verdict, rule["why"]
    return "possible", ""


def _decide(answer: Mapping[str, Any], action: str, state: Iterable[str]) -> tuple[str, str]:
    if answer["decision"] != "Allowed":
        statements = sorted({d["statement"] for d in answer["denied"] if d["statement"]})
        return "denied", f"policy: {', '.join(statements)}" if statements else "not of that account"
    return _service(action, state)


def _outcomes(
    option: str, answers: Mapping[str, Any], found: Mapping[str, Target], stack: Resolved
) -> Iterable[Outcome]:
    rules = {n: EventPattern.load(json.dumps(p["EventPattern"])) for n, p in stack.of("AWS::Events::Rule")}
    possible = {n: attack for n, attack in enumerate(DATA["attacks"]) if attack["on"] in found}
    broken: set[str] = set()
    while True:  # an attacker goes round until nothing more breaks
        before = set(broken)
        for n, attack in possible.items():
            target = found[attack["on"]]
            way = "broken" if target.protection in broken else "as deployed"
            if _decide(answers[f"{option}/{n}/{way}"], attack["action"], _left(target, broken))[0] == "possible":
                broken |= set(attack["breaks"])
        if broken == before:
            break
    for n, attack in possible.items():
        target = found[attack["on"]]
        verdict, why = _decide(answers[f"{option}/{n}/as deployed"], attack["action"], target.state)
        way = "broken" if target.protection in broken else "as deployed"
        afterwards, _ = _decide(answers[f"{option}/{n}/{way}"], attack["action"], _left(target, broken))
        yield Outcome(attack["name"], verdict, why, _heard(attack, target, rules, stack), afterwards)


def _left(target: Target, broken: set[str]) -> set[str]:
    """The target's state once these protections are broken."""
    lock = "kept-vault-lock" if (target.protection or "").startswith("kept-") else "vault-lock"
    return target.state - {"vault-lock"} if lock in broken else target.state


def _heard(attack: Mapping[str, Any], target: Target, rules: Mapping[str, EventPattern], stack: Resolved) -> bool:
    """Whether a rule, other than one that the attack is made on, hears of it."""
    if not told_in(attack, stack.region):
        return False
    service, name = attack["event"]
    event = {
        "source": f"aws.{service}",
        "detail-type": "AWS API Call via CloudTrail",
        "account": stack.account,
        "detail": {
            "eventSource": f"{service}.amazonaws.com",
            "eventName": name,
            "sourceIPAddress": "203.0.113.7",
            "requestParameters": target.names,
        },
    }
    return any(p.matches_event(event) for rule, p in rules.items() if stack.arn(rule) != target.arn)


def told_in(attack: Mapping[str, Any], region: str) -> bool:
    """Whether CloudTrail tells EventBridge of the attack in this Region."""
    return bool(attack["event"]) and attack.get("region", region) == region


def survivors(outcomes: Iterable[Outcome], app: App) -> dict[str, bool]:
    """Which copies can still be read after all attacks together, of those that the option set makes."""
    ended: set[str] = set()
    by_name = {attack["name"]: attack for attack in DATA["attacks"]}
    for outcome in outcomes:
        if outcome.afterwards == "possible":
            ended |= set(by_name[outcome.attack]["destroys"])
    made = {n: ends for n, ends in COPIES.items() if app.keeper or not ends[0].startswith("kept-")}
    return {name: not ended & set(ends) for name, ends in made.items()}


def document(results: Mapping[str, list[Outcome]], apps: Mapping[str, App], *, copies: str = "") -> str:
    """Two tables of docs/threat-model.md: attacks, and the copies whose name contains `copies`."""
    options = list(results)
    lines = ["| attack | " + " | ".join(options) + " |", "|---" * (len(options) + 1) + "|"]
    cells = {option: {o.attack: o.cell for o in outcomes} for option, outcomes in results.items()}
    lines += [
        f"| {attack['name']} | " + " | ".join(cells[o].get(attack["name"], "-") for o in options) + " |"
        for attack in DATA["attacks"]
        if any(attack["name"] in found for found in cells.values())
    ]
    lines += [
        "",
        "| copy, after all of them together | " + " | ".join(options) + " |",
        "|---" * (len(options) + 1) + "|",
    ]
    left = {option: survivors(outcomes, apps[option]) for option, outcomes in results.items()}
    for copy in (name for name in COPIES if copies in name):
        marks = [{True: "**survives**", False: "lost", None: "-"}[left[option].get(copy)] for option in options]
        lines.append(f"| {copy} | " + " | ".join(marks) + " |")
    return "\n".join(lines) + "\n"


DOCUMENT = Path(ROOT / "docs/threat-model.md")
