//! Does any history end in the source's state, however it is cut into batches, and whatever comes twice?

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Abilities;
use super::trial::{CaseResult, NULL, Transaction, Trial, UNCHANGED, items, table};
use crate::destination::{Destination, Mode};
use crate::lsn::Position;
use crate::schema::TableSchema;

/// The last of the histories that are tried; what a seed makes never changes.
const SEEDS: u64 = 3;
const TRANSACTIONS: usize = 36;
/// How often the state is looked at on the way.
const STAGES: usize = 3;

pub(super) async fn any_history_in_any_cut_ends_in_the_same_state(trial: &mut Trial<'_>) -> CaseResult {
    let last = trial.amount(SEEDS, 1);
    histories(trial, 1..last + 1).await
}

pub(super) async fn any_history_ends_in_the_same_state_in_soft_delete(trial: &mut Trial<'_>) -> CaseResult {
    if trial.enter(Mode::SoftDelete).await? { histories(trial, 4..5).await } else { Ok(()) }
}

pub(super) async fn any_history_ends_in_the_same_state_in_append(trial: &mut Trial<'_>) -> CaseResult {
    if trial.enter(Mode::Append).await? { histories(trial, 5..6).await } else { Ok(()) }
}

async fn histories(trial: &mut Trial<'_>, seeds: std::ops::Range<u64>) -> CaseResult {
    for seed in seeds {
        let mut source = Source::new(seed, trial.abilities());
        trial.copy(&source.keyed, &[]).await?;
        trial.copy(&source.keyless, &[]).await?;
        let (mut history, start) = (Vec::new(), trial.at);
        for _ in 0..STAGES {
            let mut next = history.len();
            for _ in 0..TRANSACTIONS / STAGES {
                let transaction = source.transaction();
                history.push(transaction);
            }
            while next < history.len() {
                let end = history.len().min(next + 1 + source.below(5));
                // Where the place stores its positions, some of it comes again after a crash.
                if trial.destination().capabilities().atomic && source.below(3) == 0 {
                    trial.reopen().await?;
                    next -= source.below(next.min(4) + 1);
                    trial.at = next.checked_sub(1).map_or(start, |last| Position::after(history[last].commit));
                }
                trial.deliver(&history[next..end]).await?;
                next = end;
            }
            source.expect(trial).await.map_err(|broken| broken.within(&format!("history {seed}")))?;
        }
    }
    Ok(())
}

/// What the source holds, and the chance that decides what it does next.
struct Source {
    chance: u64,
    commit: u64,
    written: u64,
    abilities: Abilities,
    keyed: Arc<TableSchema>,
    keyless: Arc<TableSchema>,
    items: BTreeMap<u64, [String; 2]>,
    lines: Vec<[String; 2]>,
}

impl Source {
    fn new(seed: u64, abilities: Abilities) -> Self {
        let id = seed as u32 * 2;
        let columns = [("what", 25, "text"), ("n", 23, "integer")];
        let keyless = table(id + 1, &format!("lines{seed}"), &columns, &[]);
        let (items_table, commit) = (items(id), seed * 10_000);
        let (items, lines) = (BTreeMap::new(), Vec::new());
        Self { chance: seed, commit, written: 0, abilities, keyed: items_table, keyless, items, lines }
    }

    /// A number below the bound, by SplitMix64.
    fn below(&mut self, bound: usize) -> usize {
        self.chance = self.chance.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.chance ^ (self.chance >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % bound.max(1) as u64) as usize
    }

    fn transaction(&mut self) -> Transaction {
        self.commit += 10;
        let mut transaction = Transaction::at(self.commit);
        for _ in 0..=self.below(6) {
            transaction = match self.below(20) {
                0 => self.truncate(transaction),
                1..=12 => self.change_item(transaction),
                _ => self.change_line(transaction),
            };
        }
        transaction.end()
    }

    fn truncate(&mut self, transaction: Transaction) -> Transaction {
        let (keyed, keyless) = (Arc::clone(&self.keyed), Arc::clone(&self.keyless));
        if self.below(2) == 0 {
            self.items.clear();
            return transaction.truncate(&[&keyed]);
        }
        self.items.clear();
        self.lines.clear();
        transaction.truncate(&[&keyed, &keyless])
    }

    /// The number is sometimes null; the text is another one each time.
    fn values(&mut self) -> [String; 2] {
        self.written += 1;
        let n = if self.below(4) == 0 { NULL.to_owned() } else { self.below(100).to_string() };
        [n, format!("text {}", self.written)]
    }

    /// Few keys, so that they are soon used again.
    fn change_item(&mut self, transaction: Transaction) -> Transaction {
        let table = Arc::clone(&self.keyed);
        let key = self.below(6) as u64;
        let name = key.to_string();
        let [n, big] = self.values();
        let Some(before) = self.items.get(&key).cloned() else {
            self.items.insert(key, [n.clone(), big.clone()]);
            return transaction.insert(&table, &[&name, &n, &big]);
        };
        let sent = if self.below(2) == 0 && self.abilities.unsent { UNCHANGED } else { &big };
        let after = [n.clone(), if sent == UNCHANGED { before[1].clone() } else { big.clone() }];
        let other = self.below(6) as u64;
        match self.below(3) {
            0 => {
                self.items.remove(&key);
                transaction.delete(&table, &[&name, NULL, NULL])
            }
            1 if !self.items.contains_key(&other) => {
                self.items.remove(&key);
                self.items.insert(other, after);
                transaction.rekey(&table, &[&name, NULL, NULL], &[&other.to_string(), &n, sent])
            }
            _ => {
                self.items.insert(key, after);
                transaction.update(&table, &[&name, &n, sent])
            }
        }
    }

    /// Few values, so that many rows are equal.
    fn change_line(&mut self, transaction: Transaction) -> Transaction {
        let table = Arc::clone(&self.keyless);
        let n = if self.below(3) == 0 { NULL.to_owned() } else { self.below(2).to_string() };
        let new = [["a", "b"][self.below(2)].to_owned(), n];
        let place = self.below(self.lines.len() + 2);
        if place >= self.lines.len() {
            self.lines.push(new.clone());
            return transaction.insert(&table, &[&new[0], &new[1]]);
        }
        let old = self.lines.swap_remove(place);
        if self.below(2) == 0 {
            return transaction.delete(&table, &[&old[0], &old[1]]);
        }
        self.lines.push(new.clone());
        if self.abilities.log {
            return transaction.delete(&table, &[&old[0], &old[1]]).insert(&table, &[&new[0], &new[1]]);
        }
        transaction.replace(&table, &[&old[0], &old[1]], &[&new[0], &new[1]])
    }

    async fn expect(&self, trial: &mut Trial<'_>) -> CaseResult {
        let keys: Vec<String> = self.items.keys().map(u64::to_string).collect();
        let rows: Vec<[&str; 3]> =
            keys.iter().zip(self.items.values()).map(|(key, [n, big])| [&**key, &**n, &**big]).collect();
        let rows: Vec<&[&str]> = rows.iter().map(|row| &row[..]).collect();
        trial.expect(&self.keyed, &rows).await?;
        let rows: Vec<[&str; 2]> = self.lines.iter().map(|[what, n]| [&**what, &**n]).collect();
        let rows: Vec<&[&str]> = rows.iter().map(|row| &row[..]).collect();
        trial.expect(&self.keyless, &rows).await
    }
}
