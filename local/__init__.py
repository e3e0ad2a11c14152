"""An AWS on this machine: MiniStack with a real PostgreSQL behind each Aurora cluster.

`docs/local-aws.md` says what is real, what is emulated, and what is not enforced.
"""
