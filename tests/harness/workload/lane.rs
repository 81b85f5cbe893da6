//! What does one connection do next? It knows which of its rows are there, and writes the next transaction as SQL.

use rand::{RngExt, rngs::StdRng, seq::IndexedRandom};

use super::{tables::Keyed, values};
use crate::seed::numbers;

/// One connection's rows and random numbers.
#[derive(Debug)]
pub(super) struct Lane {
    number: u64,
    lanes: u64,
    rng: StdRng,
    next: i64,
    rows: Rows,
}

/// The keys of this lane per table: what is there, and what was there.
#[derive(Debug, Clone, Default)]
struct Rows {
    live: [Vec<i64>; Keyed::ALL.len()],
    dead: [Vec<i64>; Keyed::ALL.len()],
}

impl Lane {
    pub(super) fn new(seed: u64, number: u64, lanes: u64, preloaded: i64) -> Self {
        let (first, step) = (number.cast_signed(), usize::try_from(lanes).unwrap_or(1));
        let mut rows = Rows::default();
        for (live, table) in rows.live.iter_mut().zip(Keyed::ALL) {
            live.extend((first..table.preloaded(preloaded)).step_by(step));
        }
        let next = preloaded / lanes.cast_signed() + 1;
        Self { number, lanes, rng: numbers(seed, number), next, rows }
    }

    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// The next transaction, from `begin` to its end.
    pub(super) fn transaction(&mut self) -> String {
        let mut sql = "begin;\n".to_owned();
        let before = self.rows.clone();
        let steps = match self.rng.random_range(0..100) {
            0..3 => self.rng.random_range(100..400),
            3..15 => self.rng.random_range(10..40),
            _ => self.rng.random_range(1..6),
        };
        self.steps(&mut sql, steps, 0);
        if self.rng.random_bool(0.05) {
            self.rows = before;
            sql.push_str("rollback;");
        } else {
            sql.push_str("commit;");
        }
        sql
    }

    fn steps(&mut self, sql: &mut String, steps: u32, depth: u32) {
        for _ in 0..steps {
            if depth < 3 && self.rng.random_bool(0.08) {
                self.savepoint(sql, depth);
            } else {
                self.step(sql);
            }
            sql.push_str(";\n");
        }
    }

    fn savepoint(&mut self, sql: &mut String, depth: u32) {
        let before = self.rows.clone();
        sql.push_str(&format!("savepoint s{depth};\n"));
        let steps = self.rng.random_range(1..5);
        self.steps(sql, steps, depth + 1);
        if self.rng.random_bool(0.5) {
            self.rows = before;
            sql.push_str(&format!("rollback to s{depth};\n"));
        }
        sql.push_str(&format!("release s{depth}"));
    }

    fn step(&mut self, sql: &mut String) {
        let table = Keyed::ALL[self.rng.random_range(0..Keyed::ALL.len())];
        match self.rng.random_range(0..100) {
            0..25 => self.insert(sql, table),
            25..40 => self.update(sql, table, Change::Whole),
            40..55 => self.update(sql, table, Change::Part),
            55..62 => self.update(sql, table, Change::Key),
            62..68 => self.update(sql, table, Change::KeyAndPart),
            68..70 => self.update(sql, table, Change::Nothing),
            70..80 => self.delete(sql, table),
            80..84 => self.whole_life(sql, table),
            84..86 => self.many(sql),
            86..92 => self.log(sql),
            _ => self.keyless(sql),
        }
    }

    fn insert(&mut self, sql: &mut String, table: Keyed) {
        // A key that was deleted comes back now and then, in the same transaction too.
        let again = self.rng.random_bool(0.2).then(|| self.rows.dead[table as usize].pop()).flatten();
        let id = again.unwrap_or_else(|| self.fresh());
        let values = self.row(table, id);
        sql.push_str(&format!("insert into {} values ({values}) on conflict do nothing", table.name()));
        self.rows.live[table as usize].push(id);
    }

    fn row(&mut self, table: Keyed, id: i64) -> String {
        let code = if table == Keyed::ByIndex { self.fresh() } else { 0 };
        let rng = &mut self.rng;
        match table {
            Keyed::Plain => format!(
                "{id}, {}, {}, {}, {}, {}, {}, {}",
                values::text(rng),
                values::numeric(rng),
                values::time(rng),
                rng.random_bool(0.5),
                values::float(rng),
                values::huge(rng),
                values::text(rng)
            ),
            Keyed::Composite => format!("{}, 'k{id}', {}, {}", id % 1000, values::integer(rng), values::text(rng)),
            Keyed::Toast => format!(
                "{id}, {}, {}, {}, {}",
                values::integer(rng),
                values::big(rng),
                values::text(rng),
                values::huge(rng)
            ),
            Keyed::Full => format!("{id}, {}, {}, {}", values::integer(rng), values::big(rng), values::text(rng)),
            Keyed::ByIndex => format!("{id}, 'c{code}', {}", values::integer(rng)),
        }
    }

    fn update(&mut self, sql: &mut String, table: Keyed, change: Change) {
        let Some(id) = self.rows.live[table as usize].choose(&mut self.rng).copied() else {
            return self.insert(sql, table);
        };
        self.change(sql, table, id, change);
    }

    fn change(&mut self, sql: &mut String, table: Keyed, id: i64, change: Change) {
        let mut set = match change {
            Change::Whole => self.everything(table),
            Change::Part | Change::KeyAndPart => self.part(table),
            Change::Key => Vec::new(),
            Change::Nothing => vec![if table == Keyed::Composite { "b = b" } else { "id = id" }.to_owned()],
        };
        if matches!(change, Change::Key | Change::KeyAndPart) {
            let fresh = self.fresh();
            // The identity of this table is its code; a new primary key alone sends no old key.
            if table == Keyed::ByIndex && self.rng.random_bool(0.5) {
                set.push(format!("code = 'c{fresh}'"));
            } else {
                set.push(table.becomes(fresh));
                let rows = &mut self.rows;
                rows.live[table as usize].retain(|live| *live != id);
                rows.live[table as usize].push(fresh);
                rows.dead[table as usize].push(id);
            }
        }
        sql.push_str(&format!("update {} set {} where {}", table.name(), set.join(", "), table.is(id)));
    }

    fn everything(&mut self, table: Keyed) -> Vec<String> {
        let mut set = self.part(table);
        let rng = &mut self.rng;
        match table {
            Keyed::Plain => {
                set.push(format!("amount = {}", values::numeric(rng)));
                set.push(format!("at = {}", values::time(rng)));
                set.push(format!("ratio = {}", values::float(rng)));
                set.push(format!("raw = {}", values::huge(rng)));
            }
            Keyed::Toast => {
                set.push(format!("big = {}", values::big(rng)));
                set.push(format!("huge = {}", values::huge(rng)));
            }
            Keyed::Full => set.push(format!("big = {}", values::big(rng))),
            Keyed::Composite => set.push(format!("note = {}", values::text(rng))),
            Keyed::ByIndex => {}
        }
        set
    }

    /// Some columns; those that are out of line stay as they are.
    fn part(&mut self, table: Keyed) -> Vec<String> {
        let rng = &mut self.rng;
        vec![match table {
            Keyed::Plain => format!("name = {}, note = {}", values::text(rng), values::text(rng)),
            Keyed::Composite | Keyed::ByIndex => format!("v = {}", values::integer(rng)),
            Keyed::Toast | Keyed::Full if rng.random_bool(0.5) => format!("other = {}", values::text(rng)),
            Keyed::Toast | Keyed::Full => format!("small = {}", values::integer(rng)),
        }]
    }

    fn delete(&mut self, sql: &mut String, table: Keyed) {
        let live = &mut self.rows.live[table as usize];
        if live.is_empty() {
            return self.insert(sql, table);
        }
        let id = live.swap_remove(self.rng.random_range(0..live.len()));
        self.rows.dead[table as usize].push(id);
        sql.push_str(&format!("delete from {} where {}", table.name(), table.is(id)));
    }

    /// A row that is made, partly changed, moved, partly changed again, and sometimes removed, all at once.
    fn whole_life(&mut self, sql: &mut String, table: Keyed) {
        self.insert(sql, table);
        for change in [Change::Part, Change::Key, Change::KeyAndPart, Change::Part] {
            sql.push_str(";\n");
            let Some(id) = self.rows.live[table as usize].last().copied() else { return };
            self.change(sql, table, id, change);
        }
        if self.rng.random_bool(0.3)
            && let Some(id) = self.rows.live[table as usize].pop()
        {
            self.rows.dead[table as usize].push(id);
            sql.push_str(&format!(";\ndelete from {} where {}", table.name(), table.is(id)));
        }
    }

    /// Hundreds of rows by one statement.
    fn many(&mut self, sql: &mut String) {
        let count = self.rng.random_range(50..800);
        let ids: Vec<i64> = (0..count).map(|_| self.fresh()).collect();
        let rows: Vec<String> = ids.iter().map(|id| format!("({}, 'k{id}', {id}, null)", id % 1000)).collect();
        sql.push_str(&format!("insert into w_composite values {} on conflict do nothing", rows.join(", ")));
        self.rows.live[Keyed::Composite as usize].extend(ids);
    }

    fn log(&mut self, sql: &mut String) {
        let n = self.fresh();
        let copies = if self.rng.random_bool(0.3) { 2 } else { 1 };
        let row = format!("({}, {n}, {})", self.number, values::text(&mut self.rng));
        sql.push_str(&format!("insert into w_log values {}", vec![row; copies].join(", ")));
    }

    /// Rows without a key, some of them equal. Which of equal rows is hit makes no difference.
    fn keyless(&mut self, sql: &mut String) {
        let lane = self.number;
        let nth = self.rng.random_range(0..6);
        let one = format!(
            "ctid = (select ctid from w_keyless_full where lane = {lane}
                order by n, note collate \"C\" nulls first, md5(big) collate \"C\" limit 1 offset {nth})"
        );
        match self.rng.random_range(0..10) {
            0..5 => {
                let (n, note, big) = (self.fresh(), values::text(&mut self.rng), values::big(&mut self.rng));
                let row = format!("({lane}, {n}, {note}, {big})");
                let copies = if self.rng.random_bool(0.4) { 3 } else { 1 };
                sql.push_str(&format!("insert into w_keyless_full values {}", vec![row; copies].join(", ")));
            }
            5..8 => {
                let note = values::text(&mut self.rng);
                sql.push_str(&format!("update w_keyless_full set note = {note} where {one}"));
            }
            _ => sql.push_str(&format!("delete from w_keyless_full where {one}")),
        }
    }

    /// A number that no lane has used as a key.
    fn fresh(&mut self) -> i64 {
        self.next += 1;
        self.next * self.lanes.cast_signed() + self.number.cast_signed()
    }
}

#[derive(Debug, Clone, Copy)]
enum Change {
    Whole,
    Part,
    Key,
    KeyAndPart,
    Nothing,
}

/// A transaction that truncates one or several tables, sometimes with inserts before and after.
pub(super) fn truncate(rng: &mut StdRng, lanes: &mut [Lane]) -> String {
    let mut sql = "begin;\n".to_owned();
    let count = rng.random_range(1..4);
    let tables: Vec<Keyed> = Keyed::ALL.sample(rng, count).copied().collect();
    if let Some(lane) = lanes.first_mut() {
        lane.insert(&mut sql, tables[0]);
        sql.push_str(";\n");
    }
    let mut names: Vec<&str> = tables.iter().map(|table| table.name()).collect();
    if rng.random_bool(0.3) {
        names.push("w_keyless_full");
    }
    sql.push_str(&format!("truncate {};\n", names.join(", ")));
    for lane in lanes.iter_mut() {
        for table in &tables {
            let gone = std::mem::take(&mut lane.rows.live[*table as usize]);
            lane.rows.dead[*table as usize].extend(gone);
        }
    }
    if let Some(lane) = lanes.last_mut() {
        lane.insert(&mut sql, tables[0]);
        sql.push_str(";\n");
    }
    sql.push_str("commit;");
    sql
}
