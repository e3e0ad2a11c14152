"""What runs: the Lambda functions and the `aurora-backup` command. Never imports aws_cdk."""
