//! Scalars as an operator writes them: durations, sizes, numbers and switches.
//!
//! A number or switch may also be given as text, because `${NAME}` always yields text.

use std::{borrow::Cow, fmt, str::FromStr, time::Duration};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de};

/// A span of time such as `250ms`, `5s`, `15m`, `12h` or `30d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
pub struct Span(pub Duration);

/// A number of bytes such as `512B`, `64KiB`, `1MiB` or `2GiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
pub struct Size(pub u64);

/// A whole number, bare or as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Number(pub u64);

/// `true` or `false`, bare or as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Switch(pub bool);

/// A share of a whole, from 0 to 1, such as `0.01`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Share(pub f64);

fn split_unit(text: &str) -> Option<(u64, &str)> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    Some((text[..digits].parse().ok()?, &text[digits..]))
}

impl FromStr for Span {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const LEGAL: &str = "a duration such as 250ms, 5s, 15m, 12h or 30d";
        let (count, unit) = split_unit(text).ok_or(LEGAL)?;
        let millis = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(LEGAL),
        };
        // A hundred years: anything beyond is a slip, and stays clear of overflow.
        const MOST: u64 = 100 * 366 * 86_400_000;
        count
            .checked_mul(millis)
            .filter(|&total| total <= MOST)
            .map(|total| Self(Duration::from_millis(total)))
            .ok_or(LEGAL)
    }
}

impl FromStr for Size {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const LEGAL: &str = "a size such as 512B, 64KiB, 1MiB or 2GiB";
        let (count, unit) = split_unit(text).ok_or(LEGAL)?;
        let shift = match unit {
            "B" => 0,
            "KiB" => 10,
            "MiB" => 20,
            "GiB" => 30,
            _ => return Err(LEGAL),
        };
        count.checked_mul(1 << shift).filter(|&n| n < 1 << 50).map(Self).ok_or(LEGAL)
    }
}

impl FromStr for Number {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self).map_err(|_| "a whole number")
    }
}

impl FromStr for Share {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let share = text.parse().ok().filter(|share| (0.0..=1.0).contains(share));
        share.map(Self).ok_or("a share from 0 to 1, such as 0.01")
    }
}

impl FromStr for Switch {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self).map_err(|_| "true or false")
    }
}

/// Takes text, or the bare form of the type; its errors never quote the value.
struct Scalar<T>(std::marker::PhantomData<T>);

impl<T: FromStr<Err = &'static str> + FromBare> de::Visitor<'_> for Scalar<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a scalar")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(|legal| E::custom(format_args!("expected {legal}")))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<T, E> {
        match T::from_number(number) {
            Some(value) => Ok(value),
            None => self.visit_str(&number.to_string()),
        }
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<T, E> {
        self.visit_str(&format!("{number:?}"))
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<T, E> {
        self.visit_str(if value { "true" } else { "false" })
    }

    fn visit_unit<E: de::Error>(self) -> Result<T, E> {
        self.visit_str("")
    }
}

trait FromBare: Sized {
    fn from_number(number: u64) -> Option<Self>;
}

impl FromBare for Number {
    fn from_number(number: u64) -> Option<Self> {
        Some(Self(number))
    }
}

macro_rules! scalar {
    ($name:ident, $schema:tt) => {
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_any(Scalar(std::marker::PhantomData))
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        }
    };
}

macro_rules! text_only {
    ($($name:ident),*) => {$(
        impl FromBare for $name {
            fn from_number(_: u64) -> Option<Self> {
                None
            }
        }
    )*};
}

text_only!(Span, Size, Share, Switch);
scalar!(Span, {
    "description": "A duration: a whole number and ms, s, m, h or d.",
    "type": "string",
    "pattern": "^([0-9]+(ms|s|m|h|d)|.*\\$\\{.+\\}.*)$"
});
scalar!(Size, {
    "description": "A size: a whole number and B, KiB, MiB or GiB.",
    "type": "string",
    "pattern": "^([0-9]+(B|KiB|MiB|GiB)|.*\\$\\{.+\\}.*)$"
});
scalar!(Number, {
    "description": "A whole number.",
    "anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "pattern": "^([0-9]+|.*\\$\\{.+\\}.*)$"}]
});
scalar!(Share, {
    "description": "A share of a whole, from 0 to 1.",
    "anyOf": [{"type": "number", "minimum": 0, "maximum": 1}, {"type": "string", "pattern": "^([01](\\.[0-9]+)?|.*\\$\\{.+\\}.*)$"}]
});
scalar!(Switch, {
    "description": "true or false.",
    "anyOf": [{"type": "boolean"}, {"type": "string", "pattern": "^(true|false|.*\\$\\{.+\\}.*)$"}]
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes_are_read_with_their_units() {
        assert_eq!("250ms".parse(), Ok(Span(Duration::from_millis(250))));
        assert_eq!("30d".parse(), Ok(Span(Duration::from_secs(2_592_000))));
        assert_eq!("64KiB".parse(), Ok(Size(65_536)));
        for text in ["", "5", "s", "-1s", "1.5s", "5 s", "5S", "99999999999999999999d", "5000000d"] {
            assert!(text.parse::<Span>().is_err(), "{text:?}");
        }
        for text in ["", "5", "5KB", "1TiB", "99999999999GiB"] {
            assert!(text.parse::<Size>().is_err(), "{text:?}");
        }
        assert_eq!("0.25".parse(), Ok(Share(0.25)));
        for text in ["", "NaN", "-0.1", "1.1", "1%", "inf"] {
            assert!(text.parse::<Share>().is_err(), "{text:?}");
        }
    }
}
