//! Does what a run takes grow with the work, and with nothing else? Memory, CPU seconds, many tables, wide rows, a start.

use std::time::Instant;

use crate::Result;
use crate::engine::HEAD;
use crate::site::{Bench, Site};

/// Tables in a database of many.
const TABLES: u32 = 500;

const MANY: &str = "do $$ begin for t in 1..{tables} loop
    execute format('create table many.t%s (id bigint primary key, a int, b text)', t);
    execute format('insert into many.t%s select g, g, md5(g::text) from generate_series(1, {rows}) g', t);
  end loop; end $$";

impl Bench {
    /// The same rows in one table, in five hundred, and ten times as many; rows of ten megabytes.
    pub(crate) async fn bounds(&self, rows: u32) -> Result<()> {
        self.page().head(HEAD);
        let many = format!("{TABLES} tables, as many rows together");
        for (schema, tables, rows, label) in [
            ("one", 1, rows, "one table"),
            ("ten", 1, rows * 10, "ten times as many rows"),
            ("many", TABLES, rows / TABLES, &many),
        ] {
            self.tables(schema, tables, rows).await?;
            self.copied(schema, label).await?;
            if tables == 1 {
                self.server.psql(&format!("drop schema {schema} cascade")).await?;
                self.server.psql("checkpoint").await?;
            }
        }
        self.server
            .psql("create table big (id int primary key, v text); alter table big alter v set storage external")
            .await?;
        self.server
            .psql("insert into big select g, repeat(md5(g::text), 327680) from generate_series(1, 50) g")
            .await?;
        self.server.psql("create publication big_pub for table big").await?;
        self.copied("big", "50 rows of 10 MiB").await?;
        self.start().await
    }

    async fn tables(&self, schema: &str, tables: u32, rows: u32) -> Result<()> {
        self.server.psql(&format!("create schema {schema}")).await?;
        let script = MANY.replace("many.", &format!("{schema}.")).replace("{tables}", &tables.to_string());
        self.server.psql(&script.replace("{rows}", &rows.to_string())).await?;
        let published = format!("create publication {schema}_pub for table ");
        let names: Vec<String> = (1..=tables).map(|table| format!("{schema}.t{table}")).collect();
        self.server.psql(&(published + &names.join(", "))).await?;
        // What the server has yet to write is not to be waited for with what `etl` writes.
        self.server.psql("checkpoint").await?;
        std::process::Command::new("sync").status()?;
        Ok(())
    }

    async fn copied(&self, schema: &str, label: &str) -> Result<()> {
        let publication = format!("{schema}_pub");
        let mut ours = Vec::new();
        for run in 0..self.runs {
            let site = Site::into_null(format!("{schema}{run}"), &publication);
            ours.push(self.measure(&site)?);
            if schema != "many" || run > 0 {
                self.drop_slot(&site.id).await?;
            }
        }
        self.row(label, f64::NAN, &ours);
        Ok(())
    }

    /// Seconds from the start of a pipeline of many tables, all of them ready, until it streams.
    async fn start(&self) -> Result<()> {
        let config = self.config(&Site::into_null("many0".to_owned(), "many_pub"))?;
        let began = Instant::now();
        let config = config.display().to_string();
        let mut running = harness::kill::Program::etl(["run", "--config", &config]).await.start()?;
        while self.server.psql("select active from pg_replication_slots where slot_name = 'etl_many0'").await? != "t" {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        let took = began.elapsed().as_secs_f64();
        self.page().say(format!("\n`etl run` on {TABLES} tables, all of them ready, streams after {took:.2} s."));
        running.terminate();
        running.end(std::time::Duration::from_secs(60)).await?;
        self.drop_slot("many0").await
    }
}
