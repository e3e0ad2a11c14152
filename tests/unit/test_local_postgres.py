"""The PostgreSQL behind local clusters, where the local AWS leans on more than that it runs."""

from __future__ import annotations

import datetime as dt

from local import postgres as local_postgres


def test_archiving_waits_for_no_segment_that_nothing_will_finish(postgres, monkeypatch):
    """`archive_timeout` may switch to a new segment just before we do, and then ours has nothing to switch."""
    server, psql = postgres.server, type(postgres.server).psql

    def switched_meanwhile(self, *statements, **options):
        said = psql(self, *statements, **options)
        if "pg_current_xact_id" in statements[0]:
            psql(self, "select pg_switch_wal()")
        return said

    monkeypatch.setattr(local_postgres.Server, "psql", switched_meanwhile)
    written = server.psql("select pg_walfile_name(pg_current_wal_lsn())")
    server.archive_now()  # fails when what it waits for does not come
    assert (server.archive / written).exists()


def test_a_recovered_server_is_ready_when_it_is_promoted_and_not_before(postgres):
    """Stopped between the two, it would start again with all the WAL that it has, also what lies after the target."""
    source = postgres.server
    own = source.home.path / "recovered"
    source.base_backup(own / "base")
    moment = dt.datetime.now(dt.UTC)
    source.archive_now()
    recovered = local_postgres.Server(source.home, own, source.superuser, source.password, own / "wal")
    recovered.adopt(own / "base")
    slowly = {**local_postgres.recovery_to(source.archive, moment), "recovery_end_command": "sleep 0.5"}
    try:
        recovered.start(recovery=slowly)
        assert recovered.psql("select pg_is_in_recovery()") == "f"
    finally:
        recovered.end()
