//! What a table holds, by rows: numbers as words, all else as bytes as they are in a map.

use crate::engine::shape::{Shape, Value};

#[derive(Clone, Debug)]
pub struct Values {
    shape: Shape,
    rows: Rows,
}

#[derive(Clone, Debug)]
enum Rows {
    /// Of a table that has one number.
    Cell(u64),
    Numbers(Vec<u64>),
    Bytes(Vec<u8>),
}

impl Values {
    pub fn new(shape: Shape) -> Values {
        Values {
            shape,
            rows: if shape.is_number() { Rows::Numbers(Vec::new()) } else { Rows::Bytes(Vec::new()) },
        }
    }

    /// Of a table that has one value: what it holds at first, where that is a number.
    pub fn cell(shape: Shape, initial: u64) -> Values {
        match shape.is_number() {
            true => Values { shape, rows: Rows::Cell(shape.canonical(initial)) },
            false => Values { shape, rows: Rows::Bytes(vec![0; shape.size()]) },
        }
    }

    #[inline]
    pub fn get(&self, row: u32) -> Option<Value<'_>> {
        match &self.rows {
            Rows::Cell(number) => Some(Value::Number(*number)),
            Rows::Numbers(rows) => rows.get(row as usize).copied().map(Value::Number),
            Rows::Bytes(rows) => self.shape.read(rows.get(range(row, self.shape))?),
        }
    }

    pub fn are_numbers(&self) -> bool {
        self.shape.is_number()
    }

    #[inline(always)]
    pub fn cell_mut(&mut self) -> Option<&mut u64> {
        if let Rows::Cell(number) = &mut self.rows { Some(number) } else { None }
    }

    #[inline(always)]
    pub fn number_mut(&mut self, row: u32) -> Option<&mut u64> {
        match &mut self.rows {
            Rows::Cell(number) => Some(number),
            Rows::Numbers(rows) => rows.get_mut(row as usize),
            Rows::Bytes(_) => None,
        }
    }

    /// Whether there is room for all of a value.
    #[inline]
    pub fn fits(&self, value: Value<'_>) -> bool {
        match (self.shape, value) {
            (Shape::Inline(most) | Shape::Fixed(most), Value::Bytes(bytes)) => {
                bytes.len() <= usize::from(most)
            }
            (shape, Value::Number(_)) => shape.is_number(),
            (_, Value::Bytes(_)) => false,
        }
    }

    /// Sets a row to a value that fits.
    #[inline]
    pub fn set(&mut self, row: u32, value: Value<'_>) {
        match (&mut self.rows, value) {
            (Rows::Cell(place), Value::Number(number)) => *place = self.shape.canonical(number),
            (Rows::Numbers(rows), Value::Number(number)) => {
                if let Some(place) = rows.get_mut(row as usize) {
                    *place = self.shape.canonical(number);
                }
            }
            (Rows::Bytes(rows), value) => {
                self.shape.write(value, rows.get_mut(range(row, self.shape)).unwrap_or_default());
            }
            (Rows::Cell(_) | Rows::Numbers(_), Value::Bytes(_)) => {}
        }
    }

    /// Makes a row zero, or empty, whether it was there or not.
    pub fn reset(&mut self, row: u32) {
        let rows = row as usize + 1;
        match &mut self.rows {
            Rows::Cell(number) => *number = 0,
            Rows::Numbers(numbers) => {
                numbers.resize(rows.max(numbers.len()), 0);
                self.set(row, Value::Number(0));
            }
            Rows::Bytes(bytes) => {
                bytes.resize((rows * self.shape.size()).max(bytes.len()), 0);
                bytes.get_mut(range(row, self.shape)).unwrap_or_default().fill(0);
            }
        }
    }

    /// Adds a row's bytes in a map.
    pub fn to_map(&self, row: u32, out: &mut Vec<u8>) {
        let start = out.len();
        out.resize(start + self.shape.size(), 0);
        if let (Some(value), Some(bytes)) = (self.get(row), out.get_mut(start..)) {
            self.shape.write(value, bytes);
        }
    }

    /// A value from its bytes in a map.
    pub fn parse<'b>(&self, bytes: &'b [u8]) -> Option<Value<'b>> {
        (bytes.len() == self.shape.size()).then(|| self.shape.read(bytes)).flatten()
    }
}

fn range(row: u32, shape: Shape) -> std::ops::Range<usize> {
    let at = row as usize * shape.size();
    at..at + shape.size()
}
