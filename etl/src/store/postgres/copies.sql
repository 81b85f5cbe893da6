CREATE TABLE {schema}.copied (
    pipeline text NOT NULL REFERENCES {schema}.pipeline ON DELETE CASCADE,
    id oid NOT NULL,
    leaf oid NOT NULL,
    body jsonb NOT NULL,
    PRIMARY KEY (pipeline, id, leaf));
CREATE TABLE {schema}.repair (
    pipeline text NOT NULL REFERENCES {schema}.pipeline ON DELETE CASCADE,
    id oid NOT NULL,
    digest text NOT NULL,
    key text NOT NULL,
    PRIMARY KEY (pipeline, id, digest));
