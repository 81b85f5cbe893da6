//! Does `log` keep its promises, its lines read as somebody would who watches the process?

use std::cell::RefCell;

use etl::conformance_tests;
use etl::destination::conformance::{Abilities, Subject, UNSENT, fold};
use etl::destination::{AnyDestination, Mode, StampedText, TextRow};
use etl::schema::TableSchema;
use etl::store::{BoxFuture, SharedStore};
use etl::{EtlResult, Lsn, Position};
use etl_destinations::log::{Log, LogConfig, Shown};
use etl_destinations::table_rules::TableRules;
use harness::lines::Lines;
use serde_json::Value;
use tracing::subscriber::DefaultGuard;

use crate::rules::all_in;
use crate::table::told;

struct Watched(Lines);

thread_local! {
    /// A test has a thread, and what it logs goes to its lines until it ends.
    static LISTENING: RefCell<Option<DefaultGuard>> = const { RefCell::new(None) };
}

impl Watched {
    fn opened(rules: TableRules, store: SharedStore) -> EtlResult<AnyDestination> {
        let config = LogConfig { show: Shown::All, ..LogConfig::default() };
        Ok(AnyDestination::new(Log::open(config, store, rules)?))
    }

    /// The lines of a table since it was copied anew.
    fn stamped(&self, table: &TableSchema) -> Vec<StampedText> {
        let name = table.name.to_string();
        let mut rows = Vec::new();
        for line in self.0.text().lines() {
            let line: Value = serde_json::from_str(line).expect("a line of JSON");
            if line["target"] != "etl::changes" || line["table"] != name.as_str() {
                continue;
            }
            match line["message"].as_str() {
                Some("the table is copied anew") => rows.clear(),
                Some("change") => rows.push(row(&line, table)),
                _ => {}
            }
        }
        rows
    }
}

fn row(line: &Value, table: &TableSchema) -> StampedText {
    let text = |name: &str| line[name].as_str().expect("text").to_owned();
    let values: Value = serde_json::from_str(&text("row")).expect("the row in JSON");
    let value = |name: &str| match values.get(name) {
        None => Some(UNSENT.to_owned()),
        Some(value) => value.as_str().map(str::to_owned),
    };
    let lsn: Lsn = text("lsn").parse().expect("an LSN");
    StampedText {
        position: Position::new(lsn, line["ordinal"].as_u64().expect("a number")),
        change_type: text("change"),
        values: table.columns.iter().map(|column| value(&column.name)).collect(),
    }
}

impl Subject for Watched {
    fn open(&self, store: SharedStore) -> BoxFuture<'_, EtlResult<AnyDestination>> {
        Box::pin(async { Self::opened(TableRules::default(), store) })
    }

    fn rows<'a>(&'a self, table: &'a TableSchema) -> BoxFuture<'a, EtlResult<Option<Vec<TextRow>>>> {
        Box::pin(async { Ok(Some(fold(self.stamped(table), table))) })
    }

    fn abilities(&self) -> Abilities {
        Abilities::default().with_log()
    }

    fn modes(&self) -> &[Mode] {
        &[Mode::Append]
    }

    fn open_in(&self, mode: Mode, store: SharedStore) -> BoxFuture<'_, EtlResult<AnyDestination>> {
        Box::pin(async move { Self::opened(all_in(mode), store) })
    }

    fn stamped_rows<'a>(&'a self, table: &'a TableSchema) -> BoxFuture<'a, EtlResult<Option<Vec<StampedText>>>> {
        Box::pin(async { Ok(Some(self.stamped(table))) })
    }
}

async fn watched() -> Option<Watched> {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt().json().flatten_event(true).with_writer(move || writer.clone()).finish();
    LISTENING.set(Some(tracing::subscriber::set_default(subscriber)));
    Some(Watched(lines))
}

conformance_tests!(watched, told);
