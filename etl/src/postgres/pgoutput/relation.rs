//! Which tables and types are the messages about? RELATION, TYPE and TRUNCATE.

use crate::postgres::scan::{Malformed, Scan, Scanner};
use crate::schema::ReplicaIdentity;

/// What a table looks like from here on, as far as the stream tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relation<'a> {
    /// The table's oid; of the root where the publication says `publish_via_partition_root`.
    pub oid: u32,
    /// Its schema; empty means `pg_catalog`.
    pub namespace: &'a str,
    /// Its name.
    pub name: &'a str,
    /// What old images hold.
    pub identity: ReplicaIdentity,
    /// The columns, in the order in which rows carry them.
    pub columns: Vec<RelationColumn<'a>>,
}

/// One column of a RELATION message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RelationColumn<'a> {
    /// Whether it is part of the replica identity.
    pub in_identity: bool,
    /// Its name.
    pub name: &'a str,
    /// The oid of its type.
    pub type_oid: u32,
    /// The type's modifier, -1 where there is none.
    pub modifier: i32,
}

/// The bytes of the shortest column: flags, an empty name, oid and modifier.
const SHORTEST_COLUMN: usize = 1 + 1 + 4 + 4;

impl<'a> Relation<'a> {
    pub(super) fn read(scan: &mut Scanner<'a>) -> Scan<Self> {
        let (oid, namespace, name) = (scan.u32()?, scan.text()?, scan.text()?);
        let identity = match scan.u8()? {
            b'd' => ReplicaIdentity::Default,
            b'i' => ReplicaIdentity::Index,
            b'f' => ReplicaIdentity::Full,
            b'n' => ReplicaIdentity::Nothing,
            _ => return Err(Malformed("the replica identity is unknown")),
        };
        let count = usize::try_from(scan.i16()?).map_err(|_| Malformed("the number of columns is negative"))?;
        let mut columns = Vec::with_capacity(count.min(scan.remaining() / SHORTEST_COLUMN));
        for _ in 0..count {
            columns.push(RelationColumn {
                in_identity: scan.u8()? & 1 == 1,
                name: scan.text()?,
                type_oid: scan.u32()?,
                modifier: scan.i32()?,
            });
        }
        Ok(Self { oid, namespace, name, identity, columns })
    }
}

/// The name of a type that is not built in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TypeName<'a> {
    /// Its oid.
    pub oid: u32,
    /// Its schema; empty means `pg_catalog`.
    pub namespace: &'a str,
    /// Its name.
    pub name: &'a str,
}

impl<'a> TypeName<'a> {
    pub(super) fn read(scan: &mut Scanner<'a>) -> Scan<Self> {
        Ok(Self { oid: scan.u32()?, namespace: scan.text()?, name: scan.text()? })
    }
}

/// Tables were emptied together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Truncate<'a> {
    /// `TRUNCATE ... CASCADE`; the tables that it reached are listed too.
    pub cascade: bool,
    /// `TRUNCATE ... RESTART IDENTITY`
    pub restart_identity: bool,
    /// The oids of the tables.
    pub relations: RelationOids<'a>,
}

impl<'a> Truncate<'a> {
    pub(super) fn read(scan: &mut Scanner<'a>) -> Scan<Self> {
        let count = scan.length()?;
        let flags = scan.u8()?;
        if flags & !3 != 0 {
            return Err(Malformed("its flags are unknown"));
        }
        let length = count.checked_mul(4).ok_or(Malformed("it lists too many tables"))?;
        let relations = RelationOids(scan.take(length)?);
        Ok(Self { cascade: flags & 1 != 0, restart_identity: flags & 2 != 0, relations })
    }
}

/// The oids of tables, as they lie in the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RelationOids<'a>(&'a [u8]);

impl<'a> RelationOids<'a> {
    /// Each oid, in the order of the message.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = u32> + use<'a> {
        self.0.as_chunks::<4>().0.iter().map(|oid| u32::from_be_bytes(*oid))
    }
}
