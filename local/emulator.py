"""The emulator's process: MiniStack with our modules in their places, on loopback, until it is told to stop."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import secrets
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

REGION = "eu-west-1"
ACCOUNT = "0" * 12
ABOUT = "about.json"
"""In the root directory: where the databases and the certificate authority are."""


def main(arguments: list[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="python -m local", description=__doc__)
    parser.add_argument("--port", type=int, default=4566, help="the port on 127.0.0.1 (default: %(default)s)")
    parser.add_argument("--root", type=Path, default=Path("build/local-aws"), help="where state is kept while it runs")
    parser.add_argument("--region", default=REGION, help="the default Region (default: %(default)s)")
    parser.add_argument("--creating-seconds", type=float, default=2.0, help="how long things stay in their first state")
    parser.add_argument(
        "--wait-scale", type=float, default=0.01, help="factor on the waits of state machines and of retries"
    )
    options = parser.parse_args(arguments)
    # MiniStack reads these when it is imported.
    os.environ.update(
        BIND_HOST="127.0.0.1",
        GATEWAY_PORT=str(options.port),
        MINISTACK_HOST="127.0.0.1",
        MINISTACK_REGION=options.region,
        MINISTACK_ACCOUNT_ID=ACCOUNT,
        SFN_WAIT_SCALE=str(options.wait_scale),
        LAMBDA_EXECUTOR="local",
        IOT_MTLS_ENABLED="0",
        MINISTACK_PERSIST="0",
    )
    from local import faults, install, seams
    from local.postgres import Home
    from local.runtime import Runtime, set_runtime

    seams.check()
    root = options.root.absolute()
    root.mkdir(parents=True, exist_ok=True)
    home = Home(root / "postgres")
    (root / ABOUT).write_text(json.dumps({"home": str(home.path), "ca": str(home.certificates.ca)}))
    runtime = Runtime(
        root=root,
        home=home,
        endpoint_url=f"http://127.0.0.1:{options.port}",
        creating_seconds=options.creating_seconds,
        wait_scale=options.wait_scale,
        admin_password=secrets.token_hex(16),
    )
    set_runtime(runtime)
    faults.watch(root)
    install.everything()
    loop = asyncio.new_event_loop()
    try:
        # Not asyncio.run, which would wait for whatever MiniStack still has in its worker threads.
        loop.run_until_complete(_serve(options.port))
    finally:
        _stop_databases()
        home.remove()
    sys.stdout.flush()
    os._exit(0)


async def _serve(port: int) -> None:
    from hypercorn.asyncio import serve
    from hypercorn.config import Config
    from ministack.app import app

    from local import faults

    config = Config()
    config.bind = [f"127.0.0.1:{port}"]
    config.loglevel = "WARNING"
    config.graceful_timeout = 0.2
    config.keep_alive_timeout = 75
    ending = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ending.set)
    await serve(faults.around(app), config, shutdown_trigger=ending.wait)


def _stop_databases() -> None:
    from local.rds.state import regions

    servers = [cluster.engine.server for region in regions() for cluster in region.clusters.values()]
    with ThreadPoolExecutor(max_workers=16) as pool:
        list(pool.map(lambda server: server.end(), servers))


if __name__ == "__main__":
    sys.exit(main())
