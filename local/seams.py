"""Every private name of MiniStack that we replace or read, and the version whose names these are.

MiniStack is young and none of this is its public interface. `check` fails with one message when the version or a name
is another than the one these modules were written against; `tests/workflow/test_local_aws.py` calls it.
"""

from __future__ import annotations

import importlib
import importlib.metadata

VERSION = "1.5.33"

REPLACED = {
    "ministack.services.rds": ("_ACTION_MAP",),
    "ministack.services.backup": ("handle_request",),
    "ministack.services.stepfunctions": (
        "_invoke_aws_sdk_integration",
        "_apply_parameters",
        "_run_execution",
        "_fail_execution",
        "_scaled_sleep",
        "_add_event",
    ),
    "ministack.services.lambda_svc": ("_execute_function_warm",),
    "ministack.services.scheduler": ("start_scheduler",),
    "ministack.services.iam": ("_IAM_HANDLERS",),
    "ministack.services.s3": ("_put_bucket_lifecycle", "_resolve_sse_write_headers", "_complete_multipart_upload"),
    "ministack.services.cloudformation.provisioners": ("_RESOURCE_HANDLERS", "_custom_resource_create"),
    "ministack.services.cloudformation.stacks": ("_runs_on_worker_thread",),
}
READ = {
    "ministack.app": ("SERVICE_HANDLERS", "call_service_handler_sync", "app"),
    "ministack.core.responses": ("get_account_id", "get_region", "request_scope"),
    "ministack.services.rds": ("_subnet_groups", "_param_groups", "_db_cluster_param_groups"),
    "ministack.services.kms": ("_resolve_key",),
    "ministack.services.sns": ("_topics",),
    "ministack.services.iam": ("_aws_managed_policies",),
    "ministack.services.eventbridge": ("_put_events",),
    "ministack.services.secretsmanager": ("_store_new_secret", "delete_secret_in_process"),
    "ministack.services.stepfunctions": ("_ExecutionError", "_executions", "_state_machines"),
    "ministack.services.lambda_svc": ("_resolve_layer_zip",),
    "ministack.core.lambda_runtime": ("execution_credentials",),
    "ministack.services.s3": (
        "_bucket_default_sse_headers",
        "_compute_s3_checksum",
        "_ensure_bucket",
        "_multipart_uploads",
        "_object_versions",
        "_qp",
        "_put_bucket_encryption",
        "_put_object_lock_configuration",
        "_put_bucket_logging",
        "_put_bucket_ownership_controls",
        "_put_bucket_tagging",
        "_buckets",
        "_bucket_has_versions",
        "_bucket_versioning",
        "_bucket_lifecycle",
    ),
    "ministack.services.backup": ("_vaults", "_selections", "_create_vault", "_create_selection"),
    "ministack.services.cloudformation.provisioners": ("_physical_name",),
}


class SeamError(Exception):
    """MiniStack is not the one we know."""


def check() -> None:
    """Compare the installed MiniStack with what this package was written against."""
    installed = importlib.metadata.version("ministack")
    missing = [
        f"{module}.{name}"
        for table in (REPLACED, READ)
        for module, names in table.items()
        for name in names
        if not hasattr(importlib.import_module(module), name)
    ]
    if installed != VERSION or missing:
        raise SeamError(
            f"local/ was written against MiniStack {VERSION}; {installed} is installed"
            + (f", and it lacks {', '.join(missing)}" if missing else "")
            + ". See docs/adr/0002-local-aws.md before changing the pin.",
        )
