"""Run a command as the only child of a small process, and say what it and everything below it cost.

`python -I -S child.py DESCRIPTOR COMMAND...` writes `{"status", "wall", "cpu", "peak"}` as JSON to the descriptor: exit
status, seconds, seconds, and the resident bytes of the largest process at its largest, all from the kernel's own
accounts (getrusage of children: nothing is sampled, however short the command). A child's account begins at the size of
the process that made it, which is why this is a process of its own that imports next to nothing: about 10 MB.
"""

import os
import resource
import sys
import time


def main() -> int:
    """Run it; the exit status is always 0 when there is an account."""
    descriptor, command = int(sys.argv[1]), sys.argv[2:]
    os.set_inheritable(descriptor, False)
    begun = time.monotonic()
    child = os.posix_spawnp(command[0], command, os.environ)
    _, status = os.waitpid(child, 0)
    wall = time.monotonic() - begun
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    account = (
        f'{{"status": {os.waitstatus_to_exitcode(status)}, "wall": {wall!r}, '
        f'"cpu": {used.ru_utime + used.ru_stime!r}, "peak": {used.ru_maxrss * 1024}}}'
    )
    os.write(descriptor, account.encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
