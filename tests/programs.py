"""Programs whose results many tests read: `cdk synth`, cfn-lint, examples, the wheel. Each fills a directory."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent

Done = subprocess.CompletedProcess[str]

_NODE = {"JSII_SILENCE_WARNING_END_OF_LIFE_NODE_VERSION": "20", "JSII_SILENCE_WARNING_UNTESTED_NODE_VERSION": "1"}

# app.py as it is, and beside its stack one with a bucket that nobody would accept.
_CARELESS = """
import runpy
import aws_cdk as cdk
import aws_cdk.aws_s3 as s3
from cdk_aurora_backup import stack

class WithACarelessOne(stack.AuroraBackupStack):
    def __init__(self, scope, config):
        super().__init__(scope, config)
        s3.Bucket(cdk.Stack(scope, "Careless"), "Bucket")

stack.AuroraBackupStack = WithACarelessOne
runpy.run_path("app.py", run_name="__main__")
"""


def run(*command: str | Path, cwd: Path = ROOT, env: dict[str, str] | None = None, **variables: str) -> Done:
    """Run a program to its end, with the tests' interpreter and the project's `cdk` first on PATH, and no AWS account.

    env: instead of this process's environment.
    """
    if env is None:
        own = [str(Path(sys.executable).parent), str(ROOT / "node_modules" / ".bin")]
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "CDK_"))}
        env = {**kept, **_NODE, "PATH": os.pathsep.join([*own, os.environ["PATH"]])}
    return subprocess.run(
        command,
        cwd=cwd,
        env={**env, **variables},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


@dataclass(frozen=True)
class Synths:
    """What the CDK CLI left and said, and cfn-lint of it."""

    plain: Path
    """As `make synth` runs it."""
    plain_done: Done
    careless: Path
    """Again, with other hashes, without CDK's own validator, and beside a stack that the packs refuse."""
    careless_done: Done
    linted: Done
    misspelt: Done
    """app.py with a setting that is none."""


def synths(directory: Path) -> Synths:
    """Two synths by the unmodified CDK CLI, and what goes with them."""
    script = directory / "careless.py"
    script.write_text(_CARELESS)
    plain, careless = directory / "plain", directory / "careless"
    synth = ("cdk", "synth", "--quiet", "--output")
    plain_done = run(*synth, plain, PYTHONHASHSEED="1")
    options = ("--app", f"{sys.executable} {script}")
    careless_done = run(*synth, careless, *options, PYTHONHASHSEED="2", PYTHONPATH=str(ROOT), CDK_VALIDATION="false")
    # W3005: CDK writes DependsOn beside a GetAtt that implies it, which is redundant and harmless.
    lint = ("cfn-lint", "--ignore-checks", "W3005", "--format", "parseable", "--template")
    misspelt = run(sys.executable, "app.py", CDK_CONTEXT_JSON='{"backup:profil": "dev"}')
    return Synths(plain, plain_done, careless, careless_done, run(*lint, *plain.glob("*.template.json")), misspelt)


def many_accounts(directory: Path) -> Path:
    """The example of many accounts, synthesised."""
    done = run(sys.executable, "examples/many_accounts/app.py", CDK_OUTDIR=str(directory), CDK_VALIDATION="false")
    assert done.returncode == 0, done.stderr[-2000:]
    return directory


@dataclass(frozen=True)
class Wheel:
    """Our wheel, unpacked where this tree is out of reach, and the example of an imported cluster made with it."""

    file: Path
    site: Path
    imported: Done
    """A program that imports both packages and prints where from."""
    example: Path
    example_done: Done


def wheel(directory: Path) -> Wheel:
    """Build, unpack, use.

    Installing aws-cdk-lib anew takes a minute and 300 MB, so the dependencies are read from where they are installed
    already. `python -S -m ...` and an explicit path keep that place's `.pth` files, and with them the editable install
    of this tree, out; a test says so.
    """
    built = run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(directory))
    assert built.returncode == 0, built.stderr
    (file,) = directory.glob("*.whl")
    site, elsewhere, example = directory / "site", directory / "elsewhere", directory / "cdk.out"
    install = ("-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(site))
    installed = run(sys.executable, *install, file)
    assert installed.returncode == 0, installed.stderr
    empty = {
        "PATH": os.environ["PATH"],
        "HOME": os.environ.get("HOME", str(directory)),
        "PYTHONPATH": os.pathsep.join([str(site), sysconfig.get_path("purelib")]),
        **_NODE,
        "CDK_VALIDATION": "false",
        "CDK_OUTDIR": str(example),
    }
    elsewhere.mkdir()
    app = elsewhere / "app.py"
    app.write_text((ROOT / "examples" / "imported_cluster" / "app.py").read_text())
    code = "import cdk_aurora_backup, aurora_backup; print(cdk_aurora_backup.__file__, aurora_backup.__file__)"
    imported = run(sys.executable, "-S", "-c", code, cwd=elsewhere, env=empty)
    return Wheel(file, site, imported, example, run(sys.executable, "-S", app, cwd=elsewhere, env=empty))
