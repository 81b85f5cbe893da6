//! Which tables does the workload change? One for each way in which Postgres identifies, or does not identify, a row.

/// The names of the tables, in the schema that comes first in the search path.
pub const TABLES: &[&str] = &["w_keyed", "w_composite", "w_toast", "w_full", "w_by_index", "w_log", "w_keyless_full"];

/// Rows with big values are preloaded up to this number.
const MOST_BIG: i64 = 2000;

/// A table whose rows have a key that the workload knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keyed {
    Plain,
    Composite,
    Toast,
    Full,
    ByIndex,
}

impl Keyed {
    pub(super) const ALL: [Self; 5] = [Self::Plain, Self::Composite, Self::Toast, Self::Full, Self::ByIndex];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Plain => "w_keyed",
            Self::Composite => "w_composite",
            Self::Toast => "w_toast",
            Self::Full => "w_full",
            Self::ByIndex => "w_by_index",
        }
    }

    pub(super) fn preloaded(self, rows: i64) -> i64 {
        if matches!(self, Self::Toast | Self::Full) { rows.min(MOST_BIG) } else { rows }
    }

    /// The condition that holds for one row.
    pub(super) fn is(self, id: i64) -> String {
        match self {
            Self::Composite => format!("a = {} and b = 'k{id}'", id % 1000),
            _ => format!("id = {id}"),
        }
    }

    /// The assignments that make it another row.
    pub(super) fn becomes(self, id: i64) -> String {
        match self {
            Self::Composite => format!("a = {}, b = 'k{id}'", id % 1000),
            _ => format!("id = {id}"),
        }
    }
}

pub(super) fn ddl() -> String {
    "create table w_keyed (id bigint primary key, name text, amount numeric(12,2), at timestamptz, flag boolean,
        ratio double precision, raw bytea, note text);
     create table w_composite (a integer, b text, v integer, note text, primary key (a, b));
     create table w_toast (id bigint primary key, small integer, big text, other text, huge bytea);
     alter table w_toast alter column big set storage external, alter column huge set storage external;
     create table w_full (id bigint primary key, small integer, big text, other text);
     alter table w_full alter column big set storage external;
     alter table w_full replica identity full;
     create table w_by_index (id bigint primary key, code text not null, v integer);
     create unique index w_by_index_code on w_by_index (code);
     alter table w_by_index replica identity using index w_by_index_code;
     create table w_log (lane integer, n bigint, note text);
     create table w_keyless_full (lane integer, n bigint, note text, big text);
     alter table w_keyless_full alter column big set storage external;
     alter table w_keyless_full replica identity full;"
        .to_owned()
}

pub(super) fn preload(rows: i64) -> String {
    let big = rows.min(MOST_BIG);
    format!(
        "insert into w_keyed select i, 'name ' || i, i * 1.25, timestamptz '2020-01-01 00:00:00+00' + i * interval '1 s',
            i % 3 = 0, i / 7.0, decode(md5(i::text), 'hex'), case when i % 5 > 0 then md5(i::text) end
            from generate_series(0, {rows} - 1) i;
         insert into w_composite select i % 1000, 'k' || i, i, null from generate_series(0, {rows} - 1) i;
         insert into w_by_index select i, 'c' || i, i from generate_series(0, {rows} - 1) i;
         insert into w_log select 0, i, 'preloaded' from generate_series(0, {rows} - 1) i;
         insert into w_toast select i, i, repeat(md5(i::text), 100), 'other', decode(repeat(md5(i::text), 90), 'hex')
            from generate_series(0, {big} - 1) i;
         insert into w_full select i, i, repeat(md5(i::text), 100), 'other' from generate_series(0, {big} - 1) i;
         insert into w_keyless_full select i % 3, i / 2, 'preloaded', repeat(md5((i / 2)::text), 80)
            from generate_series(0, {big} - 1) i;"
    )
}
