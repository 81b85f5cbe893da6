//! How do the tables themselves change meanwhile? Columns come, change and go beside those that the lanes write.

use rand::{RngExt, rngs::StdRng, seq::IndexedRandom};

use super::tables::Keyed;

/// Columns that may be there: after a lost answer nobody knows, so every statement says what if not.
#[derive(Debug, Default)]
pub(super) struct Alterations {
    columns: Vec<(Keyed, u32)>,
    next: u32,
}

impl Alterations {
    /// A transaction of some alterations, with writes between them.
    pub(super) fn transaction(&mut self, rng: &mut StdRng) -> String {
        let mut sql = "begin;\n".to_owned();
        for _ in 0..rng.random_range(1..4) {
            let statement = self.alteration(rng);
            sql.push_str(&statement);
            if rng.random_bool(0.7) {
                sql.push_str(&self.write(rng));
            }
        }
        sql.push_str("commit;");
        sql
    }

    fn alteration(&mut self, rng: &mut StdRng) -> String {
        let known = self.columns.choose(rng).copied();
        match (known, rng.random_range(0..10)) {
            (Some((table, column)), 0..2) => {
                self.columns.retain(|one| *one != (table, column));
                format!("alter table {} drop column if exists x{column};\n", table.name())
            }
            (Some((table, column)), 2..4) => {
                let renamed = self.fresh(table);
                self.columns.retain(|one| *one != (table, column));
                if_there(table, column, &format!("alter table {} rename x{column} to x{renamed}", table.name()))
            }
            (Some((table, column)), 4..6) => {
                let name = table.name();
                let (kind, value) = match rng.random_range(0..3) {
                    0 => ("bigint", format!("nullif(regexp_replace(x{column}::text, '[^0-9]', '', 'g'), '')::bigint")),
                    1 => ("text", format!("x{column}::text")),
                    _ => ("varchar(40)", format!("x{column}::text")),
                };
                let change = format!("alter x{column} drop default, alter x{column} type {kind} using {value}");
                if_there(table, column, &format!("alter table {name} {change}"))
            }
            (Some((table, column)), 6) => {
                // Under its old name, another column.
                format!(
                    "alter table {name} drop column if exists x{column};\n\
                     alter table {name} add column x{column} integer default 5;\n",
                    name = table.name()
                )
            }
            _ => {
                let table = Keyed::ALL.choose(rng).copied().unwrap_or(Keyed::Plain);
                let column = self.fresh(table);
                // Without a default; with one that rewrites nothing; with one that rewrites all; of another type.
                let how = ["integer", "integer default 7", "integer default (random() * 0)", "text default 'added'"];
                let how = how.choose(rng).copied().unwrap_or("integer");
                format!("alter table {} add column if not exists x{column} {how};\n", table.name())
            }
        }
    }

    /// A value that every type of such a column takes.
    fn write(&self, rng: &mut StdRng) -> String {
        let Some((table, column)) = self.columns.choose(rng).copied() else { return String::new() };
        let key = if table == Keyed::Composite { "a" } else { "id" };
        let (value, rest) = (rng.random_range(0..1000), rng.random_range(0..5));
        if_there(table, column, &format!("update {} set x{column} = '{value}' where {key} % 5 = {rest}", table.name()))
    }

    fn fresh(&mut self, table: Keyed) -> u32 {
        self.next += 1;
        self.columns.push((table, self.next));
        self.next
    }
}

/// Does it where the column is there.
fn if_there(table: Keyed, column: u32, statement: &str) -> String {
    format!(
        "do $$ begin if exists (select from pg_attribute where attrelid = '{}'::regclass and attname = 'x{column}'
            and not attisdropped) then execute $q${statement}$q$; end if; end $$;\n",
        table.name()
    )
}
