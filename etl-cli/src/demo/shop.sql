-- The sample shop: about :rows rows in seven related tables, the same ones on every run.
CREATE TYPE country AS ENUM ('AT', 'BR', 'DE', 'FR', 'IN', 'JP', 'NG', 'US');
CREATE TYPE order_status AS ENUM ('new', 'paid', 'packed', 'shipped', 'returned');

CREATE TABLE customers (
    id uuid PRIMARY KEY,
    email text NOT NULL,
    name varchar(80) NOT NULL,
    country country NOT NULL,
    tags text[] NOT NULL,
    preferences jsonb,
    credit numeric(12,2) NOT NULL,
    avatar bytea,
    is_active boolean NOT NULL,
    created_at timestamptz NOT NULL
);
CREATE TABLE products (
    id integer PRIMARY KEY,
    title text NOT NULL,
    price numeric(10,2) NOT NULL,
    sizes integer[],
    attributes jsonb NOT NULL,
    photo bytea,
    listed_on date NOT NULL
);
CREATE TABLE orders (
    id bigint PRIMARY KEY,
    customer_id uuid NOT NULL,
    status order_status NOT NULL,
    total numeric(14,2) NOT NULL,
    coupons text[],
    note text,
    placed_at timestamptz NOT NULL,
    shipped_at timestamp
);
CREATE TABLE order_items (
    order_id bigint NOT NULL,
    line smallint NOT NULL,
    product_id integer NOT NULL,
    quantity integer NOT NULL,
    unit_price numeric(10,2) NOT NULL,
    PRIMARY KEY (order_id, line)
);
CREATE TABLE payments (
    id uuid PRIMARY KEY,
    order_id bigint NOT NULL,
    amount numeric(14,2) NOT NULL,
    details jsonb NOT NULL,
    paid_at timestamptz NOT NULL
);
CREATE TABLE reviews (
    id bigint PRIMARY KEY,
    product_id integer NOT NULL,
    customer_id uuid NOT NULL,
    stars smallint NOT NULL,
    body text NOT NULL
);
CREATE TABLE carts (
    id bigint PRIMARY KEY,
    customer_id uuid NOT NULL,
    product_ids integer[] NOT NULL,
    touched_at timestamptz NOT NULL
);

INSERT INTO customers SELECT
    md5('customer' || n)::uuid,
    'customer' || n || '@example.com',
    'Customer ' || n,
    (enum_range(NULL::country))[1 + (n % 8)::int],
    CASE n % 3 WHEN 0 THEN ARRAY['new'] WHEN 1 THEN ARRAY['loyal', 'b2b, wholesale'] ELSE '{}' END,
    CASE WHEN n % 5 > 0 THEN jsonb_build_object('lang', 'l' || n % 7, 'mail', n % 2 = 0, 'limits', ARRAY[n % 10, n % 3]) END,
    (n * 7919 % 1000000) / 100.0,
    CASE WHEN n % 4 = 0 THEN decode(md5('avatar' || n), 'hex') END,
    n % 10 > 0,
    '2024-01-01 00:00:00.000001+00'::timestamptz + n * interval '61.000007 seconds'
FROM generate_series(1, :customers) n;

INSERT INTO products SELECT
    n,
    'Product ' || n || CASE WHEN n % 9 = 0 THEN ' "spécial" — 50 % 🎁' ELSE '' END,
    (n * 104729 % 50000) / 100.0,
    CASE WHEN n % 4 > 0 THEN ARRAY[n % 40, n % 41, NULL, n % 43] END,
    jsonb_build_object('color', 'c' || n % 12, 'weight', n % 977 / 10.0, 'parts', jsonb_build_array(n, n % 7, NULL)),
    CASE WHEN n % 10 = 0 THEN decode(repeat(md5('photo' || n), 100), 'hex') END,
    '2020-02-29'::date + (n % 1500)::int
FROM generate_series(1, :products) n;

INSERT INTO orders SELECT
    n,
    md5('customer' || 1 + n * 31 % :customers)::uuid,
    (enum_range(NULL::order_status))[1 + (n % 5)::int],
    (n * 15485863 % 10000000) / 100.0,
    CASE n % 6 WHEN 0 THEN ARRAY['SPRING', NULL, 'X' || n % 100] WHEN 1 THEN '{}' END,
    CASE WHEN n % 8 = 0 THEN 'Leave it at the door, please.' || E'\nBell ' || n END,
    '2024-06-01 12:00:00+00'::timestamptz + n * interval '7.123457 seconds',
    CASE WHEN n % 5 > 2 THEN '2024-06-03 08:30:00'::timestamp + n * interval '7.5 seconds' END
FROM generate_series(1, :orders) n;

INSERT INTO order_items SELECT
    o, line, 1 + (o * 13 + line * 17) % :products, 1 + (o + line) % 5, ((o + line) * 104729 % 50000) / 100.0
FROM generate_series(1, :orders) o, generate_series(1, 2 + o % 2) line;

INSERT INTO payments SELECT
    md5('payment' || n)::uuid,
    n,
    (n * 15485863 % 10000000) / 100.0,
    jsonb_build_object('method', (ARRAY['card', 'transfer', 'cash'])[1 + (n % 3)::int], 'reference', md5('ref' || n)),
    '2024-06-01 12:05:00+00'::timestamptz + n * interval '7.123457 seconds'
FROM generate_series(1, :orders) n WHERE n % 5 > 0;

INSERT INTO reviews SELECT
    n,
    1 + n * 19 % :products,
    md5('customer' || 1 + n * 37 % :customers)::uuid,
    1 + n % 5,
    CASE WHEN n % 50 = 0
        THEN (SELECT string_agg(md5('review' || n || '/' || k), ' ') FROM generate_series(1, 150) k)
        ELSE 'Review ' || n || ': ' || repeat('good ', (n % 12)::int) END
FROM generate_series(1, :reviews) n;

INSERT INTO carts SELECT
    n, md5('customer' || n)::uuid, ARRAY[1 + n % :products, 1 + n * 3 % :products], '2024-09-01 00:00:00+00'::timestamptz
FROM generate_series(1, :carts) n;

CREATE PUBLICATION shop_pub FOR ALL TABLES;
