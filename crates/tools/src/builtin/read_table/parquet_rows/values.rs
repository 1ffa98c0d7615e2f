//! Values of a Parquet file as JSON.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, NaiveDate, NaiveTime, SecondsFormat, TimeDelta};
use parquet::basic::{ConvertedType, LogicalType, TimeUnit, Type};
use parquet::data_type::Int96;
use parquet::schema::types::ColumnDescriptor;
use serde_json::{Number, Value};

use super::Malformed;

/// The days from the first of January of the year 1 to that of 1970, and of the Julian calendar until then.
const DAYS_TO_1970: i32 = 719_163;
const JULIAN_DAYS_TO_1970: i64 = 2_440_588;
const NANOS_OF_A_DAY: i64 = 86_400_000_000_000;

/// The longest decimal, in bytes: 38 digits.
const MAX_DECIMAL_BYTES: usize = 16;

/// A value in the type that the file has.
#[derive(Debug, Clone, Copy)]
pub(super) enum Stored<'v> {
    Bool(bool),
    Int32(i32),
    Int64(i64),
    Int96(Int96),
    Double(f64),
    Bytes(&'v [u8]),
}

impl Stored<'_> {
    /// About how many bytes it takes.
    pub(super) const fn size(&self) -> usize {
        match self {
            Stored::Bytes(bytes) => bytes.len(),
            _ => 8,
        }
    }
}

/// What the values of a leaf mean.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Kind {
    /// What their type says: bytes are Base64.
    Plain,
    Unsigned,
    Text,
    Uuid,
    Half,
    /// With so many digits behind the point.
    Decimal(usize),
    Date,
    /// The parts of a second that are counted.
    Time(i64),
    /// As [`Kind::Time`], and whether it is in UTC. Otherwise its zone is unknown.
    Timestamp(i64, bool),
}

impl Kind {
    pub(super) fn of(leaf: &ColumnDescriptor) -> Result<Self, Malformed> {
        Ok(match leaf.logical_type_ref() {
            Some(LogicalType::String | LogicalType::Enum | LogicalType::Json) => Kind::Text,
            Some(LogicalType::Uuid) if leaf.type_length() == 16 => Kind::Uuid,
            Some(LogicalType::Float16) if leaf.type_length() == 2 => Kind::Half,
            Some(LogicalType::Decimal(decimal)) => decimal_of(decimal.scale)?,
            Some(LogicalType::Date) => Kind::Date,
            Some(LogicalType::Time(time)) => Kind::Time(parts_of(&time.unit)),
            Some(LogicalType::Timestamp(time)) => {
                Kind::Timestamp(parts_of(&time.unit), time.is_adjusted_to_u_t_c)
            }
            Some(LogicalType::Integer(integer)) if !integer.is_signed => Kind::Unsigned,
            Some(_) => Kind::Plain,
            None => Self::of_converted(leaf)?,
        })
    }

    /// What old writers say.
    fn of_converted(leaf: &ColumnDescriptor) -> Result<Self, Malformed> {
        Ok(match leaf.converted_type() {
            ConvertedType::UTF8 | ConvertedType::ENUM | ConvertedType::JSON => Kind::Text,
            ConvertedType::DECIMAL => decimal_of(leaf.type_scale())?,
            ConvertedType::DATE => Kind::Date,
            ConvertedType::TIME_MILLIS => Kind::Time(1000),
            ConvertedType::TIME_MICROS => Kind::Time(1_000_000),
            ConvertedType::TIMESTAMP_MILLIS => Kind::Timestamp(1000, true),
            ConvertedType::TIMESTAMP_MICROS => Kind::Timestamp(1_000_000, true),
            ConvertedType::UINT_8
            | ConvertedType::UINT_16
            | ConvertedType::UINT_32
            | ConvertedType::UINT_64 => Kind::Unsigned,
            _ if leaf.physical_type() == Type::INT96 => Kind::Timestamp(1_000_000_000, false),
            _ => Kind::Plain,
        })
    }

    /// The value as JSON.
    pub(super) fn json(self, stored: Stored<'_>) -> Result<Value, Malformed> {
        match (self, stored) {
            (_, Stored::Bool(value)) => Ok(Value::Bool(value)),
            (_, Stored::Double(value)) => Ok(number(value)),
            (_, Stored::Int96(value)) => int96(value),
            (Kind::Unsigned, Stored::Int32(value)) => Ok(value.cast_unsigned().into()),
            (Kind::Unsigned, Stored::Int64(value)) => Ok(value.cast_unsigned().into()),
            (Kind::Date, Stored::Int32(days)) => date(days),
            (Kind::Time(parts), Stored::Int32(value)) => time(i64::from(value), parts),
            (Kind::Time(parts), Stored::Int64(value)) => time(value, parts),
            (Kind::Timestamp(parts, is_utc), Stored::Int64(value)) => timestamp(value, parts, is_utc),
            (Kind::Decimal(scale), Stored::Int32(value)) => Ok(decimal(i128::from(value), scale)),
            (Kind::Decimal(scale), Stored::Int64(value)) => Ok(decimal(i128::from(value), scale)),
            (Kind::Decimal(scale), Stored::Bytes(bytes)) => Ok(decimal(whole(bytes)?, scale)),
            (_, Stored::Int32(value)) => Ok(value.into()),
            (_, Stored::Int64(value)) => Ok(value.into()),
            (Kind::Text, Stored::Bytes(bytes)) => match std::str::from_utf8(bytes) {
                Ok(text) => Ok(text.into()),
                Err(_) => Err(Malformed::new("a text is not UTF-8")),
            },
            (Kind::Uuid, Stored::Bytes(bytes)) => match uuid::Uuid::from_slice(bytes) {
                Ok(uuid) => Ok(uuid.to_string().into()),
                Err(_) => Err(Malformed::new("a UUID has not 16 bytes")),
            },
            (Kind::Half, Stored::Bytes(&[low, high])) => Ok(number(half(u16::from_le_bytes([low, high])))),
            (_, Stored::Bytes(bytes)) => Ok(STANDARD.encode(bytes).into()),
        }
    }
}

fn decimal_of(scale: i32) -> Result<Kind, Malformed> {
    let scale = usize::try_from(scale.max(0)).ok().filter(|scale| *scale <= 38);
    scale.map(Kind::Decimal).ok_or(Malformed::new("a decimal has more than 38 digits"))
}

const fn parts_of(unit: &TimeUnit) -> i64 {
    match unit {
        TimeUnit::MILLIS => 1000,
        TimeUnit::MICROS => 1_000_000,
        TimeUnit::NANOS => 1_000_000_000,
    }
}

/// JSON has no number for these three: they are texts.
fn number(value: f64) -> Value {
    match Number::from_f64(value) {
        Some(number) => Value::Number(number),
        None if value.is_nan() => "NaN".into(),
        None if value > 0.0 => "Infinity".into(),
        None => "-Infinity".into(),
    }
}

/// A number of 16 bits.
fn half(bits: u16) -> f64 {
    let (exponent, fraction) = (i32::from(bits >> 10 & 0x1f), f64::from(bits & 0x3ff));
    let magnitude = match exponent {
        0 => fraction * 2_f64.powi(-24),
        31 if fraction == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        _ => (1.0 + fraction / 1024.0) * 2_f64.powi(exponent - 15),
    };
    if bits >> 15 == 1 { -magnitude } else { magnitude }
}

fn whole(bytes: &[u8]) -> Result<i128, Malformed> {
    if bytes.is_empty() || bytes.len() > MAX_DECIMAL_BYTES {
        return Err(Malformed::new("a decimal has more than 38 digits, or none"));
    }
    let sign = if bytes[0] & 0x80 == 0 { 0 } else { -1 };
    Ok(bytes.iter().fold(sign, |value: i128, byte| value << 8 | i128::from(*byte)))
}

fn decimal(value: i128, scale: usize) -> Value {
    let digits = format!("{:0>width$}", value.unsigned_abs(), width = scale + 1);
    let (before, after) = digits.split_at(digits.len() - scale);
    let (sign, point) = (if value < 0 { "-" } else { "" }, if scale == 0 { "" } else { "." });
    format!("{sign}{before}{point}{after}").into()
}

fn date(days: i32) -> Result<Value, Malformed> {
    let date = days.checked_add(DAYS_TO_1970).and_then(NaiveDate::from_num_days_from_ce_opt);
    date.map(|date| date.to_string().into()).ok_or(Malformed::new("a date is out of range"))
}

fn time(value: i64, parts: i64) -> Result<Value, Malformed> {
    let nanos = (value % parts) * (1_000_000_000 / parts);
    let time = u32::try_from(value / parts).ok().zip(u32::try_from(nanos).ok());
    let time =
        time.and_then(|(seconds, nanos)| NaiveTime::from_num_seconds_from_midnight_opt(seconds, nanos));
    time.map(|time| time.to_string().into()).ok_or(Malformed::new("a time is out of range"))
}

fn timestamp(value: i64, parts: i64, is_utc: bool) -> Result<Value, Malformed> {
    let nanos = value.rem_euclid(parts) * (1_000_000_000 / parts);
    let time =
        u32::try_from(nanos).ok().and_then(|nanos| DateTime::from_timestamp(value.div_euclid(parts), nanos));
    let time = time.ok_or(Malformed::new("a timestamp is out of range"))?;
    Ok(if is_utc {
        time.to_rfc3339_opts(SecondsFormat::AutoSi, true).into()
    } else {
        time.naive_utc().format("%Y-%m-%dT%H:%M:%S%.f").to_string().into()
    })
}

/// A timestamp of old writers: nanoseconds of a day, and a day of the Julian calendar.
fn int96(value: Int96) -> Result<Value, Malformed> {
    let [low, high, day] = value.data() else { return Err(Malformed::new("a timestamp is incomplete")) };
    let nanos = (u64::from(*high) << 32 | u64::from(*low)).cast_signed();
    let days = i64::from(*day) - JULIAN_DAYS_TO_1970;
    let midnight = DateTime::from_timestamp(days * 86_400, 0);
    let time = midnight
        .filter(|_| (0..=NANOS_OF_A_DAY).contains(&nanos))
        .and_then(|midnight| midnight.checked_add_signed(TimeDelta::nanoseconds(nanos)));
    let time = time.ok_or(Malformed::new("a timestamp is out of range"))?;
    Ok(time.naive_utc().format("%Y-%m-%dT%H:%M:%S%.f").to_string().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_keep_every_digit() {
        for (value, scale, expected) in
            [(12_345, 2, "123.45"), (-5, 3, "-0.005"), (0, 2, "0.00"), (7, 0, "7"), (-100, 2, "-1.00")]
        {
            assert_eq!(decimal(value, scale), expected);
        }
        assert_eq!(whole(&[0xff, 0x85]).unwrap(), -123);
        assert!(whole(&[0; 17]).is_err() && whole(&[]).is_err());
        assert_eq!(decimal(i128::MIN, 38), "-1.70141183460469231731687303715884105728");
    }

    #[test]
    fn times_are_written_as_rfc_3339_with_a_zone_only_where_it_is_known() {
        assert_eq!(timestamp(-1, 1000, true).unwrap(), "1969-12-31T23:59:59.999Z");
        assert_eq!(timestamp(0, 1_000_000_000, false).unwrap(), "1970-01-01T00:00:00");
        assert!(timestamp(i64::MAX, 1000, true).is_err());
        assert_eq!(time(86_399_999, 1000).unwrap(), "23:59:59.999");
        assert!(time(-1, 1000).is_err() && time(86_400_000, 1000).is_err());
        assert_eq!(date(-719_162).unwrap(), "0001-01-01");
        assert!(date(i32::MAX).is_err());
    }

    #[test]
    fn numbers_that_json_has_not_are_texts() {
        assert_eq!(number(half(0x3c00)), 1.0);
        assert_eq!((number(half(0x7c00)), number(half(0xfc00))), ("Infinity".into(), "-Infinity".into()));
        assert_eq!(number(half(0x7e00)), "NaN");
        assert_eq!(number(half(0x0001)), 2_f64.powi(-24));
    }
}
