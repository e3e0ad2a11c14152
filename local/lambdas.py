"""Lambda functions, run from their own zips and layers in an interpreter that has nothing else.

Each invocation is a process of its own: a cold start every time. What a function forgot to bundle is missing, as on
AWS; the only packages it finds besides its own are boto3's, which Lambda's Python runtime has too. Memory and `/tmp`
sizes are not enforced; the timeout, the payload size and the reserved concurrency are.

Every call that a function makes to AWS is kept in `calls.jsonl` in the emulator's root, a line for each invocation:
`{"function", "handler", "environment", "calls": [[service, operation, parameters], ...]}`.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import io
import json
import shutil
import stat
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from pathlib import Path
from typing import Any

from ministack.core.lambda_runtime import execution_credentials
from ministack.services import lambda_svc

from local.processes import Guarded
from local.runtime import current

_RUNTIME_PACKAGES = ("boto3", "botocore", "s3transfer", "jmespath", "dateutil", "six", "urllib3")
_PAYLOAD_LIMIT = 6 * 1024 * 1024
CALLS = "calls.jsonl"
_BOOTSTRAP = Path(__file__).with_name("lambda_bootstrap.py")
_making = threading.Lock()


def install() -> None:
    """Run Python functions our way; MiniStack keeps everything around them (concurrency, logs, retries)."""
    lambda_svc._execute_function_warm = execute


def execute(function: dict[str, Any], event: Any, request_id: str) -> dict[str, Any]:
    """One invocation, in the form that MiniStack wants it answered: `body`, `log`, and `error` when it failed."""
    config = function.get("config") or function
    if not str(config.get("Runtime", "")).startswith("python"):
        return _failed("Runtime.InvalidRuntime", f"only Python functions run here, not {config.get('Runtime')}", "")
    payload = json.dumps(event)
    if len(payload) > _PAYLOAD_LIMIT:
        return _failed("RequestEntityTooLargeException", f"Request must be smaller than {_PAYLOAD_LIMIT} bytes", "")
    with tempfile.TemporaryDirectory(prefix="lambda-") as scratch:
        return _run(config, function["code_zip"], event, request_id, Path(scratch))


def _run(config: dict[str, Any], code_zip: bytes, event: Any, request_id: str, scratch: Path) -> dict[str, Any]:
    code, opt = _unpacked("code", [code_zip]), _unpacked("opt", _layers(config))
    timeout = int(config.get("Timeout", 3))
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    invocation = {
        "handler": config["Handler"],
        "event": event,
        "path": [str(code), f"{opt}/python/lib/{version}/site-packages", f"{opt}/python", str(_runtime_packages())],
        "pause_scale": current().wait_scale,
        "context": {
            "request_id": request_id,
            "function_name": config["FunctionName"],
            "function_version": config.get("Version", "$LATEST"),
            "function_arn": config["FunctionArn"],
            "memory": config.get("MemorySize", 128),
            "deadline": time.time() + timeout,
        },
    }
    source, target, calls, log = (scratch / name for name in ("invocation.json", "result.json", "calls", "log"))
    source.write_text(json.dumps(invocation))
    current().home.account.own(scratch / "tmp")
    process = Guarded(
        [*_as_nobody(), _interpreter(), "-I", _BOOTSTRAP, source, target, calls],
        log=log,
        cwd=code,
        env=_environment(config, code, opt, scratch / "tmp"),
        end_with="KILL",
    )
    deadline = time.monotonic() + timeout
    while process.alive and time.monotonic() < deadline:
        time.sleep(0.01)
    timed_out = process.alive
    process.stop()
    said = log.read_text(errors="replace")
    _keep_calls(config, calls)
    if timed_out:
        return _failed(
            "Sandbox.Timedout", f"RequestId: {request_id} Error: Task timed out after {timeout}.00 seconds", said
        )
    if not target.exists():
        return _failed(
            "Runtime.ExitError", f"RequestId: {request_id} Error: Runtime exited without providing a reason", said
        )
    result = json.loads(target.read_text())
    if len(json.dumps(result["body"])) > _PAYLOAD_LIMIT:
        return _failed("Function.ResponseSizeTooLarge", f"Response payload size exceeded {_PAYLOAD_LIMIT} bytes", said)
    return {"body": result["body"], "log": said, **({} if result["ok"] else {"error": True})}


def _keep_calls(config: dict[str, Any], calls: Path) -> None:
    """Add what one invocation called to `calls.jsonl`."""
    lines = calls.read_text().splitlines(keepends=True) if calls.exists() else []
    made = [json.loads(line) for line in lines if line.endswith("\n")]  # a killed function may leave half a line
    about = {
        "function": config["FunctionName"],
        "handler": config["Handler"],
        "environment": (config.get("Environment") or {}).get("Variables", {}),
        "calls": made,
    }
    with _making, (current().root / CALLS).open("a") as file:
        file.write(json.dumps(about) + "\n")


def _as_nobody() -> list[str]:
    """What a command starts with to run as an ordinary user, as Lambda's sandbox does: PostgreSQL insists on it.

    The user may still read what root may, because the interpreter and boto3 can lie behind root's own directories.
    """
    account, setpriv = current().home.account, shutil.which("setpriv")
    if not account.switch or setpriv is None:
        return []
    identity = [f"--reuid={account.uid}", f"--regid={account.gid}", "--clear-groups"]
    return [setpriv, *identity, "--inh-caps=+dac_override", "--ambient-caps=+dac_override", "--"]


def _failed(kind: str, message: str, log: str) -> dict[str, Any]:
    return {"body": {"errorType": kind, "errorMessage": message}, "error": True, "log": log}


def _environment(config: dict[str, Any], code: Path, opt: Path, tmp: Path) -> dict[str, str]:
    runtime = current()
    region = config["FunctionArn"].split(":")[3]
    return {
        "PATH": f"{opt}/bin:{Path(_interpreter()).parent}",  # none of the host: it may have a pg_dump of its own
        "LD_LIBRARY_PATH": f"{opt}/lib",
        "LANG": "en_US.UTF-8",
        "TZ": ":UTC",
        "HOME": str(tmp),
        "TMPDIR": str(tmp),
        **{str(k): str(v) for k, v in (config.get("Environment") or {}).get("Variables", {}).items()},
        "AWS_REGION": region,
        "AWS_DEFAULT_REGION": region,
        "AWS_LAMBDA_FUNCTION_NAME": config["FunctionName"],
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(config.get("MemorySize", 128)),
        "AWS_LAMBDA_FUNCTION_VERSION": config.get("Version", "$LATEST"),
        "AWS_EXECUTION_ENV": f"AWS_Lambda_{config['Runtime']}",
        "LAMBDA_TASK_ROOT": str(code),
        "_HANDLER": config["Handler"],
        **{str(k): str(v) for k, v in execution_credentials(config).items()},
        # What makes it local: where AWS is, and the authority that signed the databases' certificates.
        "AWS_ENDPOINT_URL": runtime.endpoint_url,
        "AWS_EC2_METADATA_DISABLED": "true",
        "PGSSLROOTCERT": str(runtime.home.certificates.ca),
    }


def _layers(config: dict[str, Any]) -> list[bytes]:
    return [blob for layer in config.get("Layers") or () if (blob := lambda_svc._resolve_layer_zip(layer))]


def _unpacked(kind: str, archives: list[bytes]) -> Path:
    """A directory with the archives unpacked over each other in order, made once for the same bytes."""
    digest = hashlib.sha256(b"".join(hashlib.sha256(archive).digest() for archive in archives))
    target = current().root / "lambda" / kind / base64.b32encode(digest.digest()).decode()[:24].lower()
    with _making:
        if not target.exists():
            making = target.with_suffix(".part")
            making.mkdir(parents=True)
            for archive in archives:
                _unzip(archive, making)
            making.rename(target)
    return target


def _unzip(archive: bytes, target: Path) -> None:
    """Unpack with file modes and symbolic links, which `zipfile` leaves out."""
    with zipfile.ZipFile(io.BytesIO(archive)) as source:
        for entry in source.infolist():
            mode = entry.external_attr >> 16
            if stat.S_ISLNK(mode):
                link = target / entry.filename
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(source.read(entry).decode())
                continue
            path = Path(source.extract(entry, target))
            if mode and not entry.is_dir():
                path.chmod(stat.S_IMODE(mode))


def _interpreter() -> str:
    """The Python of an empty virtual environment, made once."""
    home = current().root / "lambda" / "interpreter"
    python = home / "bin" / "python"
    with _making:
        if not python.exists():
            base = getattr(sys, "_base_executable", sys.executable)
            subprocess.run([base, "-m", "venv", "--without-pip", str(home)], check=True, stdin=subprocess.DEVNULL)
    return str(python)


def _runtime_packages() -> Path:
    """A directory with links to the packages that Lambda's Python runtime has besides the standard library."""
    target = current().root / "lambda" / "runtime"
    with _making:
        if not target.exists():
            target.mkdir(parents=True)
            for name in _RUNTIME_PACKAGES:
                spec = importlib.util.find_spec(name)
                if spec is None or spec.origin is None:
                    raise ModuleNotFoundError(f"{name} is not installed")
                origin = Path(spec.origin)
                found = origin.parent if origin.name == "__init__.py" else origin
                (target / found.name).symlink_to(found)
    return target
