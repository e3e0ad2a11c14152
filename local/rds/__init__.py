"""RDS for Aurora PostgreSQL: clusters, instances, snapshots and restores, each cluster with a PostgreSQL of its own.

Subnet groups, parameter groups, engine versions and whatever else is only metadata stay MiniStack's own.
"""
