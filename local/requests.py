"""Which operation a request on the wire is, by botocore's own models: `s3:ListObjectVersions`."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from local.protocol import service_model

if TYPE_CHECKING:
    from collections.abc import Mapping

    from botocore.model import OperationModel

_SIGNED_AS = {"states": "stepfunctions", "monitoring": "cloudwatch"}  # signing name -> botocore's name
_LABEL = re.compile(r"\\\{(\w+)(\\\+)?\\\}")


@dataclass(frozen=True)
class Request:
    """A request. headers: names in lower case. query: the last value of each parameter. body: empty when not read."""

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def service(self) -> str | None:
        """The service that it is signed for, by botocore's name; None without a signature of ours."""
        found = re.search(r"Credential=[^/]+/\d+/[^/]+/([^/]+)/aws4_request", self.headers.get("authorization", ""))
        return _SIGNED_AS.get(found[1], found[1]) if found else None

    @property
    def parameters(self) -> dict[str, str]:
        """What it sends beside its body's document: the query string, and the form of the query protocol."""
        form = (
            self.body if self.headers.get("content-type", "").startswith("application/x-www-form-urlencoded") else b""
        )
        return {**self.query, **{name: values[-1] for name, values in parse_qs(form.decode()).items()}}

    @property
    def operation(self) -> str | None:
        """Its operation, `rds:DescribeDBClusters`; None when it is for no operation that botocore knows."""
        service = self.service
        if service is None:
            return None
        target = self.headers.get("x-amz-target", "").rpartition(".")[2]
        name = target or self.parameters.get("Action") or _route(service, self)
        return f"{service}:{name}" if name else None


@dataclass(frozen=True)
class _Route:
    name: str
    path: re.Pattern[str]
    literals: Mapping[str, str]
    required: frozenset[str]
    """Of the query string and, in lower case, of the headers."""


@cache
def _routes(service: str, method: str) -> tuple[_Route, ...]:
    """The REST operations of a service, those that ask for most first."""
    model = service_model(service)
    operations = [model.operation_model(name) for name in model.operation_names]
    found = [_routed(o) for o in operations if o.http.get("method") == method]
    return tuple(sorted(found, key=lambda r: (-len(r.literals) - len(r.required), -len(r.path.pattern), r.name)))


def _routed(operation: OperationModel) -> _Route:
    path, _, query = operation.http["requestUri"].partition("?")
    # A client of the same model takes the bucket out of requestUri, and keeps the path with it in authPath.
    path = str(operation.http.get("authPath") or path)
    pattern = _LABEL.sub(lambda m: ".+" if m[2] else "[^/]+", re.escape(path.rstrip("/")))
    literals = dict(part.partition("=")[::2] for part in query.split("&") if part)
    shape, required = operation.input_shape, set()
    for name in shape.required_members if shape else ():
        where = shape.members[name].serialization
        if where.get("location") == "querystring":
            required.add(where["name"])
        elif where.get("location") == "header":
            required.add(where["name"].lower())
    return _Route(operation.name, re.compile(pattern), literals, frozenset(required))


def _route(service: str, request: Request) -> str | None:
    given = {*request.query, *request.headers}
    for route in _routes(service, request.method):
        same = all(request.query.get(name) == value for name, value in route.literals.items())
        if same and route.required <= given and route.path.fullmatch(request.path.rstrip("/")):
            return route.name
    return None
