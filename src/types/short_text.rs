//! A short text that lies where it is kept, and in no memory of its own.

use std::{fmt, ops::Deref};

/// The longest text that lies in the value itself, in bytes.
const INLINE: usize = 14;

/// A text that is not changed any more, in 16 bytes if it has no more than 14 itself. There may be millions of them.
#[derive(Clone)]
pub struct ShortText(Place);

#[derive(Clone)]
enum Place {
    Here { length: u8, bytes: [u8; INLINE] },
    Elsewhere(Box<Box<str>>),
}

impl From<String> for ShortText {
    fn from(text: String) -> Self {
        let mut bytes = [0; INLINE];
        let place = match bytes.get_mut(..text.len()) {
            Some(here) => {
                here.copy_from_slice(text.as_bytes());
                Place::Here { length: text.len() as u8, bytes }
            }
            None => Place::Elsewhere(Box::new(text.into())),
        };
        Self(place)
    }
}

impl From<&str> for ShortText {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

impl Deref for ShortText {
    type Target = str;

    fn deref(&self) -> &str {
        match &self.0 {
            Place::Here { length, bytes } => {
                // They are those of a text, all of it.
                str::from_utf8(&bytes[..usize::from(*length)]).unwrap_or_default()
            }
            Place::Elsewhere(text) => text,
        }
    }
}

impl PartialEq for ShortText {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for ShortText {}

impl fmt::Debug for ShortText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_what_it_was_whatever_its_length() {
        for text in ["", "a", "jürgen-äöü-ß", "fourteen bytes", "fifteen bytes !", &"long ".repeat(100)]
        {
            let kept = ShortText::from(text);
            assert_eq!((&*kept, format!("{kept:?}")), (text, format!("{text:?}")));
            assert_eq!(kept.clone(), ShortText::from(text.to_owned()));
        }
        assert_ne!(ShortText::from("a"), ShortText::from("b"));
        assert_eq!(size_of::<ShortText>(), 16);
    }
}
