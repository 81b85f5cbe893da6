//! Does somebody else's destination keep its promises?

use std::fs::File;

use etl::destination::conformance::{Abilities, Subject, UNSENT, fold};
use etl::destination::{AnyDestination, StampedText, TextRow};
use etl::schema::TableSchema;
use etl::store::{BoxFuture, SharedStore};
use etl::{ErrorKind, EtlResult, Lsn, Position, ResultExt};
use outsider::Journal;
use serde_json::Value;

struct Mine(tempfile::NamedTempFile);

impl Subject for Mine {
    fn open(&self, _store: SharedStore) -> BoxFuture<'_, EtlResult<AnyDestination>> {
        Box::pin(async {
            let file = File::options().append(true).open(self.0.path()).or_etl(ErrorKind::Disk, "open the journal")?;
            Ok(AnyDestination::new(Journal(file)))
        })
    }

    fn rows<'a>(&'a self, table: &'a TableSchema) -> BoxFuture<'a, EtlResult<Option<Vec<TextRow>>>> {
        Box::pin(async {
            let text = std::fs::read_to_string(self.0.path()).or_etl(ErrorKind::Disk, "read the journal")?;
            let mut log = Vec::new();
            for line in text.lines().map(|line| serde_json::from_str::<Value>(line).expect("a line of JSON")) {
                match line[1].as_str() {
                    _ if line[0] != table.id.0 => {}
                    Some("FORGET") => log.clear(),
                    _ => log.push(row(&line)),
                }
            }
            Ok(Some(fold(log, table)))
        })
    }

    fn abilities(&self) -> Abilities {
        Abilities::default().with_log()
    }
}

fn row(line: &Value) -> StampedText {
    let number = |place: usize| line[place].as_u64().expect("a number");
    let value = |value: &Value| match value {
        Value::Bool(_) => Some(UNSENT.to_owned()),
        value => value.as_str().map(str::to_owned),
    };
    StampedText {
        position: Position::new(Lsn(number(2)), number(3)),
        change_type: line[1].as_str().expect("text").to_owned(),
        values: line[4].as_array().expect("values").iter().map(value).collect(),
    }
}

async fn mine() -> Option<Mine> {
    Some(Mine(tempfile::NamedTempFile::new().expect("a file")))
}

etl::conformance_tests!(mine);
