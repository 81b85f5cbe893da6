//! What does a table look like once the choices are made? Its shape at the source, what of it is kept, and as what.

use std::collections::HashMap;
use std::sync::Arc;

use super::column_type::ColumnType;
use super::filter::Filter;
use super::mask::Mask;
use super::on_value::{Cast, Limited, OnValue};
use super::pass::{Pass, Passed};
use super::rule::{Chosen, Transform};
use crate::data::converted;
use crate::destination::Destination;
use crate::error::{ErrorKind, EtlError, EtlResult};
use crate::metrics::ValuePolicyCounter;
use crate::schema::{Column, Kind, TableName, TablePatterns, TableSchema};

/// What helps against an empty name.
const NAMES: &str = "Write a name, or leave the key out";

/// A table at the source and after it.
#[derive(Debug, Clone)]
pub(crate) struct Selection {
    /// As the stream sends its rows.
    pub(crate) wire: Arc<TableSchema>,
    /// As everything after the source knows it.
    pub(crate) schema: Arc<TableSchema>,
    /// Which columns of `wire` are read; `None`: all.
    pub(crate) kept: Option<Box<[bool]>>,
    /// What becomes of rows; `None`: they are passed on as they are read.
    pub(crate) pass: Option<Arc<Pass>>,
}

impl Selection {
    /// All of the table, as it is.
    #[cfg(test)]
    pub(crate) fn whole(schema: &Arc<TableSchema>) -> Self {
        Self { wire: Arc::clone(schema), schema: Arc::clone(schema), kept: None, pass: None }
    }

    /// What rows are read as, before they are passed on.
    pub(crate) fn read(&self) -> &Arc<TableSchema> {
        self.pass.as_ref().map_or(&self.schema, |pass| &pass.read)
    }

    /// Whether rows are known by other keys than at the source.
    pub(crate) fn masks_key(&self) -> bool {
        self.pass.as_ref().is_some_and(|pass| pass.masks_key())
    }

    /// Says the same of rows that are passed on in the same way; nothing where they are as they are read.
    pub(crate) fn print(&self) -> Option<String> {
        self.pass.as_ref().and_then(|pass| pass.print())
    }

    /// What the column with this number is called after the source, where its values are passed on as they are.
    pub(crate) fn as_it_is(&self, attnum: i16) -> Option<&str> {
        let place = self.schema.columns.iter().position(|column| column.attnum == attnum && attnum > 0)?;
        let is_same = self.pass.as_ref().is_none_or(|pass| pass.passes_as_it_is(place));
        self.schema.columns.get(place).filter(|_| is_same).map(|column| &*column.name)
    }

    /// The columns that are read, as the source calls them.
    pub(crate) fn source_columns(&self) -> impl Iterator<Item = &Column> {
        let kept = self.kept.as_deref();
        let is_kept = move |place: usize| kept.is_none_or(|kept| kept.get(place) == Some(&true));
        self.wire.columns.iter().enumerate().filter(move |(place, _)| is_kept(*place)).map(|(_, column)| column)
    }

    /// The same selection under the schema that is stored, which has the same content.
    pub(crate) fn with_schema(self, schema: Arc<TableSchema>) -> Self {
        Self { schema, ..self }
    }
}

impl Transform {
    /// What is passed on of a table with this shape.
    ///
    /// # Errors
    /// `Config`, where the choice leaves out a key or everything, names what is not there, or gives one name twice.
    pub(crate) fn select(&self, wire: &TableSchema) -> EtlResult<Selection> {
        let chosen = self.of(&wire.name);
        chosen.expect_columns(wire)?;
        let is_passed: Vec<bool> = wire.columns.iter().map(|column| chosen.keeps(&column.name)).collect();
        if !is_passed.contains(&true) && !wire.columns.is_empty() {
            return Err(
                wrong(wire, "every column of a table is left out").hint("Leave the table out of the publication")
            );
        }
        let filter = chosen.filter.map(|text| Filter::new(text, wire)).transpose()?;
        let is_looked_at = |place: usize| filter.as_ref().is_some_and(|filter| filter.places.contains(&place));
        let kept: Vec<bool> = (0..is_passed.len()).map(|place| is_passed[place] || is_looked_at(place)).collect();
        // Where a column is among those that are read.
        let read_at: Vec<usize> =
            kept.iter().scan(0, |next, kept| Some(std::mem::replace(next, *next + usize::from(*kept)))).collect();
        let mut draft = Draft { wire, columns: Vec::new(), passed: Vec::new() };
        let mut places = vec![None; kept.len()];
        for (place, column) in wire.columns.iter().enumerate().filter(|(place, _)| is_passed[*place]) {
            places[place] = u16::try_from(draft.columns.len()).ok();
            let (column, passed) = self.passed(wire, &chosen, column, read_at[place])?;
            draft.passed.push(passed);
            draft.name(column)?;
        }
        for (name, text) in chosen.add.into_iter().flatten() {
            draft.add(name, text)?;
        }
        let key = wire.key.iter().map(|place| places[usize::from(*place)].ok_or(*place));
        let key = key.collect::<Result<Box<[u16]>, u16>>().map_err(|place| {
            wrong(wire, "a column of the key is left out: rows could not be told apart")
                .with("column", &wire.columns[usize::from(place)].name)
                .hint("Keep the columns of the primary key (or of the replica identity's index)")
        })?;
        let name = TableName::new(chosen.schema.unwrap_or(&wire.name.schema), chosen.table.unwrap_or(&wire.name.name));
        if name.schema.is_empty() || name.name.is_empty() {
            return Err(wrong(wire, "a table gets an empty name").hint(NAMES));
        }
        let source_name = (name != wire.name).then(|| wire.name.clone());
        let Draft { columns, passed, .. } = draft;
        let schema = TableSchema { name, source_name, columns: columns.into(), key, ..wire.clone() };
        let unsent = self.unsent(wire, &chosen, &schema);
        let is_as = |passed: &Passed| matches!(passed, Passed::As(_));
        let is_plain = filter.is_none() && passed.iter().all(is_as) && unsent.iter().all(Option::is_none);
        let pass = if is_plain {
            None
        } else {
            let read = read_schema(wire, &kept, &read_at);
            let filter = chosen.filter.map(|text| Filter::new(text, &read)).transpose()?;
            Some(Arc::new(Pass {
                read: Arc::new(read),
                columns: passed.into(),
                unsent,
                filter,
                says: chosen.filter.map(Into::into),
            }))
        };
        let kept = kept.contains(&false).then(|| kept.into());
        Ok(Selection { wire: Arc::new(wire.clone()), schema: Arc::new(schema), kept, pass })
    }

    /// A column as it is passed on, and how.
    fn passed(
        &self,
        wire: &TableSchema,
        chosen: &Chosen<'_>,
        column: &Column,
        at: usize,
    ) -> EtlResult<(Column, Passed)> {
        let named = |of: Column| Column { name: chosen.name(&column.name).into(), ..of };
        let is_key = wire.key_columns().any(|key| key.name == column.name);
        let counter = |policy: OnValue| {
            ValuePolicyCounter::new(&self.pipeline, wire.name.to_string(), &column.name, policy.name())
        };
        let policy = chosen.policy_of(&column.name);
        let cast = |to: &ColumnType| Cast { to: to.clone(), limits: self.limits, policy, counter: counter(policy) };
        if let Some(mask) = chosen.mask_of(&column.name) {
            if chosen.type_of(&column.name).is_some() {
                return Err(wrong(wire, "a column is masked and gets another type")
                    .with("column", &column.name)
                    .hint("Keep its name in `columns.mask` or in `columns.type`"));
            }
            return Ok((named(masked(wire, column, mask, is_key)?), Passed::Masked(at, mask.clone())));
        }
        if let Some(to) = chosen.type_of(&column.name).filter(|to| to.kind != column.kind) {
            if is_key && to.kind != Kind::Text {
                return Err(wrong(wire, "a column of the key gets another type: rows could not be told apart")
                    .with("column", &column.name)
                    .hint("The type `text` holds every value as it is"));
            }
            let fill = column.fill.as_deref().map(|fill| {
                converted(fill, &column.kind, &to.kind).ok_or_else(|| {
                    wrong(wire, "the rows of before have a value in the column that its other type does not hold")
                        .with("column", &column.name)
                        .with("type", to.name())
                        .hint("Give it the type `text`, or another one that holds the column's default")
                })
            });
            return Ok((named(to.column(column, fill.transpose()?)), Passed::Cast(at, cast(to))));
        }
        let cannot = !self.limits.cannot_hold(&column.kind).is_empty();
        Ok(match policy {
            OnValue::Text if cannot => {
                let to = ColumnType::text();
                let fill = column.fill.as_deref().map(str::to_owned);
                (named(to.column(column, fill)), Passed::Cast(at, cast(&to)))
            }
            // Two rows could get one key.
            OnValue::Null | OnValue::Clamp if cannot && !is_key => {
                let limited = Limited { limits: self.limits, policy, counter: counter(policy) };
                (named(column.clone()), Passed::Limited(at, limited))
            }
            _ => (named(column.clone()), Passed::As(at)),
        })
    }

    /// The columns whose values are null where they were not sent.
    fn unsent(
        &self,
        wire: &TableSchema,
        chosen: &Chosen<'_>,
        schema: &TableSchema,
    ) -> Box<[Option<ValuePolicyCounter>]> {
        let is_asked = self.destination.as_ref().is_some_and(|place| place.needs_all_values(schema));
        let counter = |column: &Column| {
            let source = wire.columns.iter().find(|source| chosen.name(&source.name) == &*column.name)?;
            let is_null = is_asked && chosen.policy_of(&source.name) == OnValue::Null;
            is_null.then(|| ValuePolicyCounter::new(&self.pipeline, wire.name.to_string(), &source.name, "null"))
        };
        schema.columns.iter().map(counter).collect()
    }

    /// What the destination cannot hold of the table, and what becomes of it.
    pub(crate) fn forecast(&self, wire: &TableSchema) -> Vec<Forecast> {
        let chosen = self.of(&wire.name);
        let is_left = |column: &&Column| chosen.keeps(&column.name) && chosen.mask_of(&column.name).is_none();
        let forecast = |column: &Column| {
            let kind = chosen.type_of(&column.name).map_or(&column.kind, |to| &to.kind);
            let is_key = wire.key_columns().any(|key| key.name == column.name);
            let policy = match chosen.policy_of(&column.name) {
                OnValue::Null | OnValue::Clamp if is_key => OnValue::Error,
                policy => policy,
            };
            let cannot = self.limits.cannot_hold(kind);
            (!cannot.is_empty()).then(|| Forecast { column: column.name.clone(), cannot, policy })
        };
        wire.columns.iter().filter(is_left).filter_map(forecast).collect()
    }

    /// What is passed on of all these tables.
    ///
    /// # Errors
    /// As of [`select`](Self::select), and where two tables get one name.
    pub(crate) fn select_all<'s>(&self, tables: impl Iterator<Item = &'s TableSchema>) -> EtlResult<Vec<Selection>> {
        let mut names: HashMap<TableName, TableName> = HashMap::new();
        let mut selections = Vec::new();
        for wire in tables {
            let selection = self.select(wire)?;
            if let Some(other) = names.insert(selection.schema.name.clone(), wire.name.clone()) {
                return Err(wrong(wire, "two tables get one name")
                    .with("other table", other)
                    .with("name", &selection.schema.name)
                    .hint("Give each another one in `rename`"));
            }
            selections.push(selection);
        }
        Ok(selections)
    }
}

/// A column with values that the destination cannot hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Forecast {
    /// Its name at the source.
    pub(crate) column: Box<str>,
    /// Which values.
    pub(crate) cannot: Vec<String>,
    /// What becomes of them.
    pub(crate) policy: OnValue,
}

/// The column under its mask.
fn masked(wire: &TableSchema, column: &Column, mask: &Mask, is_key: bool) -> EtlResult<Column> {
    let masked = mask.column(column).ok_or_else(|| {
        wrong(wire, "only texts can be truncated")
            .with("column", &column.name)
            .with("type", &column.type_name)
            .hint("Mask the column by `redact`, `{ hash: <salt> }` or `'null'`")
    })?;
    if is_key && !mask.keeps_apart() {
        return Err(wrong(wire, "a column of the key is masked: rows could not be told apart")
            .with("column", &column.name)
            .hint("Mask it by `{ hash: <salt> }`, which gives different values for different values"));
    }
    Ok(masked)
}

/// The columns that are read, as the source has them.
fn read_schema(wire: &TableSchema, kept: &[bool], read_at: &[usize]) -> TableSchema {
    let columns = wire.columns.iter().zip(kept).filter(|(_, kept)| **kept).map(|(column, _)| column.clone());
    let key = wire.key.iter().filter_map(|place| u16::try_from(read_at[usize::from(*place)]).ok());
    TableSchema { columns: columns.collect(), key: key.collect(), ..wire.clone() }
}

/// The columns that are passed on, as far as they are put together.
struct Draft<'w> {
    wire: &'w TableSchema,
    columns: Vec<Column>,
    passed: Vec<Passed>,
}

impl Draft<'_> {
    /// A column that the source does not have.
    fn add(&mut self, name: &str, text: &str) -> EtlResult<()> {
        self.passed.push(Passed::Constant(text.into()));
        self.name(Column {
            name: name.into(),
            attnum: 0,
            type_oid: 25,
            modifier: -1,
            type_name: "text".into(),
            kind: Kind::Text,
            nullable: true,
            fill: Some(text.into()),
        })
    }

    fn name(&mut self, column: Column) -> EtlResult<()> {
        if column.name.is_empty() {
            return Err(wrong(self.wire, "a column gets an empty name").hint(NAMES));
        }
        if self.columns.iter().any(|other| other.name == column.name) {
            return Err(wrong(self.wire, "two columns of a table get one name")
                .with("column", &column.name)
                .hint("Give another name in `columns.rename` or `columns.add`, or leave one of the two out"));
        }
        self.columns.push(column);
        Ok(())
    }
}

impl Chosen<'_> {
    fn mask_of(&self, column: &str) -> Option<&Mask> {
        self.mask.and_then(|mask| mask.get(column))
    }

    fn type_of(&self, column: &str) -> Option<&ColumnType> {
        self.types.and_then(|types| types.get(column))
    }

    fn policy_of(&self, column: &str) -> OnValue {
        self.on_value_of.and_then(|policies| policies.get(column)).copied().unwrap_or(self.on_value)
    }

    fn keeps(&self, column: &str) -> bool {
        let names = |patterns: &[String]| patterns.iter().any(|pattern| TablePatterns::is_like(pattern, column));
        self.include.is_none_or(names) && !self.exclude.is_some_and(names)
    }

    fn name<'n>(&'n self, column: &'n str) -> &'n str {
        self.rename.and_then(|rename| rename.get(column)).map_or(column, String::as_str)
    }

    /// A column that a rule names and the table does not have is a slip that could let through what it was to hide.
    fn expect_columns(&self, wire: &TableSchema) -> EtlResult<()> {
        if !self.is_meant {
            return Ok(());
        }
        let listed = [self.include, self.exclude].into_iter().flatten().flatten();
        let named = self.rename.iter().flat_map(|rename| rename.keys());
        let named = named.chain(self.mask.iter().flat_map(|mask| mask.keys()));
        let named = named.chain(self.types.iter().flat_map(|types| types.keys()));
        let named = named.chain(self.on_value_of.iter().flat_map(|policies| policies.keys()));
        for name in listed.chain(named) {
            if !wire.columns.iter().any(|column| TablePatterns::is_like(name, &column.name)) {
                let columns: Vec<&str> = wire.columns.iter().map(|column| &*column.name).collect();
                return Err(wrong(wire, "a rule names a column that the table does not publish")
                    .with("column", name)
                    .hint(format!("It publishes {}", columns.join(", "))));
            }
        }
        Ok(())
    }
}

fn wrong(table: &TableSchema, what: &str) -> EtlError {
    EtlError::new(ErrorKind::Config, what).with("table", &table.name)
}

#[cfg(test)]
mod tests {
    use super::super::{ColumnChoice, TableRename, TransformRule};
    use super::*;
    use crate::lsn::Position;
    use crate::schema::{Kind, ReplicaIdentity, TableId};

    fn table(name: &str) -> TableSchema {
        let column = |(place, name): (usize, &str)| Column {
            fill: None,
            name: name.into(),
            attnum: place as i16 + 1,
            type_oid: 25,
            modifier: -1,
            type_name: "text".into(),
            kind: Kind::Text,
            nullable: true,
        };
        TableSchema {
            last_attnum: 0,
            id: TableId(1),
            name: TableName::new("public", name),
            source_name: None,
            columns: ["email", "id", "password", "note"].into_iter().enumerate().map(column).collect(),
            key: Box::new([1]),
            identity: ReplicaIdentity::Default,
            since: Position::ZERO,
        }
    }

    fn rule(tables: &str, columns: ColumnChoice) -> TransformRule {
        TransformRule {
            tables: TablePatterns::new([tables]),
            columns,
            rename: TableRename::default(),
            filter: None,
            on_value: None,
            copy: None,
        }
    }

    fn names(list: &[&str]) -> Option<Vec<String>> {
        Some(list.iter().map(|name| (*name).to_owned()).collect())
    }

    fn renamed(from: &str, to: &str) -> ColumnChoice {
        let rename = Some([(from.to_owned(), to.to_owned())].into());
        ColumnChoice { rename, ..ColumnChoice::default() }
    }

    #[test]
    fn columns_are_left_out_and_renamed_and_the_key_follows() {
        let hide = ColumnChoice { exclude: names(&["pass*"]), ..ColumnChoice::default() };
        let mut transform = Transform::new(vec![rule("public.*", hide), rule("public.users", renamed("id", "key"))]);
        transform.rules[1].rename = TableRename { schema: Some("shop".to_owned()), table: None };
        let selection = transform.select(&table("users")).unwrap();
        let columns: Vec<&str> = selection.schema.columns.iter().map(|column| &*column.name).collect();
        assert_eq!((columns.as_slice(), &*selection.schema.key), (&["email", "key", "note"][..], &[1][..]));
        assert_eq!(selection.kept.as_deref(), Some(&[true, true, false, true][..]));
        let read: Vec<&str> = selection.source_columns().map(|column| &*column.name).collect();
        assert_eq!(read, ["email", "id", "note"]);
        assert_eq!(selection.schema.name.to_string(), "shop.users");
        assert_eq!(selection.schema.source_name().to_string(), "public.users");
        let other = transform.select(&table("others")).unwrap();
        assert_eq!((other.schema.columns.len(), &other.schema.source_name), (3, &None));
    }

    #[test]
    fn the_last_rule_wins_per_key_and_no_rule_changes_nothing() {
        let include = ColumnChoice { include: names(&["id", "email", "note"]), ..ColumnChoice::default() };
        let exclude = ColumnChoice { exclude: names(&["note"]), ..ColumnChoice::default() };
        let again = ColumnChoice { exclude: names(&["email"]), ..ColumnChoice::default() };
        let transform = Transform::new(vec![rule("*", include), rule("*", exclude), rule("*.users", again)]);
        let selection = transform.select(&table("users")).unwrap();
        let read: Vec<&str> = selection.source_columns().map(|column| &*column.name).collect();
        assert_eq!(read, ["id", "note"]);
        let plain = Transform::default().select(&table("users")).unwrap();
        assert_eq!((plain.wire, plain.kept), (plain.schema, None));
    }

    #[test]
    fn what_cannot_be_is_an_error_with_a_hint() {
        let exclude = |columns: &[&str]| ColumnChoice { exclude: names(columns), ..ColumnChoice::default() };
        for (choice, expected) in [
            (exclude(&["id"]), "a column of the key is left out"),
            (exclude(&["*"]), "every column of a table is left out"),
            (exclude(&["pasword"]), "names a column that the table does not publish"),
            (renamed("mail", "email"), "names a column that the table does not publish"),
            (renamed("note", "email"), "two columns of a table get one name"),
        ] {
            let transform = Transform::new(vec![rule("public.users", choice)]);
            let error = transform.select(&table("users")).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(error.to_string().contains(expected) && error.hint_text().is_some(), "{error}");
            assert_eq!(error.context("table"), Some("public.users"));
        }
        let mut both = rule("*", ColumnChoice::default());
        both.rename.table = Some("one".to_owned());
        let error = Transform::new(vec![both]).select_all([&table("a"), &table("b")].into_iter()).unwrap_err();
        assert!(error.to_string().contains("two tables get one name"), "{error}");
    }
}
