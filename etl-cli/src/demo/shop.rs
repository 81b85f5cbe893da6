//! What is in the sample shop, and what happens in it while it is open?

use std::time::Duration;

use etl::clock;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio_postgres::Client;

use crate::failure::Failure;

/// The tables of the shop.
pub(crate) const TABLES: &[&str] = &["customers", "products", "orders", "order_items", "payments", "reviews", "carts"];

/// Between two transactions; a demo, not a benchmark.
const PAUSE: Duration = Duration::from_millis(5);

/// How many rows of each kind there are in the beginning.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sizes {
    customers: u64,
    products: u64,
    orders: u64,
    reviews: u64,
    carts: u64,
}

impl Sizes {
    /// About so many rows in all: of 47 parts, an order has its own row, 2.5 items and 0.8 payments.
    pub(crate) fn of(rows: u64) -> Self {
        let part = rows.div_ceil(47).max(10);
        Self { customers: part * 4, products: part, orders: part * 9, reviews: part * 3, carts: part }
    }

    /// The SQL that makes the shop.
    fn sql(self) -> String {
        let sql = include_str!("shop.sql");
        let counts = [
            (":customers", self.customers),
            (":products", self.products),
            (":orders", self.orders),
            (":reviews", self.reviews),
            (":carts", self.carts),
        ];
        counts.iter().fold(sql.to_owned(), |sql, (name, count)| sql.replace(name, &format!("{count}::bigint")))
    }
}

/// Makes the tables, fills them, and publishes them.
pub(crate) async fn fill(client: &Client, sizes: Sizes) -> Result<(), Failure> {
    client.batch_execute(&sizes.sql()).await.map_err(|error| failed("fill the sample shop", &error))?;
    client.batch_execute("ANALYZE").await.map_err(|error| failed("count the sample shop", &error))
}

/// Opens the shop for a while: inserts, updates, deletes, key changes, a rollback, and one truncate half-way; says how
/// many transactions there were.
pub(crate) async fn open(client: &Client, sizes: Sizes, how_long: Duration) -> Result<u64, Failure> {
    let mut dice = StdRng::seed_from_u64(7);
    let mut transactions = 0;
    let began = clock::monotonic();
    let mut truncated = false;
    let mut next = sizes.orders;
    loop {
        let passed = clock::monotonic().saturating_duration_since(began);
        if passed >= how_long && truncated {
            return Ok(transactions);
        }
        let sql = if passed * 2 >= how_long && !truncated {
            truncated = true;
            "TRUNCATE carts; INSERT INTO carts VALUES (0, gen_random_uuid(), '{1,2,3}', now());".to_owned()
        } else {
            next += 1;
            transaction(&mut dice, sizes, next)
        };
        client.batch_execute(&sql).await.map_err(|error| failed("change the sample shop", &error))?;
        transactions += 1;
        etl::retry::pause(PAUSE).await;
    }
}

/// One transaction of the shop's day; `next` is an order's id that was never used.
fn transaction(dice: &mut StdRng, sizes: Sizes, next: u64) -> String {
    let order = dice.random_range(1..=sizes.orders);
    let customer = dice.random_range(1..=sizes.customers);
    let product = dice.random_range(1..=sizes.products);
    let review = dice.random_range(1..=sizes.reviews);
    match dice.random_range(0..10_u32) {
        0..4 => format!(
            "BEGIN;
             INSERT INTO orders VALUES
                ({next}, md5('customer{customer}')::uuid, 'new', {next}.25, '{{WEB,NULL}}', 'née', now());
             INSERT INTO order_items SELECT {next}, line, {product}, line, 9.99 FROM generate_series(1, 3) line;
             INSERT INTO payments VALUES (gen_random_uuid(), {next}, {next}.25, '{{\"method\": \"card\"}}', now());
             UPDATE customers SET credit = credit + 1.5, tags = tags || 'buyer'::text
                WHERE id = md5('customer{customer}')::uuid;
             COMMIT;"
        ),
        4 => format!(
            "UPDATE orders SET status = 'shipped', shipped_at = now()::timestamp
                WHERE id BETWEEN {order} AND {order} + 20;"
        ),
        5 => format!("UPDATE reviews SET stars = 1 + (stars + 1) % 5 WHERE id BETWEEN {review} AND {review} + 60;"),
        6 => format!(
            "UPDATE products SET price = price * 1.01, attributes = attributes || '{{\"sale\": true}}'
                WHERE id = {product};"
        ),
        7 => format!(
            "BEGIN;
             DELETE FROM order_items WHERE order_id = {order};
             DELETE FROM payments WHERE order_id = {order};
             DELETE FROM orders WHERE id = {order};
             COMMIT;"
        ),
        // A key that changes, in half of the rows beside a long text that does not.
        8 => format!("UPDATE reviews SET id = -id WHERE id IN ({review}, {review} / 50 * 50);"),
        _ => format!(
            "BEGIN; DELETE FROM products WHERE id = {product}; ROLLBACK;
             BEGIN; INSERT INTO carts VALUES ({next}, md5('customer{customer}')::uuid, '{{{product}}}', now());
             SAVEPOINT s; UPDATE carts SET product_ids = '{{}}' WHERE id % 500 = 0; ROLLBACK TO s; COMMIT;"
        ),
    }
}

/// A failure of the demo's own database.
pub(crate) fn failed(doing: &str, error: &tokio_postgres::Error) -> Failure {
    let detail = error.as_db_error().map_or_else(|| error.to_string(), |server| server.message().to_owned());
    Failure::Other(format!("the demo could not {doing}: {detail}"))
}
