//! API keys: `agk_<id>_<secret>_<check>`, each part of letters and digits.

use std::fmt;

use uuid::Uuid;

use super::{Random, Secret, hash::sha256};

/// The digits of the parts.
const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// Lengths of the parts. The secret has 160 bits: 62^27 is 2^160.7.
const ID: usize = 10;
const SECRET: usize = 27;
const CHECK: usize = 6;

const PREFIX: &str = "agk_";

/// The length of a whole key, in bytes.
pub const API_KEY_LENGTH: usize = PREFIX.len() + ID + 1 + SECRET + 1 + CHECK;

/// How many ids there are.
const IDS: u64 = 62_u64.pow(ID as u32);

/// The id of an API key, which is no secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ApiKeyId(u64);

impl ApiKeyId {
    /// Parses the id of a key.
    pub fn parse(text: &str) -> Option<Self> {
        Self::read(text.as_bytes())
    }

    fn read(digits: &[u8]) -> Option<Self> {
        if digits.len() != ID {
            return None;
        }
        let mut id = 0_u64;
        for byte in digits {
            id = id * 62 + u64::from(value(*byte)?);
        }
        Some(Self(id))
    }

    /// Returns the number that the store keeps.
    pub fn number(self) -> i64 {
        // Below 62^10, so it fits.
        self.0 as i64
    }

    /// Takes the number that the store keeps.
    pub fn from_number(number: i64) -> Option<Self> {
        u64::try_from(number).ok().filter(|id| *id < IDS).map(Self)
    }

    /// Returns the id as the revocation log keeps it.
    pub fn uuid(self) -> Uuid {
        Uuid::from_u128(u128::from(self.0))
    }

    /// Takes an id of the revocation log.
    pub fn from_uuid(uuid: Uuid) -> Option<Self> {
        u64::try_from(uuid.as_u128()).ok().filter(|id| *id < IDS).map(Self)
    }

    /// Returns what people and logs call the key.
    pub fn prefix(self) -> String {
        format!("{PREFIX}{self}")
    }
}

impl fmt::Display for ApiKeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut digits = [b'0'; ID];
        write_digits(self.0, &mut digits);
        digits.iter().try_for_each(|digit| write!(f, "{}", *digit as char))
    }
}

/// A new API key.
#[derive(Debug)]
pub struct NewApiKeyText {
    /// Its id.
    pub id: ApiKeyId,
    /// The whole key.
    pub text: Secret,
    /// Its SHA-256, which the store has.
    pub hash: [u8; 32],
}

impl NewApiKeyText {
    /// Generates a key.
    pub fn generate(random: &dyn Random) -> Self {
        let id = ApiKeyId(u64::from_le_bytes(random.bytes()) % IDS);
        let mut secret = [0; SECRET];
        for digit in &mut secret {
            *digit = random_digit(random);
        }
        let secret: String = secret.iter().map(|digit| *digit as char).collect();
        let body = format!("{PREFIX}{id}_{secret}");
        let mut check = [b'0'; CHECK];
        write_digits(u64::from(crc32(body.as_bytes())), &mut check);
        let check: String = check.iter().map(|digit| *digit as char).collect();
        let text = format!("{body}_{check}");
        Self { id, hash: sha256(text.as_bytes()), text: Secret::new(text) }
    }
}

/// Reads the id of a key. Returns `None` for a text that is none, such as a mistyped one: the check tells that without a look-up.
pub fn read_api_key(text: &[u8]) -> Option<ApiKeyId> {
    if text.len() != API_KEY_LENGTH {
        return None;
    }
    let rest = text.strip_prefix(PREFIX.as_bytes())?;
    let (id, rest) = rest.split_at(ID);
    let (secret, rest) = rest.strip_prefix(b"_")?.split_at(SECRET);
    let check = rest.strip_prefix(b"_")?;
    let is_plain = secret.iter().all(u8::is_ascii_alphanumeric);
    let mut expected = [b'0'; CHECK];
    write_digits(u64::from(crc32(&text[..API_KEY_LENGTH - CHECK - 1])), &mut expected);
    if !is_plain || check != expected {
        return None;
    }
    ApiKeyId::read(id)
}

/// Returns whether a text claims to be an API key, well-formed or not.
pub fn looks_like_api_key(text: &[u8]) -> bool {
    text.starts_with(PREFIX.as_bytes())
}

fn value(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'A'..=b'Z' => Some(digit - b'A' + 10),
        b'a'..=b'z' => Some(digit - b'a' + 36),
        _ => None,
    }
}

fn write_digits(mut number: u64, digits: &mut [u8]) {
    for digit in digits.iter_mut().rev() {
        *digit = DIGITS[(number % 62) as usize];
        number /= 62;
    }
}

/// A digit, each as likely as the others.
fn random_digit(random: &dyn Random) -> u8 {
    loop {
        let [byte] = random.bytes::<1>();
        if byte < 248 {
            return DIGITS[usize::from(byte % 62)];
        }
    }
}

/// CRC-32 as Ethernet has it (ISO/IEC/IEEE 8802-3, clause 3.2.9): it finds every burst of errors up to 32 bits.
fn crc32(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut index = 0;
        while index < 256 {
            let mut entry = index as u32;
            let mut bit = 0;
            while bit < 8 {
                entry = if entry & 1 == 1 { 0xedb8_8320 ^ (entry >> 1) } else { entry >> 1 };
                bit += 1;
            }
            table[index] = entry;
            index += 1;
        }
        table
    };
    !bytes.iter().fold(!0_u32, |crc, byte| TABLE[usize::from(crc as u8 ^ byte)] ^ (crc >> 8))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::OsRandom;

    #[test]
    fn the_checksum_is_crc_32() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn a_key_is_read_back_and_one_that_is_mistyped_anywhere_is_none() {
        let key = NewApiKeyText::generate(&OsRandom);
        let text = key.text.expose().as_bytes();
        assert_eq!(read_api_key(text), Some(key.id));
        assert_eq!(text.len(), API_KEY_LENGTH);
        for position in 0..text.len() {
            let mut other = text.to_vec();
            other[position] = if other[position] == b'a' { b'b' } else { b'a' };
            assert_eq!(read_api_key(&other), None, "{position}");
            if position > 0 && text[position] != text[position - 1] {
                let mut swapped = text.to_vec();
                swapped.swap(position, position - 1);
                assert_eq!(read_api_key(&swapped), None, "{position}");
            }
            assert_eq!(read_api_key(&text[..position]), None);
        }
        assert_eq!(read_api_key(&[text, b"a"].concat()), None);
    }

    #[test]
    fn an_id_goes_through_text_store_and_log() {
        for id in [ApiKeyId(0), ApiKeyId(IDS - 1), NewApiKeyText::generate(&OsRandom).id] {
            assert_eq!(ApiKeyId::parse(&id.to_string()), Some(id));
            assert_eq!(ApiKeyId::from_number(id.number()), Some(id));
            assert_eq!(ApiKeyId::from_uuid(id.uuid()), Some(id));
        }
        assert_eq!(ApiKeyId::from_number(-1), None);
        assert_eq!(ApiKeyId::from_number(IDS as i64), None);
        assert_eq!(ApiKeyId::parse("short"), None);
        assert_eq!(ApiKeyId::parse("aaaaaaaaa-"), None);
    }
}
