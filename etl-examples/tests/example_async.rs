//! Does `example_async` take each way that a system which answers later can go?

#[path = "../examples/example_async/depot.rs"]
mod depot;
#[path = "../examples/example_async/destination.rs"]
mod destination;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use etl::clock::{self, Timestamp};
use etl::data::{Cell, Change, Event, OldRow, Op, TableRow};
use etl::destination::{Batch, Destination};
use etl::schema::{Column, Kind, ReplicaIdentity, TableId, TableName, TableSchema};
use etl::store::{Accounting, MemoryStore, Operation, OperationContext, OperationId, OperationState, SharedStore};
use etl::{CursorId, ErrorKind, EtlResult, Lsn, Position};
use etl_destinations::bulk::{
    Bulk, BulkDestination, BulkSettings, ErrorClass, Frame, Manifest, ManifestRow, Overall, PollState, Said,
    SealedBatch, Submitted, overall, progress,
};
use etl_destinations::table_destination::TableDestination;
use etl_destinations::table_rules::TableRules;
use serde_json::json;

use crate::depot::{Depot, Mishap, Parcel, Receipt};
use crate::destination::ToDepot;

const TABLE: TableId = TableId(1);

fn schema() -> Arc<TableSchema> {
    let column = |(place, name): (usize, &str)| Column {
        fill: None,
        name: name.into(),
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
        name: TableName::new("public", "t"),
        columns: ["id", "what"].into_iter().enumerate().map(column).collect(),
        key: Box::new([0]),
        identity: ReplicaIdentity::Default,
        since: Position::ZERO,
    })
}

fn row(id: &str, what: &str) -> TableRow {
    TableRow::from_cells(schema(), &[Cell::Text(id.into()), Cell::Text(what.into())]).unwrap()
}

fn insert(id: &str, what: &str) -> Op {
    Op::Insert { new: row(id, what) }
}

/// A depot, and all that outlives a process of ours.
struct Scene {
    depot: Depot,
    store: SharedStore,
    dir: tempfile::TempDir,
    commit: AtomicU64,
}

impl Scene {
    /// Hours pass in no time.
    async fn new() -> Self {
        clock::follow_tokio(Timestamp(1_700_000_000_000_000));
        let store: SharedStore = Arc::new(MemoryStore::new());
        store.put_schema(schema()).await.unwrap();
        Self { depot: Depot::default(), store, dir: tempfile::tempdir().unwrap(), commit: AtomicU64::new(100) }
    }

    /// Lets something go wrong, once.
    fn expect(&self, mishap: &str) {
        self.depot.expect(Mishap::named(mishap).unwrap());
    }

    /// The destination, as each process makes it anew.
    fn destination(&self) -> TableDestination<Bulk<ToDepot>> {
        let settings = BulkSettings { dead_letters: true, ..BulkSettings::new(self.dir.path()) };
        Bulk::destination(ToDepot(self.depot.clone()), settings, Arc::clone(&self.store), TableRules::default())
    }

    fn transaction(&self, commit: u64, ops: Vec<Op>) -> (Batch, Vec<Event>) {
        let change = |(op, ordinal): (Op, u64)| {
            let position = Position::new(Lsn(commit), ordinal);
            Event::Change(Change { table_id: TABLE, position, committed_at: clock::now(), op })
        };
        let events = ops.into_iter().zip(1..).map(change).collect();
        let upto = Position::after(Lsn(commit));
        (Batch { cursor: CursorId::Main, from: Position::ZERO, upto, moves: Vec::new(), is_piece: false }, events)
    }

    /// Writes a transaction in a process of its own.
    async fn write(&self, ops: Vec<Op>) -> EtlResult<()> {
        let (batch, events) = self.transaction(self.commit.fetch_add(10, Ordering::Relaxed), ops);
        self.destination().write_batch(batch, events).await
    }

    async fn inserted(&self, rows: usize) -> EtlResult<()> {
        self.write((0..rows).map(|n| insert(&format!("{n:02}"), "book")).collect()).await
    }

    /// How many parcels are on the shelves, in how many deliveries they came, and how often the depot was asked.
    fn told(&self) -> (usize, usize, usize) {
        let (deliveries, questions) = self.depot.counts();
        (self.depot.shelves().len(), deliveries, questions)
    }

    async fn operation(&self, rows: u32) -> Operation {
        let operations = self.store.operations().await.unwrap();
        operations.into_iter().find(|operation| operation.rows == rows).expect("an operation of so many rows")
    }

    async fn accounting(&self, rows: u32) -> Accounting {
        match self.operation(rows).await.state {
            OperationState::Settled { accounting, .. } => accounting,
            state => panic!("{state:?}"),
        }
    }
}

fn context(vendor: serde_json::Value) -> OperationContext {
    OperationContext { step: 0, vendor, rows: (0, 1) }
}

/// The tickets of a delivery of so many parcels.
fn tickets(depot: &Depot, parcels: usize) -> Vec<OperationContext> {
    let parcel = |n: usize| Parcel { label: format!("t/{n}"), content: Some(serde_json::Map::new()) };
    let Ok(Receipt::Tickets(tickets)) = depot.deliver("by hand", (0..parcels).map(parcel).collect()) else { panic!() };
    tickets.into_iter().map(|(ticket, _)| context(json!({ "ticket": ticket }))).collect()
}

#[tokio::test(start_paused = true)]
async fn what_is_answered_at_once_is_never_asked_for() {
    let scene = Scene::new().await;
    scene.inserted(2).await.unwrap();
    assert_eq!(scene.told(), (2, 1, 0));
    assert_eq!(scene.accounting(2).await, Accounting { succeeded: 2, ..Accounting::default() });
}

#[tokio::test(start_paused = true)]
async fn one_ticket_is_asked_for_until_it_is_done() {
    let scene = Scene::new().await;
    scene.inserted(4).await.unwrap();
    assert_eq!(scene.told(), (4, 1, 2), "half of it was done at the first question");
    assert_eq!(scene.accounting(4).await, Accounting { succeeded: 4, ..Accounting::default() });
}

#[tokio::test(start_paused = true)]
async fn several_tickets_of_a_delivery_are_asked_for_together() {
    let scene = Scene::new().await;
    scene.inserted(12).await.unwrap();
    assert_eq!(scene.told(), (12, 1, 2), "three tickets, and two questions");
    assert_eq!(scene.accounting(12).await, Accounting { succeeded: 12, ..Accounting::default() });
}

#[tokio::test(start_paused = true)]
async fn one_question_is_for_one_ticket_or_for_many() {
    let depot = Depot::default();
    let tickets = tickets(&depot, 12);
    let system = ToDepot(depot);
    let one = system.poll(&tickets[1..2]).await.unwrap();
    assert_eq!(one, [PollState::Pending { progress: Some(50), retry_after: None }]);
    let many = system.poll(&tickets).await.unwrap();
    let half = PollState::Pending { progress: Some(50), retry_after: None };
    assert_eq!(many, [half.clone(), PollState::Completed, half], "in the order of the tickets");
    assert_eq!((overall(&many), progress(&many)), (Overall::Pending, Some(50)));
    assert_eq!(overall(&system.poll(&tickets).await.unwrap()), Overall::Completed);
}

/// A batch by hand: what a system does with it is tried without a pipeline, and without the family.
fn sealed(dir: &std::path::Path, parcels: usize) -> SealedBatch {
    let parcel = |n: usize| json!({ "label": format!("t/{n}"), "content": { "what": "book" } });
    let parcels: Vec<_> = (0..parcels).map(parcel).collect();
    let row = |(parcel, place): (&serde_json::Value, u64)| ManifestRow {
        position: Position::new(Lsn(100), place),
        change_type: "INSERT".into(),
        key: Some(Box::new([place.to_string()])),
        row: parcel["content"].clone(),
        is_partial: false,
        is_logged: false,
        bytes: parcel.to_string().len() as u32,
    };
    let rows = parcels.iter().zip(1..).map(row).collect();
    let body = dir.join("by-hand.body");
    std::fs::write(&body, json!(parcels).to_string()).unwrap();
    let manifest = Manifest { table: schema().name.clone(), frame: Frame::default(), rows };
    let (id, sealed_at) = (OperationId("by hand".into()), clock::now());
    SealedBatch { id, table: TABLE, sequence: 1, sealed_at, attempt: 1, body, manifest }
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_submitted_by_hand_and_what_is_said_meanwhile_is_stored() {
    let scene = Scene::new().await;
    let batch = sealed(scene.dir.path(), 7);
    let said = Said::begin(&scene.store, &batch, vec![context(json!("a step before"))]).await.unwrap();
    let Submitted::Pending(tickets) = ToDepot(scene.depot.clone()).submit(&batch, &said).await.unwrap() else {
        panic!("all at once");
    };
    assert_eq!(tickets.iter().map(|ticket| ticket.rows).collect::<Vec<_>>(), [(0, 5), (5, 7)]);
    said.save(tickets[0].clone()).await.unwrap();
    assert_eq!(said.contexts().await.len(), 2);
    assert_eq!(scene.operation(7).await.state.contexts()[1].vendor, json!({ "ticket": "T1" }));
    let again = Said::begin(&scene.store, &batch, Vec::new()).await.map(drop).unwrap_err();
    assert_eq!(again.kind(), ErrorKind::StoreConflict, "it is under way already");
}

#[tokio::test(start_paused = true)]
async fn a_ticket_that_fails_is_delivered_again() {
    let scene = Scene::new().await;
    scene.expect("spoilt");
    scene.inserted(4).await.unwrap();
    assert_eq!((scene.told().0, scene.told().1), (4, 2));
    assert_eq!(scene.operation(4).await.attempts, 2);
}

#[tokio::test(start_paused = true)]
async fn of_several_tickets_only_the_one_that_failed_is_delivered_again() {
    let scene = Scene::new().await;
    scene.expect("spoilt");
    scene.inserted(12).await.unwrap();
    assert_eq!((scene.told().0, scene.told().1), (12, 2));
    assert_eq!(scene.accounting(12).await, Accounting { succeeded: 7, retried: 5, ..Accounting::default() });
}

#[tokio::test(start_paused = true)]
async fn each_parcel_ends_as_the_depot_says() {
    let scene = Scene::new().await;
    let what = ["book", "heavy", "wet", "damaged", "book"];
    scene.write((1..).zip(what).map(|(n, what)| insert(&n.to_string(), what)).collect()).await.unwrap();
    let accounting = scene.accounting(5).await;
    assert_eq!(accounting, Accounting { succeeded: 2, warned: 1, retried: 1, dead: 1, unattributed: 0 });
    let ids: Vec<_> = scene.depot.shelves().into_values().map(|content| content["id"].clone()).collect();
    assert_eq!(ids, ["1", "2", "3", "5"], "the wet one was dry when it came again");
    let letters = scene.store.dead_letters(None, None, 10).await.unwrap();
    assert_eq!(
        letters.iter().map(|letter| (&letter.row["id"], &*letter.reason)).collect::<Vec<_>>(),
        [(&json!("4"), "it is damaged")]
    );
}

#[tokio::test(start_paused = true)]
async fn updates_and_deletes_find_their_parcels() {
    let scene = Scene::new().await;
    scene.inserted(3).await.unwrap();
    let key = TableRow::from_cells(schema(), &[Cell::Text("01".into()), Cell::Null]).unwrap();
    let update = Op::Update { old: None, new: row("00", "lamp") };
    scene.write(vec![update, Op::Delete { old: OldRow::Key(key) }]).await.unwrap();
    let shelves = scene.depot.shelves();
    let what: Vec<_> = shelves.values().map(|content| (&content["id"], &content["what"])).collect();
    assert_eq!(what, [(&json!("00"), &json!("lamp")), (&json!("02"), &json!("book"))]);
    scene.destination().truncate_table(TABLE).await.unwrap();
    assert!(scene.depot.shelves().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_context_without_a_ticket_is_a_failure_and_moves_no_other_answer() {
    let depot = Depot::default();
    let ticket = tickets(&depot, 3).remove(0);
    let states = ToDepot(depot).poll(&[context(json!({})), ticket]).await.unwrap();
    let PollState::Failed { class, code, .. } = &states[0] else { panic!("{states:?}") };
    assert_eq!((class, code.as_str()), (&ErrorClass::Retry, "MISSING_CONTEXT"));
    assert_eq!(states[1], PollState::Pending { progress: Some(50), retry_after: None });
}

#[tokio::test(start_paused = true)]
async fn a_ticket_that_nobody_knows_is_gone_and_its_parcels_are_delivered_again() {
    let states = ToDepot(Depot::default()).poll(&[context(json!({ "ticket": "T7" }))]).await.unwrap();
    assert_eq!(states, [PollState::Gone]);
    let scene = Scene::new().await;
    scene.expect("forgotten");
    scene.inserted(4).await.unwrap();
    assert_eq!((scene.told().0, scene.told().1), (4, 2));
}

#[tokio::test(start_paused = true)]
async fn what_did_not_arrive_is_sent_again() {
    let scene = Scene::new().await;
    scene.expect("unreachable");
    scene.inserted(4).await.unwrap();
    assert_eq!((scene.told().0, scene.told().1), (4, 1));
    assert_eq!(scene.operation(4).await.attempts, 1, "what did not arrive was no attempt");
}

#[tokio::test(start_paused = true)]
async fn what_arrived_unheard_is_known_again_when_it_is_sent_again() {
    let scene = Scene::new().await;
    scene.expect("answer-lost");
    scene.inserted(4).await.unwrap();
    assert_eq!((scene.told().0, scene.told().1), (4, 1), "one delivery, though it was sent twice");
}

#[tokio::test(start_paused = true)]
async fn a_question_that_is_not_answered_says_nothing_about_the_parcels() {
    let scene = Scene::new().await;
    scene.expect("deaf");
    scene.inserted(4).await.unwrap();
    assert_eq!(scene.told(), (4, 1, 3), "asked once more, and delivered once");
    let system = ToDepot(scene.depot.clone());
    system.check_connection().await.unwrap();
    scene.expect("deaf");
    let error = system.check_connection().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DestinationUnavailable);
}

#[tokio::test(start_paused = true)]
async fn a_ticket_that_is_never_done_holds_its_table_when_its_time_is_over() {
    let scene = Scene::new().await;
    scene.expect("never-done");
    let began = clock::now();
    let error = scene.inserted(4).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DestinationRejected, "{error}");
    assert!(clock::now().since(began) >= Duration::from_secs(3600), "an hour, in no time");
    let OperationState::Held { reason, contexts, .. } = scene.operation(4).await.state else { panic!() };
    assert!(reason.contains("deadline"), "{reason}");
    assert_eq!(contexts[0].vendor, json!({ "ticket": "T1" }), "whoever looks into it knows what to ask for");
}

/// What a crash leaves: the next process asks for what was delivered, and delivers nothing again.
#[tokio::test(start_paused = true)]
async fn another_process_asks_for_the_tickets_of_the_first() {
    let scene = Scene::new().await;
    let ops = || (0..4).map(|n| insert(&n.to_string(), "book")).collect();
    {
        let (batch, events) = scene.transaction(100, ops());
        let destination = scene.destination();
        let writing = destination.write_batch(batch, events);
        tokio::pin!(writing);
        while !matches!(scene.store.operations().await.unwrap().first(), Some(of) if of.state.name() == "submitted") {
            tokio::select! {
                biased;
                written = &mut writing => panic!("{written:?}"),
                () = tokio::task::yield_now() => {}
            }
        }
    }
    assert_eq!(scene.told(), (0, 1, 0), "it is delivered, and nobody has asked");
    let (batch, events) = scene.transaction(100, ops());
    scene.destination().write_batch(batch, events).await.unwrap();
    assert_eq!(scene.told(), (4, 1, 2));
}
