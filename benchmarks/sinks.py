"""S3 servers that keep nothing: one as fast as this machine, one shaped like a connection to S3.

They answer the calls that an upload makes as S3 does (conditional writes, unknown uploads, missing parts and absent
keys included) and remember how large each object was, but they throw large bodies away, unread where the kernel lets
them, and check no checksum and no signature. They cost next to nothing, so that what is measured is the uploader.
Bodies of at most a mebibyte are kept: manifests and creation records can be read back.

`python -m benchmarks.sinks --port N [--rate BYTES_PER_SECOND --latency SECONDS]`
"""

from __future__ import annotations

import argparse
import re
import socket
import sys
import threading
import time
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

KEPT = 1 << 20
_CHUNK = 1 << 20
_PART = re.compile(rb"<Part>.*?</Part>", re.DOTALL)
_NUMBER = re.compile(rb"<PartNumber>(\d+)</PartNumber>")


@dataclass(frozen=True)
class Shape:
    """What one connection is like. rate: bytes a second, None for no limit. latency: seconds before each answer."""

    rate: float | None = None
    latency: float = 0.0


NULL = Shape()
SHAPED = Shape(rate=90e6, latency=0.03)


@dataclass(frozen=True)
class _Object:
    size: int
    etag: str
    body: bytes | None = None
    crc32: str | None = None


@dataclass
class _Store:
    """Every object by "bucket/key", and the parts of every open upload by its id: (key, {number: bytes})."""

    objects: dict[str, _Object] = field(default_factory=dict)
    uploads: dict[str, tuple[str, dict[int, int]]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)
    made: int = 0

    def number(self) -> int:
        self.made += 1
        return self.made


class Sink(ThreadingHTTPServer):
    """One server on 127.0.0.1. port: 0 chooses a free one."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, shape: Shape, port: int = 0) -> None:
        self.shape = shape
        self.store = _Store()
        super().__init__(("127.0.0.1", port), _Handler)

    @property
    def endpoint_url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is no news."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Refused(Exception):  # noqa: N818  an S3 error answer
    def __init__(self, status: HTTPStatus, code: str) -> None:
        super().__init__(code)
        self.status, self.code = status, code


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Sink

    def setup(self) -> None:
        self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = bytearray(_CHUNK)
        super().setup()

    def log_message(self, *_: object) -> None:
        return

    def do_GET(self) -> None:
        self._serve()

    do_HEAD = do_PUT = do_POST = do_DELETE = do_GET  # noqa: N815  http.server looks for these names

    def _serve(self) -> None:
        if "Content-Length" not in self.headers and self.command in {"PUT", "POST"}:
            self.send_error(HTTPStatus.LENGTH_REQUIRED)  # nobody sends chunks over plain HTTP
            self.close_connection = True
            return
        size = int(self.headers.get("Content-Length") or 0)
        body = self._receive(size)
        time.sleep(self.server.shape.latency)
        parts = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
        path = unquote(parts.path).lstrip("/")
        try:
            with self.server.store.lock:
                answer = getattr(self, f"_{self.command.lower()}")(path, query, size, body)
        except _Refused as refused:
            text = "" if self.command == "HEAD" else f"<Error><Code>{refused.code}</Code><Message/></Error>"
            answer = (refused.status, {}, text.encode())
        self._answer(*answer)

    def _receive(self, size: int) -> bytes | None:
        """Read the request's body; return it when it is small enough to keep."""
        if size <= KEPT:
            return self.rfile.read(size)
        begun = time.monotonic()
        left = size - len(self.rfile.read1(_CHUNK))  # what came with the headers; after this nothing is buffered
        rate = self.server.shape.rate
        while left:
            if rate and (ahead := begun + (size - left) / rate - time.monotonic()) > 0.001:
                time.sleep(ahead)
            # MSG_TRUNC on TCP discards the bytes inside the kernel: no copy.
            got = self.request.recv_into(self._buffer, min(left, _CHUNK), socket.MSG_TRUNC)
            if not got:
                raise ConnectionResetError("the client hung up")
            left -= got
        if rate:
            time.sleep(max(0.0, begun + size / rate - time.monotonic()))
        return None

    def _answer(self, status: HTTPStatus, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _conditions(self, path: str) -> None:
        present = self.server.store.objects.get(path)
        if self.headers.get("If-None-Match") == "*" and present:
            raise _Refused(HTTPStatus.PRECONDITION_FAILED, "PreconditionFailed")
        wanted = self.headers.get("If-Match")
        if wanted and (present is None or present.etag != wanted):
            raise _Refused(HTTPStatus.PRECONDITION_FAILED, "PreconditionFailed")

    def _upload(self, upload_id: str) -> tuple[str, dict[int, int]]:
        try:
            return self.server.store.uploads[upload_id]
        except KeyError:
            raise _Refused(HTTPStatus.NOT_FOUND, "NoSuchUpload") from None

    def _put(self, path: str, query: dict[str, str], size: int, body: bytes | None) -> _Answer:
        store = self.server.store
        etag = f'"{store.number():032x}"'
        if "uploadId" in query:
            self._upload(query["uploadId"])[1][int(query["partNumber"])] = size
            return HTTPStatus.OK, {"ETag": etag}, b""
        self._conditions(path)
        store.objects[path] = _Object(size, etag, body)
        return HTTPStatus.OK, {"ETag": etag}, b""

    def _post(self, path: str, query: dict[str, str], _size: int, body: bytes | None) -> _Answer:
        store = self.server.store
        bucket, _, key = path.partition("/")
        if "uploads" in query:
            upload_id = f"upload-{store.number()}"
            store.uploads[upload_id] = (path, {})
            names = f"<Bucket>{escape(bucket)}</Bucket><Key>{escape(key)}</Key><UploadId>{upload_id}</UploadId>"
            text = f"<InitiateMultipartUploadResult>{names}</InitiateMultipartUploadResult>"
            return HTTPStatus.OK, {}, text.encode()
        sent = self._upload(query["uploadId"])[1]
        named = [int(found[1]) for part in _PART.findall(body or b"") if (found := _NUMBER.search(part))]
        if not named or named != sorted(set(named)) or not set(named) <= set(sent):
            raise _Refused(HTTPStatus.BAD_REQUEST, "InvalidPart")
        self._conditions(path)
        etag, size = f'"{store.number():032x}-{len(named)}"', sum(sent[number] for number in named)
        store.objects[path] = _Object(size, etag, crc32=self.headers.get("x-amz-checksum-crc32"))
        del store.uploads[query["uploadId"]]
        names = f"<Key>{escape(key)}</Key><ETag>{escape(etag)}</ETag>"
        text = f"<CompleteMultipartUploadResult>{names}</CompleteMultipartUploadResult>"
        return HTTPStatus.OK, {}, text.encode()

    def _head(self, path: str, _query: dict[str, str], _size: int, _body: bytes | None) -> _Answer:
        found = self.server.store.objects.get(path)
        if found is None:
            raise _Refused(HTTPStatus.NOT_FOUND, "NotFound")
        headers = {"ETag": found.etag, "Content-Length": str(found.size)}
        if found.crc32:
            headers |= {"x-amz-checksum-crc32": found.crc32, "x-amz-checksum-type": "FULL_OBJECT"}
        return HTTPStatus.OK, headers, b""

    def _get(self, path: str, query: dict[str, str], _size: int, _body: bytes | None) -> _Answer:
        if "list-type" in query:
            bucket, prefix = path.partition("/")[0], query.get("prefix", "")
            found = sorted(
                (key.partition("/")[2], thing.size)
                for key, thing in self.server.store.objects.items()
                if key.startswith(f"{bucket}/{prefix}")
            )
            items = "".join(f"<Contents><Key>{escape(key)}</Key><Size>{size}</Size></Contents>" for key, size in found)
            text = f"<ListBucketResult><IsTruncated>false</IsTruncated>{items}</ListBucketResult>"
            return HTTPStatus.OK, {}, text.encode()
        thing = self.server.store.objects.get(path)
        if thing is None:
            raise _Refused(HTTPStatus.NOT_FOUND, "NoSuchKey")
        if thing.body is None:
            raise _Refused(HTTPStatus.NOT_IMPLEMENTED, "NotImplemented")
        return HTTPStatus.OK, {"ETag": thing.etag}, thing.body

    def _delete(self, path: str, query: dict[str, str], _size: int, _body: bytes | None) -> _Answer:
        if "uploadId" in query:
            self._upload(query["uploadId"])
            del self.server.store.uploads[query["uploadId"]]
        else:
            self.server.store.objects.pop(path, None)
        return HTTPStatus.NO_CONTENT, {}, b""


_Answer = tuple[HTTPStatus, dict[str, str], bytes]


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--rate", type=float)
    parser.add_argument("--latency", type=float, default=0.0)
    arguments = parser.parse_args()
    Sink(Shape(arguments.rate, arguments.latency), arguments.port).serve_forever()


if __name__ == "__main__":
    main()
