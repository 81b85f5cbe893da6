//! What do parsers do with damaged bytes? Seeded mutations of valid input, for tests.

use std::sync::Arc;

use crate::lsn::Position;
use crate::schema::{Column, Kind, ReplicaIdentity, TableId, TableName, TableSchema};

/// A small generator (xorshift64*), so that a failing seed can be run again.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(2).wrapping_add(1))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() >> 11) as usize % bound.max(1)
    }

    pub(crate) fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.next() as u8).collect()
    }

    /// The bytes with some flipped, cut, repeated, or replaced by numbers that are often wrong.
    pub(crate) fn mutate(&mut self, bytes: &[u8]) -> Vec<u8> {
        const NASTY: [i32; 8] = [-1, -2, i32::MIN, i32::MAX, 0, 1, 0x7fff, 0x1_0000];
        let mut bytes = bytes.to_vec();
        for _ in 0..=self.below(3) {
            let at = self.below(bytes.len());
            match self.below(5) {
                0 if !bytes.is_empty() => bytes[at] ^= 1 << self.below(8),
                1 if !bytes.is_empty() => bytes[at] = self.next() as u8,
                2 => bytes.truncate(at),
                3 => bytes.insert(at, self.next() as u8),
                _ => {
                    let number = NASTY[self.below(NASTY.len())].to_be_bytes();
                    let end = bytes.len().min(at + 4);
                    bytes[at..end].copy_from_slice(&number[..end - at]);
                }
            }
        }
        bytes
    }
}

/// A table with these columns.
pub(crate) fn table(oid: u32, kinds: &[Kind]) -> Arc<TableSchema> {
    let columns = kinds.iter().zip(1..).map(|(kind, attnum)| Column {
        fill: None,
        name: format!("c{attnum}").into(),
        attnum,
        type_oid: 0,
        modifier: -1,
        type_name: format!("{kind:?}").to_lowercase().into(),
        kind: kind.clone(),
        nullable: true,
    });
    Arc::new(TableSchema {
        last_attnum: 0,
        source_name: None,
        id: TableId(oid),
        name: TableName::new("public", format!("t{oid}")),
        columns: columns.collect(),
        key: Box::new([0]),
        identity: ReplicaIdentity::Default,
        since: Position::ZERO,
    })
}
