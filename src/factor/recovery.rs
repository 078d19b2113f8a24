//! Codes for when a factor is lost: written down, and each good once.

use crate::types::Random;

/// Characters of a code: none is taken for another (Crockford's base32).
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// Characters of a code, of five bits each.
const LENGTH: usize = 12;

/// Characters between two hyphens.
const GROUP: usize = 4;

/// Makes a code, as people write it down: `abcd-efgh-jkmn`.
pub fn recovery_code(random: &dyn Random) -> String {
    let bytes: [u8; LENGTH] = random.bytes();
    let mut code = String::with_capacity(LENGTH + LENGTH / GROUP);
    for (index, byte) in bytes.iter().enumerate() {
        if index > 0 && index % GROUP == 0 {
            code.push('-');
        }
        code.push(char::from(ALPHABET[usize::from(byte & 31)]));
    }
    code
}

/// Returns a code without what people add or mistake; none for what can be none.
pub fn normalized(typed: &str) -> Option<String> {
    let mut code = String::with_capacity(LENGTH);
    for character in typed.chars().filter(|character| !character.is_whitespace() && *character != '-') {
        let character = match character.to_ascii_lowercase() {
            'o' => '0',
            'i' | 'l' => '1',
            other => other,
        };
        let is_known = u8::try_from(character).is_ok_and(|byte| ALPHABET.contains(&byte));
        if !is_known || code.len() == LENGTH {
            return None;
        }
        code.push(character);
    }
    (code.len() == LENGTH).then_some(code)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::OsRandom;

    #[test]
    fn a_code_is_read_as_it_was_written_down() {
        let code = recovery_code(&OsRandom);
        assert_eq!((code.len(), code.matches('-').count()), (14, 2));
        let plain = code.replace('-', "");
        for typed in
            [code.clone(), plain.clone(), code.to_uppercase(), format!(" {} ", code.replace('-', " "))]
        {
            assert_eq!(normalized(&typed), Some(plain.clone()), "{typed}");
        }
        assert_eq!(normalized("OIL0-1234-5678"), Some("011012345678".to_owned()));
        for typed in ["", "abcd-efgh-jkm", "abcd-efgh-jkmn-p", "abcd-efgh-jkmu", "äbcd-efgh-jkmn"] {
            assert_eq!(normalized(typed), None, "{typed}");
        }
    }
}
