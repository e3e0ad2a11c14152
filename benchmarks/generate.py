"""A made-up clinic of a wanted size: prose, jsonb in partitions, incompressible bytea, and narrow rows.

The same size gives the same rows. Prose is cut from a text of Zipf-distributed words that is longer than any
compressor's window, so that it compresses like prose and not like a repeated fragment.
"""

from __future__ import annotations

import random
import subprocess
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from local.postgres import Server

MB = 1_000_000
SCHEMA = "clinic"
MONTHS = 12
TABLES = ("patient", "note", "scan", "event", *(f"observation_{month:02}" for month in range(1, MONTHS + 1)))
TABLE = "event"
"""The table that is restored alone."""

_DDL = f"""
CREATE SCHEMA {SCHEMA};
CREATE TABLE {SCHEMA}.patient (id bigint, name text, born date, street text, phone text, email text);
CREATE TABLE {SCHEMA}.note (id bigint, patient bigint, at timestamptz, author int, body text);
CREATE TABLE {SCHEMA}.scan (id bigint, patient bigint, kind text, image bytea);
CREATE TABLE {SCHEMA}.event (id bigint, patient bigint, at timestamptz, kind smallint, actor int, cost numeric(10,2));
CREATE TABLE {SCHEMA}.observation (id bigint, day date NOT NULL, patient bigint, data jsonb) PARTITION BY RANGE (day);
""" + "".join(
    f"CREATE TABLE {SCHEMA}.observation_{month:02} PARTITION OF {SCHEMA}.observation "
    f"FOR VALUES FROM ('2026-{month:02}-01') TO ('{2026 + month // 12}-{month % 12 + 1:02}-01');\n"
    for month in range(1, MONTHS + 1)
)
_INDEXES = f"""
ALTER TABLE {SCHEMA}.patient ADD PRIMARY KEY (id);
ALTER TABLE {SCHEMA}.note ADD PRIMARY KEY (id);
"""
# Rows in each megabyte of database, so that patient : note : scan : event : observation is 10 : 30 : 25 : 10 : 25.
_ROWS = {"patient": 740, "note": 260, "scan": 30, "event": 1300, "observation": 1000}
_CODES = ("8480-6", "8462-4", "8867-4", "9279-1", "8310-5", "2708-6", "29463-7", "8302-2")
_UNITS = ("mm[Hg]", "/min", "Cel", "%", "kg", "cm")


@dataclass(frozen=True)
class _Source:
    """Where random values and prose come from."""

    random: random.Random
    prose: str

    def text(self, low: int, high: int) -> str:
        begin = int(self.random.random() * (len(self.prose) - high))
        return self.prose[begin : begin + low + int(self.random.random() * (high - low))]


def _source(size_mb: int) -> _Source:
    chance = random.Random(size_mb)
    letters = "etaoinshrdlucmfwypvbgk"
    words = ["".join(chance.choices(letters, k=2 + int(chance.expovariate(0.25)))) for _ in range(20_000)]
    weights = list(accumulate(1 / (rank + 3) for rank in range(len(words))))
    wanted = min(24 * MB, max(MB, size_mb * MB // 8))
    return _Source(chance, " ".join(chance.choices(words, cum_weights=weights, k=wanted // 6)))


def _patients(source: _Source, number: int) -> Iterator[str]:
    for row in range(number):
        name, chance = source.text(12, 20).strip(), source.random.getrandbits(40)
        yield (
            f"{row}\t{name}\t19{chance % 90 + 10}-0{chance % 9 + 1}-1{chance % 10}\t{chance % 199} "
            f"{source.text(10, 30)}\t+{chance}\t{name.replace(' ', '.')}@example.org\n"
        )


def _notes(source: _Source, number: int) -> Iterator[str]:
    for row in range(number):
        chance = source.random.getrandbits(40)
        stamp = f"2026-0{chance % 9 + 1}-1{chance % 10} {chance % 14 + 10}:{chance % 50 + 10}:00+00"
        yield f"{row}\t{chance % 900_000}\t{stamp}\t{chance % 997}\t{source.text(120, 1900)}\n"


def _scans(source: _Source, number: int) -> Iterator[str]:
    for row in range(number):
        image = source.random.randbytes(6000 + row % 4000)
        yield f"{row}\t{row * 7919 % 900_000}\tx-ray\t\\\\x{image.hex()}\n"


def _events(source: _Source, number: int) -> Iterator[str]:
    for row in range(number):
        chance = source.random.getrandbits(40)
        stamp = f"2026-0{chance % 9 + 1}-1{chance % 10} {chance % 14 + 10}:{chance % 50 + 10}:{row % 50 + 10}+00"
        yield f"{row}\t{chance % 900_000}\t{stamp}\t{chance % 40}\t{chance % 3000}\t{chance % 100_000 / 100}\n"


def _observations(source: _Source, number: int) -> Iterator[str]:
    for row in range(number):
        chance = source.random.getrandbits(40)
        code, unit, month = _CODES[chance % 8], _UNITS[chance % 6], row * MONTHS // number + 1
        yield (
            f"{row}\t2026-{month:02}-{chance % 28 + 1:02}\t{chance % 900_000}\t"
            f'{{"code": "{code}", "value": {chance % 2000 / 10}, "unit": "{unit}", "device": "dev-{chance % 5003}", '
            f'"status": "final", "comment": "{source.text(5, 60)}"}}\n'
        )


def generate(server: Server, name: str, size_mb: int) -> int:
    """Make the database `name` of about `size_mb` MB (10^6 bytes); return its size in bytes."""
    server.psql(f'CREATE DATABASE "{name}"')
    server.psql(_DDL, database=name)
    source = _source(size_mb)
    makers = {
        "patient": _patients, "note": _notes, "scan": _scans, "event": _events, "observation": _observations,
    }  # fmt: skip
    for table, rows in makers.items():
        _copy(server, name, table, rows(source, max(MONTHS, _ROWS[table] * size_mb)))
    server.psql(_INDEXES, database=name)
    server.psql("VACUUM (FREEZE, ANALYZE)", "CHECKPOINT", database=name)
    return int(server.psql("SELECT pg_database_size(current_database())", database=name))


def _copy(server: Server, database: str, table: str, rows: Iterator[str]) -> None:
    command = [str(server.home.bin / "psql"), "-Xqc", f"COPY {SCHEMA}.{table} FROM STDIN"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, text=True, env=server.env(database)) as psql:
        psql.stdin.writelines(rows)  # type: ignore[union-attr]  # it is a pipe
    if psql.returncode:
        raise RuntimeError(f"COPY into {table} ended with status {psql.returncode}")
