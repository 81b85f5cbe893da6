//! Does it hold for many tables, many batches, much at once, and writes that nobody waits for any more?

use std::sync::Arc;

use super::faults::polled;
use super::trial::{Broken, CaseResult, NULL, Transaction, Trial, chunk, items, row, table};
use crate::destination::Destination;
use crate::schema::{TableId, TableName, TableSchema};

pub(super) async fn ten_tables_are_copied_at_once_and_written_together(trial: &mut Trial<'_>) -> CaseResult {
    let tables: Vec<Arc<TableSchema>> = (1..=10).map(items).collect();
    for table in &tables {
        trial.declare(table).await?;
        trial.destination().truncate_table(table.id).await?;
    }
    let copies = tables.iter().flat_map(|table| (1..=4).map(move |index| (table, index)));
    let copies = copies.map(|(table, index)| {
        let key = format!("{index}{}", table.id);
        let values = [key, "1".to_owned(), format!("copied {}", table.id)];
        let rows = vec![row(table, &values.iter().map(String::as_str).collect::<Vec<_>>())];
        trial.destination().write_copy_chunk(table.id, chunk(1, index), rows.into())
    });
    futures_util::future::try_join_all(copies).await?;
    let both = tables.iter().fold(Transaction::at(100), |transaction, table| {
        transaction.insert(table, &["7777", "2", "new"]).delete(table, &[&format!("1{}", table.id), NULL, NULL])
    });
    trial.deliver(&[both.end()]).await?;
    for table in &tables {
        let copied = format!("copied {}", table.id);
        let keys: Vec<String> = (2..=4).map(|index| format!("{index}{}", table.id)).collect();
        let mut expected: Vec<[&str; 3]> = keys.iter().map(|key| [key.as_str(), "1", copied.as_str()]).collect();
        expected.push(["7777", "2", "new"]);
        let expected: Vec<&[&str]> = expected.iter().map(|row| &row[..]).collect();
        trial.expect(table, &expected).await?;
    }
    Ok(())
}

pub(super) async fn a_thousand_small_batches_arrive(trial: &mut Trial<'_>) -> CaseResult {
    let table = items(1);
    trial.copy(&table, &[&["0", "0", "copied"]]).await?;
    let count: u64 = trial.amount(1000, 50);
    for number in 1..=count {
        let (key, before) = (number.to_string(), (number / 2).to_string());
        let transaction = Transaction::at(100 + number).insert(&table, &[&key, "1", "x"]);
        let transaction = if number % 2 == 0 {
            transaction.delete(&table, &[&before, NULL, NULL])
        } else {
            transaction.update(&table, &["0", &key, "counted"])
        };
        trial.deliver(&[transaction.end()]).await?;
    }
    let keys: Vec<String> = (count / 2 + 1..=count).map(|key| key.to_string()).collect();
    let mut expected: Vec<[&str; 3]> = keys.iter().map(|key| [key.as_str(), "1", "x"]).collect();
    let last = (count - 1).to_string();
    expected.push(["0", &last, "counted"]);
    let expected: Vec<&[&str]> = expected.iter().map(|row| &row[..]).collect();
    trial.expect(&table, &expected).await
}

pub(super) async fn one_large_batch_arrives(trial: &mut Trial<'_>) -> CaseResult {
    let table = items(1);
    trial.copy(&table, &[]).await?;
    // 64 MiB, of which no two rows are alike.
    let texts: Vec<(String, String)> = (0..trial.amount(256_u32, 16))
        .map(|number| (number.to_string(), format!("{number} ").repeat((256 << 10) / (number.to_string().len() + 1))))
        .collect();
    let all = texts
        .iter()
        .fold(Transaction::at(100), |transaction, (key, text)| transaction.insert(&table, &[key, "1", text]));
    trial.deliver(&[all.end()]).await?;
    let expected: Vec<[&str; 3]> = texts.iter().map(|(key, text)| [key.as_str(), "1", text.as_str()]).collect();
    let expected: Vec<&[&str]> = expected.iter().map(|row| &row[..]).collect();
    // What differs is too much to be shown.
    trial.expect(&table, &expected).await.map_err(|_| Broken::new("a batch of 64 MiB did not arrive as it was"))
}

pub(super) async fn a_write_that_is_given_up_and_made_again_changes_nothing(trial: &mut Trial<'_>) -> CaseResult {
    let (table, log) = (items(1), table(2, "log", &[("what", 25, "text")], &[]));
    trial.copy(&table, &[&["1", "10", "copied"]]).await?;
    trial.copy(&log, &[]).await?;
    let atomic = trial.destination().capabilities().atomic;
    let mut lines = Vec::new();
    for after in 0..12_u32 {
        let (key, line) = (format!("10{after}"), format!("line {after}"));
        let number = u64::from(after);
        let transaction =
            Transaction::at(100 + number).insert(&table, &[&key, "1", "x"]).update(&table, &["1", &key, "now"]);
        let transaction = if atomic { transaction.insert(&log, &[&line]) } else { transaction };
        let transaction = transaction.end();
        let (batch, events) = trial.batch(std::slice::from_ref(&transaction));
        polled(trial.destination().write_batch(batch, events), after).await;
        let copied = row(&table, &[&format!("20{after}"), "2", "chunk"]);
        polled(
            trial.destination().write_copy_chunk(table.id, chunk(1, number + 2), vec![copied.clone()].into()),
            after,
        )
        .await;
        trial.destination().write_copy_chunk(table.id, chunk(1, number + 2), vec![copied].into()).await?;
        trial.deliver(&[transaction]).await?;
        lines.extend(atomic.then_some(line));
    }
    let keys: Vec<[String; 2]> = (0..12).map(|after| [format!("10{after}"), format!("20{after}")]).collect();
    let mut expected: Vec<[&str; 3]> =
        keys.iter().flat_map(|[one, two]| [[one.as_str(), "1", "x"], [two.as_str(), "2", "chunk"]]).collect();
    expected.push(["1", "1011", "now"]);
    let expected: Vec<&[&str]> = expected.iter().map(|row| &row[..]).collect();
    trial.expect(&table, &expected).await?;
    let lines: Vec<[&str; 1]> = lines.iter().map(|line| [line.as_str()]).collect();
    let lines: Vec<&[&str]> = lines.iter().map(|line| &line[..]).collect();
    trial.expect(&log, &lines).await
}

pub(super) async fn the_longest_names_are_kept_apart(trial: &mut Trial<'_>) -> CaseResult {
    // 63 bytes, of letters of one and of two, that differ in their last.
    let name = |last: char| format!("{}{last}", "ü".repeat(31));
    let names = [name('a'), name('b')];
    let columns = [(names[0].as_str(), 23, "integer"), (names[1].as_str(), 25, "text")];
    let mut tables = Vec::new();
    for (id, name) in (1..).zip(&names) {
        let schema = table(id, "x", &columns, &[0]);
        let schema = TableSchema {
            id: TableId(id),
            name: TableName::new(names[0].as_str(), name.as_str()),
            ..(*schema).clone()
        };
        tables.push(Arc::new(schema));
    }
    for (table, text) in tables.iter().zip(["one", "two"]) {
        trial.copy(table, &[&["1", text]]).await?;
    }
    let transaction =
        Transaction::at(100).insert(&tables[0], &["2", "first"]).update(&tables[1], &["1", "second"]).end();
    trial.deliver(&[transaction]).await?;
    trial.expect(&tables[0], &[&["1", "one"], &["2", "first"]]).await?;
    trial.expect(&tables[1], &[&["1", "second"]]).await
}

/// Of these names, a place that folds case or has no such characters makes one.
const COLLIDING: [&str; 4] = ["Sa/me", "sa/me", "sa.me", "SA.ME"];

pub(super) async fn names_that_come_to_the_same_are_kept_apart(trial: &mut Trial<'_>) -> CaseResult {
    let columns: Vec<(&str, u32, &str)> =
        std::iter::once(("id", 23, "integer")).chain(COLLIDING.map(|name| (name, 25, "text"))).collect();
    let tables: Vec<Arc<TableSchema>> =
        (1..).zip(COLLIDING).map(|(id, name)| table(id, name, &columns, &[0])).collect();
    for table in &tables {
        let rows: [&[&str]; 3] =
            [&["1", "a", "b", "c", "d"], &["2", NULL, NULL, NULL, NULL], &["3", "x", "y", "z", &table.name.name]];
        trial.copy(table, &rows).await?;
    }
    let changes = tables.iter().fold(Transaction::at(100), |transaction, table| {
        transaction.update(table, &["1", "A", "B", "C", "D"]).delete(table, &["2", NULL, NULL, NULL, NULL])
    });
    trial.deliver(&[changes.end()]).await?;
    for table in &tables {
        let rows: [&[&str]; 2] = [&["1", "A", "B", "C", "D"], &["3", "x", "y", "z", &table.name.name]];
        trial.expect(table, &rows).await?;
    }
    Ok(())
}
