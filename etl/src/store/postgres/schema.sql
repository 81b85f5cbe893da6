CREATE TABLE {schema}.pipeline (
    id text PRIMARY KEY,
    owner uuid NOT NULL,
    owned_since timestamptz NOT NULL DEFAULT now(),
    confirmed pg_lsn);
CREATE TABLE {schema}.table_state (
    pipeline text NOT NULL REFERENCES {schema}.pipeline ON DELETE CASCADE,
    id oid NOT NULL,
    revision bigint NOT NULL,
    state jsonb NOT NULL,
    PRIMARY KEY (pipeline, id));
CREATE TABLE {schema}.cursor (
    pipeline text NOT NULL REFERENCES {schema}.pipeline ON DELETE CASCADE,
    id text NOT NULL,
    commit pg_lsn NOT NULL,
    ordinal numeric(20) NOT NULL,
    PRIMARY KEY (pipeline, id));
CREATE TABLE {schema}.fact (
    pipeline text NOT NULL REFERENCES {schema}.pipeline ON DELETE CASCADE,
    name text NOT NULL,
    value text NOT NULL,
    PRIMARY KEY (pipeline, name));
CREATE TABLE {schema}.table_schema (
    pipeline text NOT NULL REFERENCES {schema}.pipeline ON DELETE CASCADE,
    id oid NOT NULL,
    commit pg_lsn NOT NULL,
    ordinal numeric(20) NOT NULL,
    body jsonb NOT NULL,
    PRIMARY KEY (pipeline, id, commit, ordinal));
