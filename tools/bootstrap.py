"""Set up .venv and node_modules from the project's own pinned files. Standard library only.

Runs under a lock, so that `make drill` and `make test` can be started at once. What is missing gets one line.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
MIN_PYTHON = (3, 11)
MIN_NODE = 20
INPUTS = ("requirements.txt", "requirements-dev.txt", "pyproject.toml", "package-lock.json")


def die(message: str) -> None:
    print(f"setup: {message}", file=sys.stderr)
    sys.exit(1)


def check_tools() -> None:
    if sys.version_info < MIN_PYTHON:
        have = ".".join(map(str, sys.version_info[:3]))
        die(f"Python >= 3.11 is needed, and {sys.executable} is {have}: run make PYTHON=/path/to/python3.11 ...")
    node, npm = shutil.which("node"), shutil.which("npm")
    if not node or not npm:
        die("Node.js >= 20 with npm is needed (jsii and the CDK CLI run on it), and none is on PATH")
    version = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    if int(version.lstrip("v").split(".")[0]) < MIN_NODE:
        die(f"Node.js >= 20 is needed, and {node} is {version}")


def run(*command: str) -> None:
    done = subprocess.run(
        command,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        print(done.stdout[-4000:], file=sys.stderr)
        die(f"this failed: {' '.join(command)}")


def main() -> None:
    check_tools()
    build = ROOT / "build"
    build.mkdir(exist_ok=True)
    with (build / ".setup.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        digest = hashlib.sha256(sys.version.encode())
        for name in INPUTS:
            digest.update((ROOT / name).read_bytes())
        stamp = VENV / ".stamp"
        if stamp.exists() and stamp.read_text() == digest.hexdigest() and (ROOT / "node_modules/.bin/cdk").exists():
            return
        print("setup: Python packages into .venv, the CDK CLI into node_modules (once, about two minutes)", flush=True)
        python = str(VENV / "bin/python")
        if not Path(python).exists():
            run(sys.executable, "-m", "venv", "--clear", str(VENV))
        run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", "requirements-dev.txt")
        run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "-e", ".")
        run("npm", "ci", "--no-audit", "--no-fund", "--silent")
        stamp.write_text(digest.hexdigest())


if __name__ == "__main__":
    os.umask(0o022)
    main()
