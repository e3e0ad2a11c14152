"""Types that MiniStack's CloudFormation refuses although its API has them, and types that are only recorded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ministack.core.responses import get_account_id, get_region
from ministack.services.cloudformation import provisioners

from local.cloudformation.register import Created, Properties, Provisioner, physical_name, register
from local.protocol import coerce, service_model
from local.runtime import current

if TYPE_CHECKING:
    from collections.abc import Callable

_CUSTOM = "AWS::CloudFormation::CustomResource"
_CLOSED_GROUP = "Custom::VpcRestrictDefaultSG"
_RECORDED = (
    "AWS::ApplicationAutoScaling::ScalableTarget",
    "AWS::CloudTrail::Trail",
    "AWS::CloudWatch::AnomalyDetector",
    "AWS::Config::ConfigRule",
    "AWS::EC2::FlowLog",
    "AWS::EC2::NetworkAcl",
    "AWS::EC2::NetworkAclEntry",
    "AWS::EC2::SubnetNetworkAclAssociation",
    "AWS::Events::EventBusPolicy",
    "AWS::IAM::ServiceLinkedRole",
    "AWS::Logs::QueryDefinition",
    "AWS::RDS::DBProxy",
    "AWS::ResourceGroups::Group",
    "AWS::SSM::Document",
    "AWS::SecretsManager::ResourcePolicy",
    "AWS::SecretsManager::RotationSchedule",
    "AWS::XRay::Group",
)


@dataclass(frozen=True)
class _Call:
    """A resource that is one API call; `name` is the property that names it, `arn` the form of its ARN."""

    service: str
    create: str
    delete: str
    name: str
    remove: Callable[[str], dict[str, Any]]
    arn: str


_CALLS = {
    "AWS::CloudWatch::CompositeAlarm": _Call(
        service="cloudwatch",
        create="PutCompositeAlarm",
        delete="DeleteAlarms",
        name="AlarmName",
        remove=lambda name: {"AlarmNames": [name]},
        arn="arn:aws:cloudwatch:{region}:{account}:alarm:{name}",
    ),
}


def install() -> None:
    """Register the types."""
    for kind, call in _CALLS.items():
        register(kind, _by_call(call))
    _metric_math_alarms()
    for kind in _RECORDED:
        register(kind, Provisioner(create=_record, update=_keep, delete=lambda _name, _properties: None))
    for direction in ("Ingress", "Egress"):
        register(f"AWS::EC2::SecurityGroup{direction}", _security_group_rule(direction.lower()))
    theirs = provisioners._custom_resource_create

    def create(logical_id: str, properties: Properties, stack: str, kind: str = _CUSTOM) -> Any:
        if kind == _CLOSED_GROUP:
            return _close_default_group(properties, physical_name(stack, logical_id, longest=100))
        return theirs(logical_id, properties, stack, kind)

    provisioners._custom_resource_create = create


def _close_default_group(properties: Properties, name: str) -> Created:
    """What CDK's own Node.js function for `Custom::VpcRestrictDefaultSG` does; no Node.js functions run here."""
    ec2, group = _client("ec2"), properties["DefaultSecurityGroupId"]
    found = ec2.describe_security_groups(GroupIds=[group])["SecurityGroups"][0]
    for rules, revoke in (
        (found["IpPermissions"], ec2.revoke_security_group_ingress),
        (found["IpPermissionsEgress"], ec2.revoke_security_group_egress),
    ):
        if rules:
            revoke(GroupId=group, IpPermissions=rules)
    return name, {}


def _client(service: str) -> Any:
    """Our own endpoint, in the Region and account of the stack."""
    import boto3

    return boto3.client(
        service,
        endpoint_url=current().endpoint_url,
        region_name=get_region(),
        aws_access_key_id=get_account_id(),
        aws_secret_access_key="local",
    )


def _by_call(call: _Call) -> Provisioner:
    shape = service_model(call.service).operation_model(call.create).input_shape

    def put(name: str, properties: Properties) -> Created:
        own = [tag for tag in properties.get("Tags") or () if not tag["Key"].startswith("aws:")]
        request = {**coerce(shape, {**properties, "Tags": own}), call.name: name}
        _client(call.service)._make_api_call(call.create, request)
        return name, {"Arn": call.arn.format(region=get_region(), account=get_account_id(), name=name)}

    def create(logical_id: str, properties: Properties, stack: str) -> Created:
        return put(properties.get(call.name) or physical_name(stack, logical_id, longest=200), properties)

    return Provisioner(
        create=create,
        update=lambda name, _old, new, _stack: put(name, new),
        delete=lambda name, _properties: _client(call.service)._make_api_call(call.delete, call.remove(name)),
    )


def _metric_math_alarms() -> None:
    """Alarms on an expression, which MiniStack refuses: kept with name, threshold and actions, and never evaluated."""
    kind = "AWS::CloudWatch::Alarm"
    theirs = dict(provisioners._RESOURCE_HANDLERS[kind])

    def plain(properties: Properties) -> Properties:
        if "Metrics" not in properties:
            return properties
        kept = {key: value for key, value in properties.items() if key != "Metrics"}
        return {"MetricName": "metric-math", "Namespace": "NotEvaluated", "Period": 86400, "Statistic": "Sum", **kept}

    def create(logical_id: str, properties: Properties, stack: str) -> Created:
        made: Created = theirs["create"](logical_id, plain(properties), stack)
        return made

    def update(name: str, old: Properties, new: Properties, stack: str) -> Created:
        made: Created = theirs["update"](name, plain(old), plain(new), stack)
        return made

    register(kind, Provisioner(create=create, update=update, delete=theirs["delete"]))


def _record(logical_id: str, _properties: Properties, stack: str) -> Created:
    name = physical_name(stack, logical_id, longest=100)
    return name, {"Arn": f"arn:aws:local:{get_region()}:{get_account_id()}:{name}", "Id": name}


def _keep(name: str, _old: Properties, _new: Properties, _stack: str) -> Created:
    return name, {"Arn": f"arn:aws:local:{get_region()}:{get_account_id()}:{name}", "Id": name}


def _security_group_rule(direction: str) -> Provisioner:
    def permission(properties: Properties) -> dict[str, Any]:
        rule: dict[str, Any] = {"IpProtocol": str(properties.get("IpProtocol", "-1"))}
        for key in ("FromPort", "ToPort"):
            if key in properties:
                rule[key] = int(properties[key])
        group = properties.get("SourceSecurityGroupId") or properties.get("DestinationSecurityGroupId")
        if group:
            rule["UserIdGroupPairs"] = [{"GroupId": group}]
        if properties.get("CidrIp"):
            rule["IpRanges"] = [{"CidrIp": properties["CidrIp"]}]
        return {"GroupId": properties["GroupId"], "IpPermissions": [rule]}

    def create(logical_id: str, properties: Properties, stack: str) -> Created:
        getattr(_client("ec2"), f"authorize_security_group_{direction}")(**permission(properties))
        name = physical_name(stack, logical_id, longest=100)
        return name, {"Id": name}

    def delete(_name: str, properties: Properties) -> None:
        getattr(_client("ec2"), f"revoke_security_group_{direction}")(**permission(properties))

    return Provisioner(create=create, delete=delete)
