"""The deployable app: `cdk deploy`. Settings come from context, `backup:...`; the README has the table."""

import aws_cdk as cdk
from cdk_nag import AwsSolutionsChecks, HIPAASecurityChecks, NIST80053R5Checks, PCIDSS321Checks

from cdk_aurora_backup.app_config import read_context
from cdk_aurora_backup.stack import AuroraBackupStack

app = cdk.App()
for config in read_context(app.node.get_all_context() or {}):
    AuroraBackupStack(app, config)
for pack in (HIPAASecurityChecks, NIST80053R5Checks, PCIDSS321Checks, AwsSolutionsChecks):
    cdk.Validations.of(app).add_plugins(pack(app))
app.synth()
