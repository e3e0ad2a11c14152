"""The table of all compliance checks, in the order in which reports show them. Pure."""

from __future__ import annotations

from aurora_backup.checks_accessibility import ACCESSIBILITY
from aurora_backup.checks_completion import COMPLETION
from aurora_backup.checks_encryption import ENCRYPTION
from aurora_backup.checks_integrity import INTEGRITY
from aurora_backup.checks_retention import RETENTION

CHECKS = (*ENCRYPTION, *RETENTION, *COMPLETION, *ACCESSIBILITY, *INTEGRITY)
