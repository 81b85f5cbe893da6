//! How do the vectors of pgvector become Arrow arrays? Lists of numbers, of one length where that is declared.

use std::sync::Arc;

use arrow::array::{ArrayRef, FixedSizeListArray, Float16Array, Float32Array, ListArray};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{ArrowPrimitiveType, DataType, Float16Type};
use etl::data::RawValue;
use etl::data::decode::{self, DecodeError, Decoded};

use super::arrow_schema::number_field;

type Half = <Float16Type as ArrowPrimitiveType>::Native;

/// A column of `vector` or `halfvec`.
pub(super) struct VectorBuilder {
    /// Whether the server's numbers have 16 bits.
    is_half: bool,
    /// What they have here.
    number: DataType,
    dimensions: Option<u16>,
    numbers: Vec<f32>,
    offsets: Vec<i32>,
    validity: Vec<bool>,
}

impl VectorBuilder {
    pub(super) fn new(is_half: bool, number: DataType, dimensions: Option<u16>, capacity: usize) -> Self {
        let mut offsets = Vec::with_capacity(capacity + 1);
        offsets.push(0);
        let validity = Vec::with_capacity(capacity);
        Self { is_half, number, dimensions, numbers: Vec::new(), offsets, validity }
    }

    pub(super) fn append_null(&mut self) -> Decoded<()> {
        let length = self.numbers.len() + usize::from(self.dimensions.unwrap_or(0));
        self.numbers.resize(length, 0.0);
        self.end(false)
    }

    pub(super) fn append(&mut self, raw: RawValue<'_>) -> Decoded<()> {
        let before = self.numbers.len();
        for number in if self.is_half { decode::half_vector(raw)? } else { decode::vector(raw)? } {
            self.numbers.push(number?);
        }
        let length = self.numbers.len() - before;
        if self.dimensions.is_some_and(|dimensions| usize::from(dimensions) != length) {
            return Err(DecodeError::OutOfRange);
        }
        self.end(true)
    }

    fn end(&mut self, is_valid: bool) -> Decoded<()> {
        self.offsets.push(i32::try_from(self.numbers.len()).map_err(|_| DecodeError::OutOfRange)?);
        self.validity.push(is_valid);
        Ok(())
    }

    pub(super) fn finish(self) -> ArrayRef {
        let numbers: ArrayRef = if self.number == DataType::Float16 {
            // Each was read from 16 bits, so that nothing is rounded.
            Arc::new(Float16Array::from_iter_values(self.numbers.into_iter().map(Half::from_f32)))
        } else {
            Arc::new(Float32Array::from(self.numbers))
        };
        let (field, nulls) = (number_field(&self.number), Some(NullBuffer::from(self.validity)));
        match self.dimensions {
            Some(dimensions) => Arc::new(FixedSizeListArray::new(field, dimensions.into(), numbers, nulls)),
            None => Arc::new(ListArray::new(field, OffsetBuffer::new(self.offsets.into()), numbers, nulls)),
        }
    }
}
