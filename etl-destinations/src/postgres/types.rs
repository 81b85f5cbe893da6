//! Which type does a column get in the target? That of the source, where the target has it; else text.

use etl::schema::{Column, Kind};

/// The first oid that is not built in (`FirstNormalObjectId`).
const FIRST_OWN: u32 = 16_384;

/// Types whose values name what is in the source's catalog alone: `reg*` and `aclitem`, and arrays of them.
const OF_THE_CATALOG: &[u32] = &[
    24, 2202, 2203, 2204, 2205, 2206, 3734, 3769, 4089, 4096, 4191, 1033, 1008, 2207, 2208, 2209, 2210, 2211, 3735,
    3770, 4090, 4097, 4192, 1034,
];

/// The type as SQL writes it, and whether only the target can say if it has it.
pub(super) fn wanted(column: &Column) -> (&str, bool) {
    if OF_THE_CATALOG.contains(&column.type_oid) || column.type_name.is_empty() {
        return ("text", false);
    }
    (&column.type_name, column.type_oid >= FIRST_OWN)
}

/// Whether the server's binary form of a value means the same in the target, whatever oids its types have there.
pub(super) fn has_same_binary(column: &Column) -> bool {
    match column.kind {
        // Text, in whatever type.
        Kind::Text | Kind::Enum => true,
        _ => column.type_oid < FIRST_OWN && !wanted(column).0.eq("text"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(type_oid: u32, type_name: &str, kind: Kind) -> Column {
        Column {
            name: "c".into(),
            attnum: 1,
            type_oid,
            modifier: -1,
            type_name: type_name.into(),
            kind,
            nullable: true,
            fill: None,
        }
    }

    #[test]
    fn what_the_target_need_not_have_is_asked_for_and_goes_as_text() {
        let numeric = column(1700, "numeric(18,4)", Kind::Numeric(Some((18, 4))));
        assert_eq!((wanted(&numeric), has_same_binary(&numeric)), (("numeric(18,4)", false), true));
        let mood = column(50_000, "public.mood", Kind::Enum);
        assert_eq!((wanted(&mood), has_same_binary(&mood)), (("public.mood", true), true));
        let domain = column(50_001, "public.positive", Kind::Int4);
        assert_eq!((wanted(&domain), has_same_binary(&domain)), (("public.positive", true), false));
        let class = column(2205, "regclass", Kind::Other);
        assert_eq!((wanted(&class), has_same_binary(&class)), (("text", false), false));
    }
}
