//! The content of a page: checked for what the library takes memory for, and for what it stops the thread for.

use parquet::basic::Type;

use super::Malformed;

/// The parts of a data page.
pub(super) struct Parts<'p> {
    pub(super) reps: &'p [u8],
    pub(super) defs: &'p [u8],
    pub(super) values: &'p [u8],
}

fn cut_off() -> Malformed {
    Malformed::new("a page is cut off")
}

/// Splits off a part that begins with its length.
fn split_prefixed(bytes: &[u8]) -> Result<(&[u8], &[u8]), Malformed> {
    let (size, rest) = bytes.split_first_chunk::<4>().ok_or_else(cut_off)?;
    rest.split_at_checked(u32::from_le_bytes(*size) as usize).ok_or_else(cut_off)
}

impl<'p> Parts<'p> {
    /// The parts of a page of version 1, where levels stand only if they can differ.
    pub(super) fn of_v1(content: &'p [u8], (max_rep, max_def): (i16, i16)) -> Result<Self, Malformed> {
        let split = |max: i16, bytes| if max > 0 { split_prefixed(bytes) } else { Ok((&[][..], bytes)) };
        let (reps, rest) = split(max_rep, content)?;
        let (defs, values) = split(max_def, rest)?;
        Ok(Self { reps, defs, values })
    }

    /// The parts of a page of version 2, whose header has the sizes of the levels.
    pub(super) fn of_v2(content: &'p [u8], (reps, defs): (usize, usize)) -> Result<Self, Malformed> {
        let (reps, rest) = content.split_at_checked(reps).ok_or_else(cut_off)?;
        let (defs, values) = rest.split_at_checked(defs).ok_or_else(cut_off)?;
        Ok(Self { reps, defs, values })
    }

    /// Checks the levels, and the values of this kind in this encoding.
    pub(super) fn check(
        &self,
        (max_rep, max_def): (i16, i16),
        (kind, encoding): (Type, i64),
        n_values: u32,
    ) -> Result<(), Malformed> {
        let bits = |max: i16| i16::BITS - max.leading_zeros();
        check_runs(self.reps, bits(max_rep), n_values)?;
        check_runs(self.defs, bits(max_def), n_values)?;
        match encoding {
            0 if kind == Type::BYTE_ARRAY => check_lengths(self.values).map(|_| ()),
            // The numbers of values in a dictionary.
            2 | 8 => match self.values.split_first() {
                None => Ok(()),
                Some((bits, runs)) if *bits <= 32 => check_runs(runs, u32::from(*bits), n_values),
                Some(_) => Err(Malformed::new("the numbers of a dictionary are too long")),
            },
            // Truth values.
            3 => check_runs(split_prefixed(self.values)?.0, 1, n_values),
            5 | 6 => check_deltas(self.values, n_values),
            _ => Ok(()),
        }
    }
}

/// Checks that a dictionary has as many values as its page says.
pub(super) fn check_dictionary(content: &[u8], kind: Type, n_values: u32) -> Result<(), Malformed> {
    let (size, n_values) = (content.len() as u64, u64::from(n_values));
    let most = match kind {
        Type::BOOLEAN => size * 8,
        Type::INT32 | Type::FLOAT => size / 4,
        Type::INT64 | Type::DOUBLE => size / 8,
        Type::INT96 => size / 12,
        Type::BYTE_ARRAY => check_lengths(content)?,
        Type::FIXED_LEN_BYTE_ARRAY => size,
    };
    if n_values > most {
        return Err(Malformed::new("a dictionary is shorter than it says"));
    }
    Ok(())
}

/// Checks texts that each begin with their length, and counts them.
fn check_lengths(mut bytes: &[u8]) -> Result<u64, Malformed> {
    let mut n = 0;
    while !bytes.is_empty() {
        bytes = split_prefixed(bytes)?.1;
        n += 1;
    }
    Ok(n)
}

/// Takes a number of at most `most` bytes, seven bits in each.
fn take_number(bytes: &mut &[u8], most: usize) -> Option<u64> {
    let mut value = 0;
    for nth in 0..most {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << (7 * nth);
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// Checks runs of small numbers: each is one number so many times, or eights of numbers side by side. The last of those may
/// be cut off, where no value is left.
fn check_runs(mut bytes: &[u8], bits: u32, n_values: u32) -> Result<(), Malformed> {
    let mut left = u64::from(n_values);
    while left > 0 && !bytes.is_empty() {
        let head = take_number(&mut bytes, 5).ok_or(Malformed::new("a page has a run without a length"))?;
        let (n, size) = if head & 1 == 0 {
            let size = u64::from(bits.div_ceil(8));
            if size > bytes.len() as u64 {
                return Err(cut_off());
            }
            (head >> 1, size)
        } else {
            ((head >> 1) * 8, (head >> 1) * u64::from(bits))
        };
        if n == 0 {
            return Err(Malformed::new("a page has a run of no values"));
        }
        left = left.saturating_sub(n);
        bytes = bytes.get(usize::try_from(size).unwrap_or(usize::MAX)..).unwrap_or_default();
    }
    Ok(())
}

/// Checks the head of values that are written as differences: how many there are, and in which blocks.
fn check_deltas(mut bytes: &[u8], n_values: u32) -> Result<(), Malformed> {
    let mut number = || take_number(&mut bytes, 9);
    let (block, n_blocks, n) = (number(), number(), number());
    let is_small = block.is_some_and(|size| size <= 65_536) && n_blocks.is_some_and(|n| n <= 2048);
    if is_small && n.is_some_and(|n| n <= u64::from(n_values)) {
        return Ok(());
    }
    Err(Malformed::new("a page has other values than it says"))
}
