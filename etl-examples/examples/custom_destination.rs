//! How does one write a destination? This one appends a line a row to a file.
//!
//! `cargo run -p etl-examples --example custom_destination -- postgres://etl@localhost/shop shop_pub`

use std::fs::File;
use std::io::Write;

use etl::data::{Event, Op, TableRow};
use etl::destination::Destination;
use etl::pipeline::Pipeline;
use etl::schema::TableId;
use etl::source::SourceConfig;
use etl::{ErrorKind, EtlResult, ResultExt};

struct Lines(File);

impl Lines {
    fn append<'r>(&self, rows: impl IntoIterator<Item = (&'static str, &'r TableRow)>) -> EtlResult<()> {
        let mut text = String::new();
        for (what, row) in rows {
            text += &format!("{what} {}", row.schema().name);
            for (place, column) in row.schema().columns.iter().enumerate() {
                text += &format!(" {}={:?}", column.name, row.get(place)?);
            }
            text.push('\n');
        }
        (&self.0).write_all(text.as_bytes()).or_etl(ErrorKind::Disk, "append the lines")?;
        self.0.sync_data().or_etl(ErrorKind::Disk, "make the lines durable")
    }
}

impl Destination for Lines {
    async fn truncate_table(&self, _: TableId) -> EtlResult<()> {
        Ok(()) // A log takes nothing back: a table that is copied again is in it again.
    }

    async fn write_table_rows(&self, _: TableId, rows: Vec<TableRow>) -> EtlResult<()> {
        self.append(rows.iter().map(|row| ("copied", row)))
    }

    async fn write_events(&self, events: Vec<Event>) -> EtlResult<()> {
        self.append(events.iter().filter_map(|event| match event {
            Event::Change(change) => Some(match &change.op {
                Op::Insert { new } => ("inserted", new),
                Op::Update { new, .. } => ("updated", new),
                Op::Delete { old } => ("deleted", old.row()),
            }),
            _ => None,
        }))
    }
}

#[tokio::main]
async fn main() -> EtlResult<()> {
    let mut words = std::env::args().skip(1);
    let (Some(url), Some(publication)) = (words.next(), words.next()) else {
        println!("usage: custom_destination URL PUBLICATION");
        return Ok(());
    };
    let file =
        File::options().append(true).create(true).open("changes.log").or_etl(ErrorKind::Disk, "open the file")?;
    let pipeline = Pipeline::builder("lines", SourceConfig::from_url(&url)?.publication(publication))
        .data_dir("./etl-data-lines")
        .destination(Lines(file))
        .build()?;
    pipeline.start().await?.wait().await?;
    Ok(())
}
