//! The compact protocol of Thrift, in which Parquet writes its metadata, as a tree of bounded size.
//!
//! The footer and the headers of pages are read with it before anything else sees them: what they claim decides how much
//! memory their file takes.

use super::Malformed;

/// A tree is no deeper than this.
const MAX_DEPTH: usize = 32;

/// A value. Fields that a newer version has added are part of the tree, and nobody asks for them.
#[derive(Debug)]
pub(super) enum Thrift {
    Bool(bool),
    Int(i64),
    List(Vec<Thrift>),
    Struct(Vec<(i16, Thrift)>),
    /// A text, a map, or a number that is not whole: nothing reads them.
    Other,
}

impl Thrift {
    /// The struct at the start of `bytes`, with at most `max_values` values, and its length in bytes.
    pub(super) fn read(bytes: &[u8], max_values: usize) -> Result<(Self, usize), Malformed> {
        let mut reader = Reader { bytes, at: 0, left: max_values };
        let read = reader.fields(0)?;
        Ok((read, reader.at))
    }

    /// The field with this number.
    pub(super) fn field(&self, number: i16) -> Option<&Thrift> {
        match self {
            Thrift::Struct(fields) => {
                fields.iter().find(|(other, _)| *other == number).map(|(_, value)| value)
            }
            _ => None,
        }
    }

    /// The whole number in a field.
    pub(super) fn int(&self, number: i16) -> Option<i64> {
        match self.field(number)? {
            Thrift::Int(value) => Some(*value),
            _ => None,
        }
    }

    /// The items of the list in a field.
    pub(super) fn list(&self, number: i16) -> Option<&[Thrift]> {
        match self.field(number)? {
            Thrift::List(items) => Some(items),
            _ => None,
        }
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    /// How many values may still come.
    left: usize,
}

impl<'a> Reader<'a> {
    fn byte(&mut self) -> Result<u8, Malformed> {
        let byte = self.bytes.get(self.at).copied().ok_or(Malformed::new("its metadata is cut off"))?;
        self.at += 1;
        Ok(byte)
    }

    fn take(&mut self, size: u64) -> Result<&'a [u8], Malformed> {
        let end = usize::try_from(size).ok().and_then(|size| self.at.checked_add(size));
        let taken = end.and_then(|end| self.bytes.get(self.at..end));
        let taken = taken.ok_or(Malformed::new("its metadata is cut off"))?;
        self.at += taken.len();
        Ok(taken)
    }

    fn varint(&mut self) -> Result<u64, Malformed> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Malformed::new("a number in its metadata is too long"))
    }

    fn zigzag(&mut self) -> Result<i64, Malformed> {
        let value = self.varint()?;
        Ok((value >> 1).cast_signed() ^ -(value & 1).cast_signed())
    }

    fn value(&mut self, kind: u8, depth: usize) -> Result<Thrift, Malformed> {
        self.left = self.left.checked_sub(1).ok_or(Malformed::new("its metadata has too many parts"))?;
        if depth > MAX_DEPTH {
            return Err(Malformed::new("its metadata is nested too deeply"));
        }
        Ok(match kind {
            1 => Thrift::Bool(true),
            2 => Thrift::Bool(false),
            3 => Thrift::Int(i64::from(self.byte()?.cast_signed())),
            4..=6 => Thrift::Int(self.zigzag()?),
            7 => self.take(8).map(|_| Thrift::Other)?,
            8 => {
                let size = self.varint()?;
                self.take(size).map(|_| Thrift::Other)?
            }
            9 | 10 => self.list(depth)?,
            11 => self.map(depth)?,
            12 => self.fields(depth + 1)?,
            13 => self.take(16).map(|_| Thrift::Other)?,
            _ => return Err(Malformed::new("its metadata has a value of an unknown type")),
        })
    }

    fn fields(&mut self, depth: usize) -> Result<Thrift, Malformed> {
        let (mut fields, mut number) = (Vec::new(), 0_i16);
        loop {
            let head = self.byte()?;
            if head == 0 {
                return Ok(Thrift::Struct(fields));
            }
            number = match head >> 4 {
                0 => i16::try_from(self.zigzag()?).ok(),
                delta => number.checked_add(i16::from(delta)),
            }
            .ok_or(Malformed::new("its metadata has a field without a number"))?;
            fields.push((number, self.value(head & 0x0f, depth)?));
        }
    }

    fn list(&mut self, depth: usize) -> Result<Thrift, Malformed> {
        let head = self.byte()?;
        let size = if head >> 4 == 15 { self.varint()? } else { u64::from(head >> 4) };
        let mut items = Vec::new();
        for _ in 0..size {
            // Alone, a truth value is in its type; in a list it is a byte.
            let kind = if matches!(head & 0x0f, 1 | 2) { self.byte()? } else { head & 0x0f };
            items.push(self.value(kind, depth + 1)?);
        }
        Ok(Thrift::List(items))
    }

    fn map(&mut self, depth: usize) -> Result<Thrift, Malformed> {
        let size = self.varint()?;
        let kinds = if size == 0 { 0 } else { self.byte()? };
        for _ in 0..size {
            for kind in [kinds >> 4, kinds & 0x0f] {
                let kind = if matches!(kind, 1 | 2) { self.byte()? } else { kind };
                self.value(kind, depth + 1)?;
            }
        }
        Ok(Thrift::Other)
    }
}
