CREATE TABLE wide (
    id bigint PRIMARY KEY, c_int integer NOT NULL, c_small smallint, c_num numeric(18,4), c_f8 double precision,
    c_bool boolean, c_t20 text, c_t100 text, c_vc varchar(50), c_tstz timestamptz, c_ts timestamp, c_date date,
    c_uuid uuid, c_json jsonb, c_bytea bytea, c_ia integer[]);
INSERT INTO wide
SELECT g, hashint8(g)::int, (g % 32000)::smallint, ((g * 7919) % 100000000000)::numeric / 10000,
       (g * 1.618033988749895)::float8, g % 3 = 0, substr(md5(g::text), 1, 20),
       md5(g::text) || md5((g + 1)::text) || md5((g + 2)::text) || 'abcd', 'customer-' || (g % 100000)::text,
       timestamptz '2024-01-01 00:00:00+00' + g * interval '1.234567 second',
       timestamp '2024-01-01 00:00:00' + g * interval '0.765432 second', date '2000-01-01' + (g % 9000)::int,
       md5(g::text)::uuid,
       jsonb_build_object('id', g, 'name', 'user_' || g, 'active', g % 2 = 0, 'score', (g % 1000) / 10.0,
                          'tag', substr(md5((g + 3)::text), 1, 24)),
       decode(md5(g::text) || md5((g + 1)::text), 'hex'), ARRAY[(g % 100)::int, (g % 1000)::int, (g % 10000)::int]
  FROM generate_series(1, {rows}::bigint) g;
CREATE TABLE wide_s (LIKE wide INCLUDING ALL);
ANALYZE wide;
CREATE PUBLICATION wide_pub FOR TABLE wide, wide_s;
