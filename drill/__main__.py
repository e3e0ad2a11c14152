"""`make drill`: run every step in order; leaves build/drill/drill.json. Exit status 0 only when all of them held."""

from __future__ import annotations

import argparse
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from aurora_backup.stopping import stoppable
from drill import compliance, foundation, ransomware, recovery, retention
from drill.journal import Journal, Step, StepFailedError
from drill.world import World
from local.server import LocalAws

if TYPE_CHECKING:
    from collections.abc import Callable

STEPS: tuple[tuple[str, Callable[[World, Step], None]], ...] = (
    ("synth", foundation.synth),
    ("deploy", foundation.deploy),
    ("load", foundation.load),
    ("logical-backup", foundation.logical_backup),
    ("restore", foundation.restore),
    ("compare", foundation.compare),
    ("restore-table", foundation.restore_table),
    ("verify", foundation.verify),
    ("damage", foundation.damage),
    ("engine", foundation.engine),
    ("on-demand-snapshot", recovery.on_demand_snapshot),
    ("disaster", recovery.disaster),
    ("point-in-time-recovery", recovery.point_in_time_recovery),
    ("recovery-test", recovery.recovery_test),
    ("retention-report", retention.retention_report),
    ("compliance", compliance.compliance),
    ("compliance-detects-drift", compliance.compliance_detects_drift),
    ("recovery-test-detects-damage", recovery.recovery_test_detects_damage),
    ("legal-hold", retention.legal_hold),
    ("retention-enforce", retention.retention_enforce),
    ("ransomware", ransomware.ransomware),
)


def main(arguments: list[str] | None = None) -> int:
    """Run the drill."""
    parser = argparse.ArgumentParser(prog="make drill", description=__doc__)
    parser.add_argument("--root", type=Path, default=Path("build/drill"), help="where everything goes")
    root: Path = parser.parse_args(arguments).root.absolute()
    root.mkdir(parents=True, exist_ok=True)
    for log in root.glob("*.log"):
        log.unlink()
    print("The drill: backs up, breaks and recovers a real PostgreSQL, on a local AWS.\n")
    with stoppable(), Journal(root / "drill.json") as journal:
        aws = LocalAws(root / "aws")
        world = World(root, aws)
        failed = True
        try:
            aws.start()
            for name, run in STEPS:
                with journal.step(name, (run.__doc__ or "").strip().splitlines()[0]) as step:
                    run(world, step)
            failed = False
        except StepFailedError:
            pass  # the journal has said which and why
        except KeyboardInterrupt:
            journal.error = "interrupted"
            print("\n  interrupted: stopping what was started")
        except Exception as error:  # noqa: BLE001  whatever it was, the summary follows
            journal.error = f"{type(error).__name__}: {error}"
            traceback.print_exc()
            print(f"\n  {type(error).__name__}: {error}")
        finally:
            with suppress(Exception), journal.step("cleanup", "Stop everything that was started") as step:
                aws.stop()
                step.detail["headline"] = "local AWS, databases and functions stopped"
        if not failed:
            journal.finish()
        print(journal.summary())
        return 0 if journal.ok else 1


if __name__ == "__main__":
    sys.exit(main())
