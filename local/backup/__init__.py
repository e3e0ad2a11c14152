"""AWS Backup: jobs that leave recovery points, vault locks and policies, and the audit objects as records.

Vaults, plans and selections themselves stay MiniStack's; we add what it leaves out of them.
"""
