"""AWS's wire protocols, driven by botocore's own service models.

An operation of the local AWS is a function from a request to a response, both in the shapes that boto3 shows (aware
datetimes, lists, plain dicts). This module carries them over the query protocol (RDS), REST-JSON (AWS Backup), and the
`aws-sdk` integrations of Step Functions, which spell names the way the AWS SDK for Java 2 does.
"""

from __future__ import annotations

import datetime as dt
import json
import re
import uuid
from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote
from xml.sax.saxutils import escape

import botocore.session
from botocore.model import ListShape, MapShape, StructureShape

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from botocore.model import OperationModel, ServiceModel, Shape

    Operation = Callable[[dict[str, Any]], dict[str, Any] | None]
    Response = tuple[int, dict[str, str], bytes]


class AwsError(Exception):
    """An error that a service answers with. `name` is the error's shape (`DBClusterNotFoundFault`) or its bare code."""

    def __init__(self, name: str, message: str, status: int = 400) -> None:
        """Name the error as the service's model does; its code and HTTP status are looked up there."""
        super().__init__(message)
        self.name, self.message, self.status = name, message, status


@cache
def service_model(service: str) -> ServiceModel:
    """Botocore's model of `service`."""
    return botocore.session.get_session().get_service_model(service)


def error_code(service: str, error: AwsError) -> tuple[str, int]:
    """The code and HTTP status that `error` travels with."""
    model = service_model(service)
    if error.name not in model.shape_names:
        return error.name, error.status
    metadata = model.shape_for(error.name).metadata.get("error", {})
    return metadata.get("code", error.name), metadata.get("httpStatusCode", error.status)


class Api:
    """The operations of one service that we answer ourselves."""

    def __init__(self, service: str, operations: Mapping[str, Operation]) -> None:
        """Every key of `operations` must be an operation that botocore knows."""
        self.service = service
        self.operations = operations
        self.model = service_model(service)
        for name in operations:
            self.model.operation_model(name)

    def _answer(self, operation: OperationModel, request: dict[str, Any]) -> dict[str, Any]:
        required = operation.input_shape.required_members if operation.input_shape else []
        missing = [name for name in required if request.get(name) in (None, "")]
        if missing:
            raise AwsError(
                "InvalidParameterValue", f"The parameter {missing[0]} must be provided and must not be blank."
            )
        return self.operations[operation.name](request) or {}

    # --- the query protocol
    def query(self, name: str, parameters: Mapping[str, Any]) -> Response:
        """Answer the operation `name`, whose form parameters are flattened (`Filters.Filter.1.Name`)."""
        operation = self.model.operation_model(name)
        namespace = f"http://{self.service}.amazonaws.com/doc/{self.model.api_version}/"
        headers = {"Content-Type": "text/xml"}
        try:
            request = _read(operation.input_shape, _tree(parameters)) if operation.input_shape else {}
            result = self._answer(operation, request)
        except AwsError as error:
            code, status = error_code(self.service, error)
            body = (
                f'<ErrorResponse xmlns="{namespace}"><Error><Type>Sender</Type><Code>{escape(code)}</Code>'
                f"<Message>{escape(error.message)}</Message></Error><RequestId>{uuid.uuid4()}</RequestId></ErrorResponse>"
            )
            return status, headers, body.encode()
        inner = ""
        if operation.output_shape:
            wrapper = operation.output_shape.serialization.get("resultWrapper", f"{name}Result")
            inner = f"<{wrapper}>{_xml_members(operation.output_shape, result)}</{wrapper}>"
        body = (
            f'<{name}Response xmlns="{namespace}">{inner}<ResponseMetadata><RequestId>{uuid.uuid4()}</RequestId>'
            f"</ResponseMetadata></{name}Response>"
        )
        return 200, headers, body.encode()

    # --- REST with JSON
    def rest(self, method: str, path: str, query: Mapping[str, Any], body: bytes | str) -> Response | None:
        """Answer a REST request, or return None when it is for an operation that is not ours."""
        found = self._route(method, path)
        if found is None:
            return None
        operation, labels = found
        headers = {"Content-Type": "application/json"}
        try:
            request = _rest_request(operation, labels, query, json.loads(body) if body else {})
            result = self._answer(operation, request)
        except AwsError as error:
            code, status = error_code(self.service, error)
            document = {"__type": code, "Code": code, "Message": error.message}
            return status, {**headers, "x-amzn-errortype": code}, json.dumps(document).encode()
        document = _json(operation.output_shape, result, _epoch) if operation.output_shape else {}
        return 200, headers, json.dumps(document).encode()

    def _route(self, method: str, path: str) -> tuple[OperationModel, dict[str, str]] | None:
        best = None
        for name in self.operations:
            operation = self.model.operation_model(name)
            if operation.http["method"] != method:
                continue
            template = operation.http["requestUri"].split("?")[0].rstrip("/")
            pattern = re.sub(
                r"\\\{(\w+)(\\\+)?\\\}", lambda m: f"(?P<{m[1]}>{'.+' if m[2] else '[^/]+'})", re.escape(template)
            )
            match = re.fullmatch(pattern, path.rstrip("/"))
            if match and (best is None or len(match.groups()) < len(best[1])):  # the most literal template wins
                best = operation, {key: unquote(value) for key, value in match.groupdict().items()}
        return best

    # --- Step Functions
    def step_functions(self, action: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Answer `aws-sdk:<service>:<action>`; unknown parameters are a ValueError, as Step Functions refuses them."""
        operation = self.model.operation_model(action[0].upper() + action[1:])
        request = _from_sdk(operation.input_shape, parameters, "$") if operation.input_shape else {}
        result = self._answer(operation, request)
        return _json(operation.output_shape, result, _iso, sdk_name) if operation.output_shape else {}

    def step_functions_error(self, error: AwsError) -> str:
        """The error name that a Catch or Retry of a state machine sees: `Rds.DbClusterNotFoundException`."""
        prefix = self.service.capitalize()
        if error.name not in self.model.shape_names:
            return f"{prefix}.{prefix}Exception"
        base = re.sub(r"(Fault|Exception)$", "", error.name)
        return f"{prefix}.{re.sub(r'[A-Z]+(?=[A-Z][a-z]|$)', lambda m: m[0].capitalize(), base)}Exception"


def _pattern(template: str) -> str:
    """The regular expression of a URI template such as /backup-vaults/{backupVaultName}."""
    label = r"\\\{(\w+)(\\\+)?\\\}"
    return re.sub(label, lambda m: f"(?P<{m[1]}>{'.+' if m[2] else '[^/]+'})", re.escape(template))


def sdk_name(name: str) -> str:
    """A member's name in Step Functions: a leading acronym loses its capitals, the rest stays as it is.

    DBClusterIdentifier becomes DbClusterIdentifier; SourceDBClusterIdentifier does not change.
    """
    leading = re.match(r"[A-Z]{2,}(?=[A-Z][a-z]|$)", name)
    return name if not leading else leading[0].capitalize() + name[leading.end() :]


# --- reading
def _tree(parameters: Mapping[str, Any]) -> dict[str, Any]:
    root: dict[str, Any] = {}
    for name, value in parameters.items():
        node = root
        *parents, leaf = name.split(".")
        for part in parents:
            node = node.setdefault(part, {})
        node[leaf] = value[0] if isinstance(value, list) else value
    return root


def _read(shape: Shape, node: Any) -> Any:
    if isinstance(shape, StructureShape):
        return {
            name: _read(member, node[wire])
            for name, member in shape.members.items()
            if (wire := member.serialization.get("name", name)) in node
        }
    if isinstance(shape, ListShape):
        if not isinstance(node, dict):  # an empty list travels as an empty string
            return []
        items = node if all(key.isdigit() for key in node) else next(iter(node.values()))
        return [_read(shape.member, items[key]) for key in sorted(items, key=int)]
    return scalar(shape, node)


def scalar(shape: Shape, value: Any) -> Any:
    """One value off the wire, as boto3 would show it."""
    if shape.type_name == "boolean":
        return str(value).lower() == "true"
    if shape.type_name in ("integer", "long"):
        try:
            return int(value)
        except ValueError:
            raise AwsError("InvalidParameterValue", f"{value} is not a number") from None
    if shape.type_name in ("double", "float"):
        return float(value)
    if shape.type_name == "timestamp":
        return _moment(value)
    return value


def _moment(value: Any) -> dt.datetime:
    if isinstance(value, dt.datetime):
        return value
    if isinstance(value, int | float):
        return dt.datetime.fromtimestamp(value, dt.UTC)
    try:
        moment = dt.datetime.fromisoformat(str(value))
    except ValueError:
        raise AwsError("InvalidParameterValue", f"Invalid timestamp {value}") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)


def _rest_request(
    operation: OperationModel,
    labels: Mapping[str, str],
    query: Mapping[str, Any],
    document: Mapping[str, Any],
) -> dict[str, Any]:
    request: dict[str, Any] = {}
    for name, member in operation.input_shape.members.items() if operation.input_shape else ():
        wire = member.serialization.get("name", name)
        location = member.serialization.get("location")
        source = {"uri": labels, "querystring": query}.get(location or "", document)
        if wire in source:
            value = source[wire]
            request[name] = _from_json(
                member, value[0] if location == "querystring" and isinstance(value, list) else value
            )
    return request


def _from_json(shape: Shape, value: Any) -> Any:
    if isinstance(shape, StructureShape):
        members = {member.serialization.get("name", name): (name, member) for name, member in shape.members.items()}
        return {members[k][0]: _from_json(members[k][1], v) for k, v in value.items() if k in members and v is not None}
    if isinstance(shape, ListShape):
        return [_from_json(shape.member, item) for item in value]
    if isinstance(shape, MapShape):
        return dict(value)
    return scalar(shape, value)


def _from_sdk(shape: Shape, value: Any, where: str) -> Any:
    if isinstance(shape, StructureShape):
        members = {sdk_name(name): (name, member) for name, member in shape.members.items()}
        unknown = sorted(set(value) - set(members))
        if unknown:
            raise ValueError(f"The field {unknown[0]!r} at {where} is not one of {', '.join(sorted(members))}")
        return {members[k][0]: _from_sdk(members[k][1], v, f"{where}.{k}") for k, v in value.items() if v is not None}
    if isinstance(shape, ListShape):
        return [_from_sdk(shape.member, item, f"{where}[{i}]") for i, item in enumerate(value)]
    if isinstance(shape, MapShape):
        return dict(value)
    return scalar(shape, value)


def coerce(shape: Shape, value: Any) -> Any:
    """A value from a template, where numbers and booleans may be strings, as boto3 would pass it.

    Members that the shape does not know are left out.
    """
    if isinstance(shape, StructureShape):
        return {k: coerce(shape.members[k], v) for k, v in value.items() if k in shape.members and v is not None}
    if isinstance(shape, ListShape):
        return [coerce(shape.member, item) for item in value]
    if isinstance(shape, MapShape):
        return dict(value)
    return scalar(shape, value)


# --- writing
def _xml_members(shape: StructureShape, value: Mapping[str, Any]) -> str:
    return "".join(
        _xml(member.serialization.get("name", name), member, value[name])
        for name, member in shape.members.items()
        if value.get(name) is not None
    )


def _xml(tag: str, shape: Shape, value: Any) -> str:
    if isinstance(shape, StructureShape):
        return f"<{tag}>{_xml_members(shape, value)}</{tag}>"
    if isinstance(shape, ListShape):
        item = shape.member.serialization.get("name", "member")
        return f"<{tag}>{''.join(_xml(item, shape.member, each) for each in value)}</{tag}>"
    if isinstance(value, bool):
        return f"<{tag}>{str(value).lower()}</{tag}>"
    return f"<{tag}>{escape(_iso(value) if isinstance(value, dt.datetime) else str(value))}</{tag}>"


def _json(
    shape: Shape,
    value: Any,
    moment: Callable[[dt.datetime], Any],
    rename: Callable[[str], str] | None = None,
) -> Any:
    if isinstance(shape, StructureShape):
        return {
            rename(name) if rename else member.serialization.get("name", name): _json(
                member, value[name], moment, rename
            )
            for name, member in shape.members.items()
            if value.get(name) is not None
        }
    if isinstance(shape, ListShape):
        return [_json(shape.member, item, moment, rename) for item in value]
    if isinstance(shape, MapShape):
        return dict(value)
    return moment(value) if isinstance(value, dt.datetime) else value


def _iso(moment: dt.datetime) -> str:
    return moment.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def _epoch(moment: dt.datetime) -> float:
    return round(moment.timestamp(), 3)
