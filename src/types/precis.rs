//! The PRECIS profiles for names and passwords (RFC 8264, RFC 8265), on the Unicode tables of today.
//!
//! The libraries for it know Unicode 6.3, for which every letter and emoji of the last decade is unassigned.

use unicode_bidi::{BidiClass, bidi_class};
use unicode_normalization::{
    UnicodeNormalization,
    char::{canonical_combining_class, decompose_compatible},
};
use unicode_properties::{GeneralCategory, UnicodeGeneralCategory};
use unicode_script::{Script, UnicodeScript};

/// A string that a profile does not allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Disallowed;

/// Brings a name into the form of `UsernameCaseMapped` (RFC 8265, section 3.3).
pub(super) fn username(raw: &str) -> Result<String, Disallowed> {
    let mapped: String = raw.chars().map(map_width).collect();
    // Character by character: the last sigma of a word is no other letter than the one within it.
    let folded: String = mapped.chars().flat_map(char::to_lowercase).nfc().collect();
    let allowed = |text: &str| {
        let chars: Vec<char> = text.chars().collect();
        (0..chars.len()).all(|at| is_identifier(&chars, at))
    };
    if !folded.is_empty() && allowed(&mapped) && allowed(&folded) && obeys_bidi(&folded) {
        Ok(folded)
    } else {
        Err(Disallowed)
    }
}

/// Brings a password into the form of `OpaqueString` (RFC 8265, section 4.2): every space is U+0020, and the rest is
/// in NFC. What it may hold is for whoever sets one to check: [`is_opaque`].
pub fn opaque(raw: &str) -> String {
    let space = |c: char| c.general_category() == GeneralCategory::SpaceSeparator;
    raw.chars().map(|c| if space(c) { ' ' } else { c }).nfc().collect()
}

/// Whether a password may hold all of this (the FreeformClass of RFC 8264, section 4.3): no control characters, nothing
/// that is invisible and has no meaning. Unassigned code points may be assigned later.
pub fn is_opaque(text: &str) -> bool {
    text.chars().all(|c| {
        c.general_category() != GeneralCategory::Control && !is_ignorable(c) && !is_conjoining_jamo(c)
            || matches!(c, '\u{200c}' | '\u{200d}' | '\u{fe0e}' | '\u{fe0f}')
    })
}

/// Scripts whose letters join their neighbours (Unicode, ArabicShaping.txt).
const JOINING: &[Script] = &[
    Script::Arabic,
    Script::Syriac,
    Script::Nko,
    Script::Mandaic,
    Script::Mongolian,
    Script::Phags_Pa,
    Script::Adlam,
    Script::Hanifi_Rohingya,
];

/// The wide and narrow forms of a character are the character (RFC 8265, section 3.3.1, rule 1).
fn map_width(c: char) -> char {
    if !matches!(c, '\u{3000}' | '\u{ff01}'..='\u{ffef}') {
        return c;
    }
    let mut parts = Vec::new();
    decompose_compatible(c, |part| parts.push(part));
    match parts.as_slice() {
        [one] => *one,
        // Several are no other form of one character.
        _ => c,
    }
}

/// Whether a character may stand in an identifier (RFC 8264, section 8), where it stands.
fn is_identifier(text: &[char], at: usize) -> bool {
    use GeneralCategory as G;
    let c = text[at];
    match c {
        // Exceptions (section 9.6).
        '\u{df}' | '\u{3c2}' | '\u{6fd}' | '\u{6fe}' | '\u{f0b}' | '\u{3007}' => return true,
        '\u{640}' | '\u{7fa}' | '\u{302e}' | '\u{302f}' | '\u{3031}'..='\u{3035}' | '\u{303b}' => {
            return false;
        }
        '\u{b7}'
        | '\u{375}'
        | '\u{5f3}'
        | '\u{5f4}'
        | '\u{30fb}'
        | '\u{660}'..='\u{669}'
        | '\u{6f0}'..='\u{6f9}' => {
            return has_context(text, at);
        }
        '\u{200c}' | '\u{200d}' => {
            // Behind a virama (RFC 5892, appendix A.1 and A.2); the one that parts letters, also between two of a
            // script whose letters join.
            let Some(before) = at.checked_sub(1).map(|before| text[before]) else { return false };
            let joins = |c: char| JOINING.contains(&c.script());
            let between = joins(before) && text.get(at + 1).is_some_and(|after| joins(*after));
            return canonical_combining_class(before) == 9 || (c == '\u{200c}' && between);
        }
        '!'..='~' => return true,
        _ => {}
    }
    if is_ignorable(c) || is_conjoining_jamo(c) || has_compatibility(c) {
        return false;
    }
    matches!(
        c.general_category(),
        G::LowercaseLetter
            | G::UppercaseLetter
            | G::OtherLetter
            | G::DecimalNumber
            | G::ModifierLetter
            | G::NonspacingMark
            | G::SpacingMark
    )
}

/// The rules for characters that depend on their neighbours (RFC 5892, appendix A.3 to A.9).
fn has_context(text: &[char], at: usize) -> bool {
    let before = at.checked_sub(1).map(|before| text[before]);
    let after = text.get(at + 1).copied();
    let arabic = |c: &char| ('\u{660}'..='\u{669}').contains(c);
    let extended = |c: &char| ('\u{6f0}'..='\u{6f9}').contains(c);
    match text[at] {
        '\u{b7}' => before == Some('l') && after == Some('l'),
        '\u{375}' => after.is_some_and(|c| c.script() == Script::Greek),
        '\u{5f3}' | '\u{5f4}' => before.is_some_and(|c| c.script() == Script::Hebrew),
        '\u{30fb}' => {
            text.iter().any(|c| matches!(c.script(), Script::Hiragana | Script::Katakana | Script::Han))
        }
        c if arabic(&c) => !text.iter().any(extended),
        _ => !text.iter().any(arabic),
    }
}

/// Whether the character is another one in disguise (HasCompat, RFC 8264, section 9.17).
fn has_compatibility(c: char) -> bool {
    let mut normalised = std::iter::once(c).nfkc();
    normalised.next() != Some(c) || normalised.next().is_some()
}

/// Jamo that make up old syllables (RFC 8264, section 9.9).
fn is_conjoining_jamo(c: char) -> bool {
    matches!(c, '\u{1100}'..='\u{11ff}' | '\u{a960}'..='\u{a97c}' | '\u{d7b0}'..='\u{d7fb}')
}

/// Returns whether a character is invisible: `Default_Ignorable_Code_Point` and noncharacters (Unicode, DerivedCoreProperties.txt, PropList.txt).
fn is_ignorable(c: char) -> bool {
    matches!(
        c,
        '\u{ad}'
            | '\u{34f}'
            | '\u{61c}'
            | '\u{115f}'..='\u{1160}'
            | '\u{17b4}'..='\u{17b5}'
            | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}'
            | '\u{202a}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{3164}'
            | '\u{fe00}'..='\u{fe0f}'
            | '\u{feff}'
            | '\u{ffa0}'
            | '\u{fff0}'..='\u{fff8}'
            | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e0fff}'
            | '\u{fdd0}'..='\u{fdef}'
    ) || (c as u32) & 0xfffe == 0xfffe
}

/// The Bidi rule (RFC 5893, section 2), for names with anything that is written from right to left.
fn obeys_bidi(text: &str) -> bool {
    use BidiClass as B;
    let classes: Vec<B> = text.chars().map(bidi_class).collect();
    if !classes.iter().any(|class| matches!(class, B::R | B::AL | B::AN)) {
        return true;
    }
    let last = classes.iter().rev().find(|class| **class != B::NSM);
    let only = |allowed: &[B]| classes.iter().all(|class| allowed.contains(class));
    const NEUTRAL: [B; 6] = [B::ES, B::CS, B::ET, B::ON, B::BN, B::NSM];
    match classes.first() {
        Some(B::R | B::AL) => {
            let mut allowed = vec![B::R, B::AL, B::AN, B::EN];
            allowed.extend(NEUTRAL);
            let mixed = classes.contains(&B::EN) && classes.contains(&B::AN);
            only(&allowed) && !mixed && matches!(last, Some(B::R | B::AL | B::EN | B::AN))
        }
        Some(B::L) => {
            let mut allowed = vec![B::L, B::EN];
            allowed.extend(NEUTRAL);
            only(&allowed) && matches!(last, Some(B::L | B::EN))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use precis_profiles::{OpaqueString, UsernameCaseMapped, precis_core::profile::PrecisFastInvocation};

    use super::*;

    /// For every character that was there in Unicode 6.3, the two must say the same, alone and between letters.
    #[test]
    fn names_of_older_characters_are_what_the_library_makes_of_them() {
        let mut different = Vec::new();
        for c in (0..=0x10_ffff_u32).filter_map(char::from_u32) {
            for text in [format!("a{c}b"), format!("{c}")] {
                let theirs = UsernameCaseMapped::enforce(text.as_str()).ok();
                // Code points that those tables do not know are not compared.
                let Some(theirs) = theirs else { continue };
                if username(&text).ok().as_deref() != Some(theirs.as_ref()) {
                    different.push(format!("{text:?} U+{:04X}", c as u32));
                }
            }
        }
        assert!(different.is_empty(), "{} {different:?}", different.len());
    }

    #[test]
    fn what_a_library_refuses_though_it_knows_it_is_refused() {
        for text in [
            "a b",
            "a\u{a0}b",
            "\u{ad}a",
            "a\u{200b}",
            "\u{2160}",
            "\u{fb01}",
            "a\u{202e}",
            "\u{1100}",
            "\u{640}a",
            "\u{7f}",
            "",
        ] {
            assert_eq!(username(text), Err(Disallowed), "{text:?}");
            assert!(UsernameCaseMapped::enforce(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn whole_names_are_what_the_library_makes_of_them() {
        for text in [
            "\u{39d}\u{399}\u{39a}\u{39f}\u{3a3}",
            "\u{645}\u{6cc}\u{200c}\u{62e}",
            "\u{130}stanbul",
            "Stra\u{df}e",
            "\u{5d0}1",
            "a\u{ffe3}b",
            "1\u{5d0}",
            "\u{915}\u{94d}\u{200d}\u{937}",
            "l\u{b7}l",
            "a\u{b7}l",
        ] {
            let theirs = UsernameCaseMapped::enforce(text).ok();
            assert_eq!(username(text).ok().as_deref(), theirs.as_deref(), "{text:?}");
        }
    }

    #[test]
    fn letters_of_today_are_letters() {
        // Osage (Unicode 9), Vithkuqi (14), Garay (16), CJK extension H (15).
        for text in ["\u{104d8}\u{104d9}", "\u{10597}", "\u{31350}"] {
            assert_eq!(username(text).as_deref(), Ok(text));
        }
        assert_eq!(username("\u{104b0}").as_deref(), Ok("\u{104d8}"));
    }

    #[test]
    fn passwords_hold_what_people_type() {
        for text in ["\u{1f97a} correct horse", "\u{1f469}\u{200d}\u{1f4bb}", "\u{2764}\u{fe0f}", "p\u{e4}ss"]
        {
            assert!(is_opaque(text), "{text:?}");
        }
        for text in ["a\u{7}", "a\n", "\u{0}", "a\u{200b}b", "a\u{ad}"] {
            assert!(!is_opaque(text), "{text:?}");
        }
        for text in ["a\u{a0}b", "cafe\u{301}", "\u{3000}x", "\u{fb01}"] {
            assert_eq!(opaque(text), OpaqueString::enforce(text).unwrap(), "{text:?}");
        }
    }
}
