CREATE TABLE {schema}.operation (
    pipeline text NOT NULL REFERENCES {schema}.pipeline ON DELETE CASCADE,
    id text COLLATE "C" NOT NULL,
    revision bigint NOT NULL,
    body json NOT NULL,
    PRIMARY KEY (pipeline, id));
CREATE TABLE {schema}.dead_letter (
    pipeline text NOT NULL REFERENCES {schema}.pipeline ON DELETE CASCADE,
    operation text COLLATE "C" NOT NULL,
    ordinal bigint NOT NULL,
    id oid NOT NULL,
    body json NOT NULL,
    PRIMARY KEY (pipeline, operation, ordinal));
