"""What is deployed: the CDK constructs."""
