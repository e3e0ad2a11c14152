"""Faults on purpose, for tests: calls that are refused, pages that hold little, snapshots that stay `creating`.

The faults in force are a file in the emulator's root directory, read anew whenever it is written; `LocalAws.faulty`
writes it. Only requests over HTTP meet them: a state machine's own `aws-sdk` calls do not leave the emulator.
"""

from __future__ import annotations

import json
import secrets
from collections import Counter
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlencode
from xml.sax.saxutils import escape

from local.protocol import service_model
from local.requests import Request

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from pathlib import Path

    Scope = dict[str, Any]
    Receive = Callable[[], Awaitable[dict[str, Any]]]
    Send = Callable[[dict[str, Any]], Awaitable[None]]
    App = Any  # hypercorn and MiniStack name its types each in their own way

FILE = "faults.json"
_PAGED = {  # how a request asks for a page's size, where it travels in the query string
    "s3:ListObjectVersions": "max-keys",
    "s3:ListObjectsV2": "max-keys",
    "backup:ListRecoveryPointsByBackupVault": "maxResults",
}


@dataclass(frozen=True, kw_only=True)
class Fault:
    """Refuse calls of one operation.

    operation: as botocore names it, `rds:DescribeDBClusterSnapshots`. sends: only calls that send this parameter, by
    its name on the wire: those with `Marker` or `key-marker` ask for a page that is not the first. after: how many
    calls are let through before. times: how many are refused then; None refuses all.
    """

    operation: str
    code: str = "Throttling"
    message: str = "Rate exceeded"
    status: int = 400
    sends: str | None = None
    after: int = 0
    times: int | None = None


@dataclass(frozen=True, kw_only=True)
class Faults:
    """What is wrong at the moment. page_size: of RDS, S3 and AWS Backup listings. creating: names of snapshots."""

    refuse: tuple[Fault, ...] = ()
    page_size: int | None = None
    creating: tuple[str, ...] = ()
    token: str = ""
    """Another one for each time that the file is written: calls are counted from then on."""

    def write(self, root: Path) -> None:
        """Put these in force, whole or not at all."""
        part = root / f"{FILE}.part"
        part.write_text(json.dumps(asdict(replace(self, token=secrets.token_hex(8)))))
        part.replace(root / FILE)

    @classmethod
    def read(cls, path: Path) -> Faults:
        """What is in force; nothing is wrong without a file."""
        try:
            data = json.loads(path.read_text())
        except FileNotFoundError:
            return cls()
        refuse = tuple(Fault(**fault) for fault in data.pop("refuse"))
        return cls(refuse=refuse, creating=tuple(data.pop("creating")), **data)


class _Injector:
    """The emulator's side: what is in force, and how often each fault was met."""

    def __init__(self) -> None:
        self._path: Path | None = None
        self._seen: tuple[int, int] | None = None
        self._faults, self._calls = Faults(), Counter[int]()

    def watch(self, root: Path) -> None:
        self._path = root / FILE

    @property
    def faults(self) -> Faults:
        if self._path is None:
            return self._faults
        try:
            about = self._path.stat()
            seen: tuple[int, int] | None = (about.st_mtime_ns, about.st_ino)
        except FileNotFoundError:
            seen = None
        if seen != self._seen:
            self._seen, self._calls, self._faults = seen, Counter(), Faults.read(self._path)
        return self._faults

    def met(self, request: Request) -> Fault | None:
        """The fault that this call meets, which counts it."""
        operation, found = request.operation, None
        for number, fault in enumerate(self.faults.refuse):
            if fault.operation != operation or (fault.sends and fault.sends not in request.parameters):
                continue
            self._calls[number] += 1
            past = self._calls[number] - fault.after
            if past > 0 and (fault.times is None or past <= fault.times):
                found = found or fault
        return found


_injector = _Injector()
watch = _injector.watch


def page_size() -> int | None:
    """How much a page of a listing may hold at the moment; None leaves it to the request."""
    return _injector.faults.page_size


def stays_creating(name: str) -> bool:
    """Whether the snapshot of this name must not become available yet."""
    return name in _injector.faults.creating


def around(app: App) -> App:
    """The emulator, with its faults."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        faults = _injector.faults
        if scope["type"] != "http" or not (faults.refuse or faults.page_size):
            await app(scope, receive, send)
            return
        request, receive = await _read(scope, receive)
        if fault := _injector.met(request):
            await _refuse(request, fault, send)
            return
        await app(_paged(scope, request, faults.page_size), receive, send)

    return answer


async def _read(scope: Scope, receive: Receive) -> tuple[Request, Receive]:
    """The request, its body only where that names the operation, and a `receive` that gives everything again."""
    headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
    query = dict(parse_qsl(scope["query_string"].decode(), keep_blank_values=True))
    request = Request(scope["method"], scope["path"], query, headers)
    if not headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
        return request, receive
    messages: list[dict[str, Any]] = []
    more = True
    while more:
        messages.append(await receive())
        more = bool(messages[-1].get("more_body"))
    body = b"".join(message.get("body", b"") for message in messages)

    async def again() -> dict[str, Any]:
        return messages.pop(0) if messages else await receive()

    return replace(request, body=body), again


def _paged(scope: Scope, request: Request, size: int | None) -> Scope:
    name = _PAGED.get(request.operation or "")
    if size is None or name is None:
        return scope
    return {**scope, "query_string": urlencode({**request.query, name: str(size)}).encode()}


async def _refuse(request: Request, fault: Fault, send: Send) -> None:
    kind, body = _error(str(request.service), fault)
    headers = {"content-type": kind, "x-amzn-errortype": fault.code, "content-length": str(len(body))}
    pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": fault.status, "headers": pairs})
    await send({"type": "http.response.body", "body": body})


def _error(service: str, fault: Fault) -> tuple[str, bytes]:
    protocol: Mapping[str, Any] = service_model(service).metadata
    told = f"<Code>{escape(fault.code)}</Code><Message>{escape(fault.message)}</Message>"
    if protocol["protocol"] == "query":
        return "text/xml", f"<ErrorResponse><Error><Type>Sender</Type>{told}</Error></ErrorResponse>".encode()
    if protocol["protocol"] == "rest-xml":
        return "application/xml", f"<Error>{told}</Error>".encode()
    return "application/json", json.dumps({"__type": fault.code, "message": fault.message}).encode()
