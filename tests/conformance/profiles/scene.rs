//! What does a test of a profile need? A table, a store and a directory that outlive processes, and the profile with waits of
//! milliseconds.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use etl::clock::Timestamp;
use etl::data::{Change, Event, OldRow, Op, RawValue, RowBuilder, TableRow};
use etl::destination::{AnyDestination, Batch, CopyChunk, Destination};
use etl::schema::{Column, Kind, ReplicaIdentity, TableId, TableName, TableSchema};
use etl::store::{CursorId, DeadLetter, MemoryStore, Operation, SharedStore};
use etl::{EtlResult, Lsn, Position, Secret};
use etl_destinations::bulk::BulkSettings;
use etl_destinations::profile::{BuiltIn, ProfileConfig, System};
use etl_destinations::registry::bulk_factory;
use etl_destinations::table_rules::TableRules;

/// Nothing takes longer, on a slow machine neither.
pub(crate) const SOON: Duration = Duration::from_secs(120);

pub(crate) const TABLE: TableId = TableId(1);

/// What outlives a process.
pub(crate) struct Scene {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) store: SharedStore,
    pub(crate) schema: Arc<TableSchema>,
    pub(crate) config: ProfileConfig,
}

impl Scene {
    /// A profile that comes with `etl`, and a table with these columns of text, the first the key.
    pub(crate) async fn new(profile: &str, columns: &[&str]) -> Self {
        let text = BuiltIn::find(profile).unwrap().text;
        let text = text.replace("first = \"2s\", longest = \"1m\"", "first = \"1ms\", longest = \"20ms\"");
        Self::of(&text, columns).await
    }

    /// A profile of one's own.
    pub(crate) async fn of(profile: &str, columns: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store: SharedStore = Arc::new(MemoryStore::new());
        let schema = schema(columns);
        store.put_schema(Arc::clone(&schema)).await.unwrap();
        let mut config = ProfileConfig::named("");
        (config.name, config.path) = (None, Some(dir.path().join("profile.toml")));
        config.spool = Some(dir.path().join("spool"));
        let scene = Self { dir, store, schema, config };
        scene.write_profile(profile);
        scene
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("profile.toml")
    }

    fn write_profile(&self, text: &str) {
        std::fs::write(self.path(), text).unwrap();
    }

    /// Puts something else in the place of a part of the profile.
    pub(crate) fn change(&self, from: &str, to: &str) {
        let text = std::fs::read_to_string(self.path()).unwrap();
        assert!(text.contains(from), "the profile has no {from}");
        self.write_profile(&text.replacen(from, to, 1));
    }

    pub(crate) fn with(mut self, settings: &[(&str, &str)], secrets: &[(&str, &str)]) -> Self {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        self.config.settings = settings.iter().map(owned).collect::<BTreeMap<_, _>>();
        let secret = |(name, value): &(&str, &str)| ((*name).to_owned(), Secret::new(*value));
        self.config.secrets = secrets.iter().map(secret).collect();
        self
    }

    /// The destination as another process opens it.
    pub(crate) fn open(&self) -> AnyDestination {
        let system = System::open(&self.config).unwrap_or_else(|error| panic!("{error}"));
        let settings = BulkSettings { dead_letters: true, ..System::settings(&self.config).unwrap() };
        bulk_factory(system, settings, Arc::clone(&self.store), TableRules::default())
    }

    /// A row with these values; `-` is null.
    pub(crate) fn row<S: AsRef<str>>(&self, values: &[S]) -> TableRow {
        let raw = values.iter().map(|value| match value.as_ref() {
            "-" => RawValue::Null,
            text => RawValue::Text(text.as_bytes()),
        });
        let mut builder = RowBuilder::new();
        builder.push_raw(&self.schema, raw).unwrap();
        builder.finish().remove(0)
    }

    /// Copies rows, in a process of its own.
    pub(crate) async fn copy(&self, rows: Vec<TableRow>) -> EtlResult<()> {
        tokio::time::timeout(SOON, self.open().write_copy_chunk(TABLE, chunk(), rows.into())).await.expect("too late")
    }

    /// Begins to copy rows in a process that is killed once `is_time`.
    pub(crate) async fn copy_until(&self, rows: Vec<TableRow>, is_time: impl Future<Output = ()>) {
        let destination = self.open();
        tokio::select! {
            done = destination.write_copy_chunk(TABLE, chunk(), rows.into()) => panic!("it was not killed in time: {done:?}"),
            () = is_time => {}
        }
    }

    /// A transaction that deletes a row, of which its key is known.
    pub(crate) fn deletion<S: AsRef<str>>(&self, values: &[S]) -> (Batch, Vec<Event>) {
        let old = OldRow::Key(self.row(values));
        let (position, at) = (Position::new(Lsn(100), 1), Timestamp(1_700_000_000_000_000));
        let event = Event::Change(Change { table_id: TABLE, position, committed_at: at, op: Op::Delete { old } });
        let upto = Position::after(Lsn(100));
        (Batch { cursor: CursorId::Main, from: Position::ZERO, upto, moves: Vec::new(), is_piece: false }, vec![event])
    }

    /// The transaction after it, which empties the table.
    pub(crate) fn truncation(&self) -> (Batch, Vec<Event>) {
        let positions = Box::new([Position::new(Lsn(200), 1)]);
        let event = Event::Truncate { tables: Box::new([TABLE]), positions, at: Timestamp(0) };
        let (from, upto) = (Position::after(Lsn(100)), Position::after(Lsn(200)));
        (Batch { cursor: CursorId::Main, from, upto, moves: Vec::new(), is_piece: false }, vec![event])
    }

    pub(crate) async fn operations(&self) -> Vec<Operation> {
        self.store.operations().await.unwrap()
    }

    /// The rows that were refused for good.
    pub(crate) async fn dead(&self) -> Vec<DeadLetter> {
        self.store.dead_letters(None, None, 100_000).await.unwrap()
    }

    /// Where an operation waits for somebody, and why.
    pub(crate) async fn held(&self) -> String {
        let operations = self.operations().await;
        let states = operations.iter().map(|operation| format!("{:?}", operation.state));
        states.filter(|state| state.starts_with("Held")).collect()
    }
}

/// The chunk that every row is copied in.
pub(crate) fn chunk() -> CopyChunk {
    let (position, read_at) = (Position::new(Lsn(50), 0), Timestamp(1_700_000_000_000_000));
    CopyChunk { generation: 1, index: 1, position, read_at, replaces: false }
}

fn schema(columns: &[&str]) -> Arc<TableSchema> {
    let column = |(place, name): (usize, &&str)| Column {
        fill: None,
        name: (*name).into(),
        attnum: place as i16 + 1,
        type_oid: 25,
        modifier: -1,
        type_name: "text".into(),
        kind: Kind::Text,
        nullable: place > 0,
    };
    Arc::new(TableSchema {
        last_attnum: 0,
        source_name: None,
        id: TABLE,
        name: TableName::new("public", "people"),
        columns: columns.iter().enumerate().map(column).collect(),
        key: Box::new([0]),
        identity: ReplicaIdentity::Default,
        since: Position::ZERO,
    })
}
