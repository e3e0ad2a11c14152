-- A small clinical database, made up, with one of everything that a backup can lose.
CREATE EXTENSION pgcrypto;
CREATE SCHEMA clinic;
CREATE TYPE clinic.severity AS ENUM ('low', 'moderate', 'high');
CREATE SEQUENCE clinic.record_number START 100000 INCREMENT 7;

CREATE TABLE clinic.patients (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    record_number bigint NOT NULL UNIQUE DEFAULT nextval('clinic.record_number'),
    family_name text NOT NULL,
    born date NOT NULL CHECK (born > '1900-01-01'),
    contact jsonb NOT NULL DEFAULT '{}',
    photo bytea
);
CREATE TABLE clinic.encounters (
    id bigint GENERATED ALWAYS AS IDENTITY,
    patient_id bigint NOT NULL REFERENCES clinic.patients,
    at timestamptz NOT NULL,
    severity clinic.severity NOT NULL,
    notes text,
    PRIMARY KEY (id, at)
) PARTITION BY RANGE (at);
CREATE TABLE clinic.encounters_2025 PARTITION OF clinic.encounters FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');
CREATE TABLE clinic.encounters_2026 PARTITION OF clinic.encounters FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
CREATE TABLE clinic.encounters_rest PARTITION OF clinic.encounters DEFAULT;
CREATE INDEX ON clinic.encounters (patient_id, at);
CREATE TABLE clinic.observations (
    id bigserial PRIMARY KEY,
    patient_id bigint NOT NULL REFERENCES clinic.patients ON DELETE CASCADE,
    code text NOT NULL,
    value numeric(12, 4),
    data jsonb NOT NULL
);
CREATE INDEX ON clinic.observations USING gin (data);
CREATE TABLE clinic.scans (id bigserial PRIMARY KEY, patient_id bigint NOT NULL REFERENCES clinic.patients, image oid);
CREATE TABLE clinic."odd ""name"", with; everything" (id int PRIMARY KEY, "Größe" text);
CREATE TABLE clinic.audit (id bigserial PRIMARY KEY, at timestamptz NOT NULL DEFAULT now(), who name DEFAULT current_user, what text);

CREATE FUNCTION clinic.note_change() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN INSERT INTO clinic.audit (what) VALUES (TG_OP || ' patient ' || NEW.id); RETURN NEW; END $$;
CREATE TRIGGER patients_changed AFTER UPDATE ON clinic.patients FOR EACH ROW EXECUTE FUNCTION clinic.note_change();

INSERT INTO clinic.patients (family_name, born, contact, photo)
SELECT 'Patient ' || n, date '1930-01-01' + (n * 37) % 30000,
       jsonb_build_object('city', 'Town ' || n % 97, 'tags', jsonb_build_array(n % 5, 'ünïcode')),
       CASE WHEN n % 10 = 0 THEN gen_random_bytes(1000) END
FROM generate_series(1, 5000) n;
INSERT INTO clinic.encounters (patient_id, at, severity, notes)
SELECT 1 + n % 5000, timestamptz '2024-06-01 UTC' + (n % 1100) * interval '20 hours',
       (ARRAY['low', 'moderate', 'high']::clinic.severity[])[1 + n % 3], repeat('note ' || n || ' ', n % 9)
FROM generate_series(1, 30000) n;
INSERT INTO clinic.observations (patient_id, code, value, data)
SELECT 1 + n % 5000, 'LOINC-' || n % 211, (n % 100000) / 7.0, jsonb_build_object('unit', 'mg', 'n', n, 'flag', n % 13 = 0)
FROM generate_series(1, 60000) n;
INSERT INTO clinic.scans (patient_id, image) SELECT n, lo_from_bytea(0, (SELECT string_agg(gen_random_bytes(1000), '') FROM generate_series(1, 30 + n % 7)))
FROM generate_series(1, 40) n;
INSERT INTO clinic."odd ""name"", with; everything" VALUES (1, E'line\nbreak\ttab \\ backslash'), (2, NULL), (3, '');
UPDATE clinic.patients SET family_name = family_name || '-New' WHERE id % 500 = 0;

CREATE MATERIALIZED VIEW clinic.monthly AS
SELECT date_trunc('month', at AT TIME ZONE 'UTC') AS month, severity, count(*) AS encounters FROM clinic.encounters GROUP BY 1, 2;
CREATE UNIQUE INDEX ON clinic.monthly (month, severity);
CREATE VIEW clinic.recent AS SELECT * FROM clinic.encounters WHERE at > '2026-01-01';

CREATE ROLE clinician NOLOGIN;
CREATE ROLE billing NOLOGIN;
CREATE ROLE clinic_app LOGIN PASSWORD 'drill-only' CONNECTION LIMIT 20;
GRANT clinician TO clinic_app;
GRANT USAGE ON SCHEMA clinic TO clinician, billing;
GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA clinic TO clinician;
GRANT SELECT (id, record_number) ON clinic.patients TO billing;
ALTER DEFAULT PRIVILEGES IN SCHEMA clinic GRANT SELECT ON TABLES TO clinician;
ALTER TABLE clinic.observations ENABLE ROW LEVEL SECURITY;
CREATE POLICY own_patients ON clinic.observations FOR SELECT TO clinician USING (patient_id % 2 = 0);
COMMENT ON TABLE clinic.patients IS 'made up, like everything here';
ANALYZE;
