//! How do values that are made of others become Arrow arrays? Each part is a column of its own.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanBuilder, ListArray, MapArray, StringBuilder, StructArray};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{FieldRef, Fields};
use etl::data::RawValue;
use etl::data::decode::{self, DecodeError, Decoded, Element, Range};
use etl::schema::{Attribute, Kind};

use super::arrow_schema::{ArrowLimits, composite_fields, element_field, entries_field, range_fields};
use super::column::{ColumnBuilder, append_text};

/// Where each list ends, and which of them are null.
struct Lists {
    offsets: Vec<i32>,
    validity: Vec<bool>,
}

impl Lists {
    fn new(capacity: usize) -> Self {
        let mut offsets = Vec::with_capacity(capacity + 1);
        offsets.push(0);
        Self { offsets, validity: Vec::with_capacity(capacity) }
    }

    fn push_null(&mut self) {
        self.offsets.push(self.end());
        self.validity.push(false);
    }

    fn push(&mut self, length: usize) -> Decoded<()> {
        let length = i32::try_from(length).map_err(|_| DecodeError::OutOfRange)?;
        self.offsets.push(self.end().checked_add(length).ok_or(DecodeError::OutOfRange)?);
        self.validity.push(true);
        Ok(())
    }

    fn end(&self) -> i32 {
        self.offsets.last().copied().unwrap_or_default()
    }

    fn finish(self) -> (OffsetBuffer<i32>, Option<NullBuffer>) {
        (OffsetBuffer::new(self.offsets.into()), Some(NullBuffer::from(self.validity)))
    }
}

/// A column of arrays; its elements are a column of their own.
pub(super) struct ListBuilder {
    field: FieldRef,
    lists: Lists,
    elements: ColumnBuilder,
    delimiter: u8,
    scratch: Vec<u8>,
}

impl ListBuilder {
    pub(super) fn new(kind: &Kind, limits: ArrowLimits, capacity: usize) -> Self {
        Self {
            field: element_field(kind, limits),
            lists: Lists::new(capacity),
            elements: ColumnBuilder::new(kind, limits, capacity),
            delimiter: kind.delimiter(),
            scratch: Vec::new(),
        }
    }

    pub(super) fn append_null(&mut self) {
        self.lists.push_null();
    }

    /// A list has one dimension, and begins at 1.
    pub(super) fn append(&mut self, raw: RawValue<'_>) -> Decoded<()> {
        let array = decode::array_of(self.delimiter, raw)?;
        if !matches!(array.dimensions(), [] | [(_, 1)]) {
            return Err(DecodeError::ArrayShape);
        }
        self.lists.push(array.len())?;
        for element in array.elements() {
            let raw = match element? {
                Element::Raw(raw) => raw,
                escaped => escaped.resolve(&mut self.scratch),
            };
            self.elements.append(raw)?;
        }
        Ok(())
    }

    pub(super) fn finish(self) -> ArrayRef {
        let (offsets, nulls) = self.lists.finish();
        Arc::new(ListArray::new(self.field, offsets, self.elements.finish(), nulls))
    }
}

/// A column of composites; each attribute is a column of its own.
pub(super) struct CompositeBuilder {
    attributes: Arc<[Attribute]>,
    fields: Fields,
    columns: Vec<ColumnBuilder>,
    validity: Vec<bool>,
    scratch: Vec<u8>,
}

impl CompositeBuilder {
    pub(super) fn new(attributes: &Arc<[Attribute]>, limits: ArrowLimits, capacity: usize) -> Self {
        let column = |attribute: &Attribute| ColumnBuilder::new(&attribute.kind, limits, capacity);
        Self {
            attributes: Arc::clone(attributes),
            fields: composite_fields(attributes, limits),
            columns: attributes.iter().map(column).collect(),
            validity: Vec::with_capacity(capacity),
            scratch: Vec::new(),
        }
    }

    pub(super) fn append_null(&mut self) -> Decoded<()> {
        self.validity.push(false);
        self.columns.iter_mut().try_for_each(|column| column.append(RawValue::Null))
    }

    pub(super) fn append(&mut self, raw: RawValue<'_>) -> Decoded<()> {
        self.validity.push(true);
        let mut fields = decode::composite(&self.attributes, raw)?;
        for column in &mut self.columns {
            let (_, field) = fields.next().ok_or(DecodeError::Altered)??;
            column.append(field.resolve(&mut self.scratch))?;
        }
        Ok(())
    }

    pub(super) fn finish(self) -> ArrayRef {
        let columns = self.columns.into_iter().map(ColumnBuilder::finish).collect();
        Arc::new(StructArray::new(self.fields, columns, Some(NullBuffer::from(self.validity))))
    }
}

/// A column of ranges: two bounds, whether each belongs to the range, and whether there is nothing in it.
pub(super) struct RangeBuilder {
    fields: Fields,
    bounds: [ColumnBuilder; 2],
    flags: [BooleanBuilder; 3],
    validity: Vec<bool>,
    scratch: Vec<u8>,
}

impl RangeBuilder {
    pub(super) fn new(kind: &Kind, limits: ArrowLimits, capacity: usize) -> Self {
        Self {
            fields: range_fields(kind, limits),
            bounds: [(); 2].map(|()| ColumnBuilder::new(kind, limits, capacity)),
            flags: [(); 3].map(|()| BooleanBuilder::with_capacity(capacity)),
            validity: Vec::with_capacity(capacity),
            scratch: Vec::new(),
        }
    }

    pub(super) fn append_null(&mut self) -> Decoded<()> {
        self.validity.push(false);
        self.flags.iter_mut().for_each(BooleanBuilder::append_null);
        self.bounds.iter_mut().try_for_each(|bound| bound.append(RawValue::Null))
    }

    pub(super) fn append(&mut self, raw: RawValue<'_>) -> Decoded<()> {
        self.append_range(decode::range(raw)?)
    }

    fn append_range(&mut self, range: Range<'_>) -> Decoded<()> {
        self.validity.push(true);
        let flags = [range.is_lower_inclusive, range.is_upper_inclusive, range.is_empty];
        for (column, flag) in self.flags.iter_mut().zip(flags) {
            column.append_value(flag);
        }
        for (column, bound) in self.bounds.iter_mut().zip([range.lower, range.upper]) {
            let raw = bound.map_or(RawValue::Null, |bound| bound.resolve(&mut self.scratch));
            column.append(raw)?;
        }
        Ok(())
    }

    pub(super) fn finish(self) -> ArrayRef {
        let bounds = self.bounds.into_iter().map(ColumnBuilder::finish);
        let flags = self.flags.into_iter().map(|mut flags| Arc::new(flags.finish()) as ArrayRef);
        let columns = bounds.chain(flags).collect();
        Arc::new(StructArray::new(self.fields, columns, Some(NullBuffer::from(self.validity))))
    }
}

/// A column of multiranges: lists of ranges.
pub(super) struct MultirangeBuilder {
    field: FieldRef,
    lists: Lists,
    ranges: RangeBuilder,
}

impl MultirangeBuilder {
    pub(super) fn new(kind: &Arc<Kind>, limits: ArrowLimits, capacity: usize) -> Self {
        Self {
            field: element_field(&Kind::Range(Arc::clone(kind)), limits),
            lists: Lists::new(capacity),
            ranges: RangeBuilder::new(kind, limits, capacity),
        }
    }

    pub(super) fn append_null(&mut self) {
        self.lists.push_null();
    }

    pub(super) fn append(&mut self, raw: RawValue<'_>) -> Decoded<()> {
        let mut length = 0;
        for range in decode::multirange(raw)? {
            self.ranges.append_range(range?)?;
            length += 1;
        }
        self.lists.push(length)
    }

    pub(super) fn finish(self) -> ArrayRef {
        let (offsets, nulls) = self.lists.finish();
        Arc::new(ListArray::new(self.field, offsets, self.ranges.finish(), nulls))
    }
}

/// A column of `hstore`: maps from text to text or null.
pub(super) struct MapBuilder {
    lists: Lists,
    keys: StringBuilder,
    values: StringBuilder,
    scratch: Vec<u8>,
}

impl MapBuilder {
    pub(super) fn new(capacity: usize) -> Self {
        let (keys, values) = (StringBuilder::new(), StringBuilder::new());
        Self { lists: Lists::new(capacity), keys, values, scratch: Vec::new() }
    }

    pub(super) fn append_null(&mut self) {
        self.lists.push_null();
    }

    pub(super) fn append(&mut self, raw: RawValue<'_>) -> Decoded<()> {
        let mut length = 0;
        for pair in decode::hstore(raw)? {
            let (key, value) = pair?;
            append_text(&mut self.keys, decode::text(key.resolve(&mut self.scratch))?)?;
            match value.resolve(&mut self.scratch) {
                RawValue::Null => self.values.append_null(),
                value => append_text(&mut self.values, decode::text(value)?)?,
            }
            length += 1;
        }
        self.lists.push(length)
    }

    pub(super) fn finish(mut self) -> ArrayRef {
        let (field, fields) = entries_field();
        let columns: Vec<ArrayRef> = vec![Arc::new(self.keys.finish()), Arc::new(self.values.finish())];
        let (offsets, nulls) = self.lists.finish();
        Arc::new(MapArray::new(field, offsets, StructArray::new(fields, columns, None), nulls, false))
    }
}
