"""CloudFormation: what MiniStack's provisioners leave out, get wrong, or refuse.

A provisioner is `create(logical id, properties, stack name) -> (physical id, attributes)`, with `update` and `delete`.
Ours run in worker threads and raise ValueError with AWS's own reason, which fails the resource and the stack.
"""
