"""What the tests of the dump engine share: a database with every kind of object, and a source and bucket for it."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime

from aurora_backup.dump import DumpOptions, Request, dump_set
from aurora_backup.manifest import set_key

STARTED = datetime(2026, 11, 21, 2, 0, tzinfo=UTC)
_numbers = itertools.count()

SAMPLE = r'''
CREATE EXTENSION pgcrypto;
CREATE SCHEMA clinic;
CREATE SCHEMA "Odd ""Schema""";
CREATE TYPE clinic.status AS ENUM ('new', 'seen', 'it''s done');
CREATE DOMAIN clinic.code AS text CHECK (VALUE ~ '^[A-Z]+$');
CREATE TABLE clinic.patient (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name varchar(80) NOT NULL, born date,
  status clinic.status DEFAULT 'new', kind varchar(10) CHECK (kind IN ('in', 'out')),
  code clinic.code, shout text GENERATED ALWAYS AS (upper(name)) STORED);
CREATE TABLE clinic.visit (
  id serial PRIMARY KEY, patient bigint NOT NULL REFERENCES clinic.patient, at timestamptz DEFAULT now(),
  notes jsonb, cost numeric(10,2), scan bytea, paid money, length interval);
CREATE INDEX visit_notes ON clinic.visit USING gin (notes);
CREATE INDEX visit_some ON clinic.visit (cost) WHERE cost > 10 AND (notes ->> 'k') IN ('a', 'b');
CREATE TABLE clinic.event (id int, at date, what text, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
CREATE TABLE clinic.event_2025 PARTITION OF clinic.event FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');
CREATE TABLE clinic.event_2026 PARTITION OF clinic.event FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
CREATE INDEX ON clinic.event (what);
CREATE TABLE clinic.event_note (event int, at date, FOREIGN KEY (event, at) REFERENCES clinic.event);
CREATE TABLE clinic.base (a int);
CREATE TABLE clinic.derived (b int) INHERITS (clinic.base);
CREATE TABLE "Odd ""Schema"""."-rf. COPY x FROM stdin;" ("select" int, "a)b" text, "tab	and
newline" text);
CREATE TABLE clinic.nothing ();
CREATE UNLOGGED TABLE clinic.fast (a int);
CREATE TABLE clinic.empty (a int, b text);
CREATE VIEW clinic.expensive AS
  SELECT p.name, v.cost FROM clinic.patient p JOIN clinic.visit v ON v.patient = p.id WHERE v.cost > 20;
CREATE MATERIALIZED VIEW clinic.totals AS SELECT patient, sum(cost) AS total FROM clinic.visit GROUP BY patient;
CREATE FUNCTION clinic.touch() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  -- COPY clinic.patient FROM stdin;
  NEW.at := coalesce(NEW.at, now()); RETURN NEW;
END $$;
CREATE TRIGGER touch BEFORE INSERT ON clinic.visit FOR EACH ROW EXECUTE FUNCTION clinic.touch();
CREATE AGGREGATE clinic.biggest (int) (SFUNC = int4larger, STYPE = int);
ALTER TABLE clinic.visit ENABLE ROW LEVEL SECURITY;
CREATE POLICY mine ON clinic.visit USING (cost < 1000 AND (notes ->> 'k') IN ('a', 'b', 'c'));
CREATE SEQUENCE clinic.down INCREMENT BY -1 MAXVALUE 100 START 100;
SELECT nextval('clinic.down'), nextval('clinic.down');
COMMENT ON TABLE clinic.patient IS 'people; COPY none.of_this FROM stdin;';
CREATE PUBLICATION changes FOR TABLE clinic.patient;
DO $$ BEGIN CREATE ROLE "Dr. O'Reader"; EXCEPTION WHEN duplicate_object THEN NULL; END $$;
GRANT USAGE ON SCHEMA clinic TO "Dr. O'Reader";
GRANT SELECT ON clinic.patient TO "Dr. O'Reader";
GRANT UPDATE (name) ON clinic.patient TO "Dr. O'Reader";
ALTER DEFAULT PRIVILEGES IN SCHEMA clinic GRANT SELECT ON TABLES TO "Dr. O'Reader";
INSERT INTO clinic.patient (name, born, kind, code)
  SELECT 'name ' || g, date '1950-01-01' + g, CASE g % 2 WHEN 0 THEN 'in' ELSE 'out' END, 'ABC'
  FROM generate_series(1, 3000) g;
INSERT INTO clinic.visit (patient, notes, cost, scan, paid, length)
  SELECT 1 + g % 3000, jsonb_build_object('k', substr('abc', 1 + g % 3, 1), 'text', E'line\nline\\.\n\t'),
    g % 97, decode(md5(g::text), 'hex'), (g % 50)::text::money, g * interval '1 minute'
  FROM generate_series(1, 9000) g;
INSERT INTO clinic.event SELECT g, date '2025-01-01' + g % 700, md5(g::text) FROM generate_series(1, 8000) g;
INSERT INTO clinic.base VALUES (1), (2); INSERT INTO clinic.derived VALUES (3, 4);
INSERT INTO clinic.nothing DEFAULT VALUES; INSERT INTO clinic.nothing DEFAULT VALUES;
INSERT INTO clinic.fast VALUES (1);
INSERT INTO "Odd ""Schema"""."-rf. COPY x FROM stdin;"
  VALUES (1, E'\\.', E'COPY clinic.patient FROM stdin;\n\\.\n'), (2, NULL, '');
SELECT lo_from_bytea(0, decode(repeat(md5(g::text), 100), 'hex')) FROM generate_series(1, 20) g;
REFRESH MATERIALIZED VIEW clinic.totals;
ANALYZE;
'''
ROWS = 3000 + 9000 + 8000 + 2 + 1 + 2 + 1 + 2
# Tables of this size get an archive of their own in the tests.
SPLIT = 300_000


def request(database: str, **changes) -> Request:
    """A request for a set that no other test makes."""
    number = next(_numbers)
    values = {
        "key": set_key(f"logical-backups-{number}", "cluster-ABC", database, STARTED),
        "owner": "owner",
        "execution": f"execution-{number}",
        "started": STARTED,
    }
    return Request(**{**values, **changes})


def dump(source, bucket, **options):
    """Dump and give the manifest."""
    outcome = dump_set(source, bucket, request(source.dbname), DumpOptions(**options))
    assert outcome.state == "done"
    return outcome.manifest


def leftovers(bucket, prefix: str = "") -> tuple[list[str], list[str]]:
    """Keys and unfinished uploads under a prefix."""
    uploads = bucket.client.list_multipart_uploads(Bucket=bucket.name).get("Uploads", [])
    return bucket.keys(prefix), [u["Key"] for u in uploads if u["Key"].startswith(prefix)]
