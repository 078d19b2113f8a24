//! Codes of authenticator apps (RFC 6238): six digits, SHA-1, thirty seconds, as every app makes them.

use std::fmt::Write;

use qrcode::{Color, EcLevel, QrCode};
use totp_rs::{Builder, Secret};

use crate::clock::UnixMillis;

/// How many steps a code may be early or late (RFC 6238, section 5.2).
const SKEW: u16 = 1;

/// What an app makes codes with.
pub struct Totp(totp_rs::Totp);

impl Totp {
    /// Bytes of a secret (RFC 4226, section 4).
    pub const SECRET_LENGTH: usize = 20;

    /// What makes codes with a secret; the names are those that the app shows. Returns none for a name that no address can hold.
    pub fn new(secret: &[u8; Self::SECRET_LENGTH], service: &str, account: &str) -> Option<Self> {
        // A colon stands between the two in the address, and an app shows it as it likes.
        let plain = |name: &str| name.replace(':', " ");
        let totp = Builder::new()
            .with_secret(Secret::new(secret.to_vec().into_boxed_slice()))
            .with_skew(SKEW)
            .with_issuer(Some(plain(service)))
            .with_account_name(plain(account));
        totp.build().ok().map(Self)
    }

    /// Returns the step of a code that holds at `now`.
    pub fn step(&self, code: &str, now: UnixMillis) -> Option<i64> {
        let code: String = code.chars().filter(|character| !character.is_whitespace()).collect();
        let is_code = code.len() == 6 && code.bytes().all(|byte| byte.is_ascii_digit());
        let seconds = u64::try_from(now.div_euclid(1_000)).ok().filter(|_| is_code)?;
        self.0.check(&code, seconds).and_then(|step| i64::try_from(step).ok())
    }

    /// The secret as a person types it: base32 (RFC 4648).
    pub fn secret(&self) -> String {
        self.0.secret().to_base32()
    }

    /// The address that an app reads.
    pub fn uri(&self) -> String {
        self.0.to_url().unwrap_or_default()
    }
}

/// Modules of white around a QR code (ISO/IEC 18004, section 5.3.8).
const QUIET_ZONE: usize = 4;

/// Draws a text as a QR code, in SVG: a line for each run of dark modules, so that it is small.
pub fn qr_code(text: &str) -> Option<String> {
    let code = QrCode::with_error_correction_level(text, EcLevel::M).ok()?;
    let width = code.width();
    let mut lines = String::new();
    for (row, modules) in code.to_colors().chunks(width).enumerate() {
        let _ = write!(lines, "M{QUIET_ZONE} {}.5", row + QUIET_ZONE);
        for run in modules.chunk_by(|one, next| one == next) {
            let step = if run[0] == Color::Dark { "h" } else { "m" };
            let _ = write!(lines, "{step}{}", run.len());
            if step == "m" {
                lines.push_str(" 0");
            }
        }
    }
    let size = width + 2 * QUIET_ZONE;
    Some(format!(
        "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {size} {size}'>\
         <path fill='#fff' d='M0 0h{size}v{size}H0z'/><path stroke='#000' d='{lines}'/></svg>"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn totp() -> Totp {
        // The secret of the examples in RFC 6238, appendix B.
        Totp::new(b"12345678901234567890", "Example: Inc", "alice:1").unwrap()
    }

    #[test]
    fn the_codes_of_the_rfc_hold_in_their_step_and_in_its_neighbours() {
        // Those of the appendix, without their first two digits.
        for (seconds, code) in
            [(1_111_111_109, "081804"), (1_234_567_890, "005924"), (20_000_000_000, "353130")]
        {
            let step = seconds / 30;
            for (at, holds) in [(-2, false), (-1, true), (0, true), (1, true), (2, false)] {
                let now = (step + at) * 30_000;
                assert_eq!(totp().step(code, now), holds.then_some(step), "{code} at {at}");
            }
        }
        assert_eq!(totp().step(" 287 082\n", 59_000), Some(1));
    }

    #[test]
    fn what_is_no_code_does_not_hold() {
        for code in ["", "28708", "2870820", "28708a", "+87082", "²87082", "287-082"] {
            assert_eq!(totp().step(code, 59_000), None, "{code}");
        }
        assert_eq!(totp().step("287082", -1), None);
    }

    #[test]
    fn apps_read_the_address_of_a_secret() {
        let uri = totp().uri();
        assert!(
            uri.starts_with("otpauth://totp/Example%20%20Inc:alice%201?secret=GEZDGNBVGY3TQOJQ"),
            "{uri}"
        );
        assert!(uri.contains("issuer=Example"), "{uri}");
        assert_eq!(totp().secret(), "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ");
        let drawn = qr_code(&uri).unwrap();
        assert!(drawn.starts_with("<svg ") && drawn.ends_with("</svg>"), "{drawn}");
        assert!(drawn.len() < 12_000, "{}", drawn.len());
        assert!(qr_code(&"x".repeat(10_000)).is_none());
    }
}
