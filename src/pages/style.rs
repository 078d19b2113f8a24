//! The style sheet, in an operator's colour.

use std::collections::BTreeMap;

/// The style sheet, with places for the colours.
const STYLE: &str = include_str!("templates/style.css");

/// Returns the style sheet in the colours of an operator's `accent` (`#` and six digits).
pub(super) fn style(accent: &str) -> String {
    let accent = Colour::parse(accent);
    let (white, dark) = (Colour([255; 3]), Colour([0x16, 0x18, 0x1c]));
    let on_accent = if accent.contrast(white) >= accent.contrast(Colour([0; 3])) { "#fff" } else { "#000" };
    let values = BTreeMap::from([
        // The longer name first: it begins with the other.
        ("ON_ACCENT", on_accent.to_owned()),
        ("LINK_LIGHT", accent.legible_on(white, Colour([0; 3])).text()),
        ("LINK_DARK", accent.legible_on(dark, white).text()),
    ]);
    let style = values.into_iter().fold(STYLE.to_owned(), |style, (name, value)| style.replace(name, &value));
    style.replace("ACCENT", &accent.text())
}

/// A colour: red, green, blue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Colour([u8; 3]);

impl Colour {
    fn parse(text: &str) -> Self {
        let digits = text.trim_start_matches('#');
        let part = |index: usize| {
            digits
                .get(index * 2..index * 2 + 2)
                .and_then(|part| u8::from_str_radix(part, 16).ok())
                .unwrap_or(0)
        };
        Self([part(0), part(1), part(2)])
    }

    fn text(self) -> String {
        let Self([red, green, blue]) = self;
        format!("#{red:02x}{green:02x}{blue:02x}")
    }

    /// The relative luminance (WCAG 2.2).
    fn luminance(self) -> f64 {
        let linear = self.0.map(|part| {
            let part = f64::from(part) / 255.0;
            if part <= 0.04045 { part / 12.92 } else { ((part + 0.055) / 1.055).powf(2.4) }
        });
        0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    }

    /// The contrast ratio (WCAG 2.2).
    fn contrast(self, other: Self) -> f64 {
        let (one, other) = (self.luminance(), other.luminance());
        (one.max(other) + 0.05) / (one.min(other) + 0.05)
    }

    /// Returns the colour, moved towards `end` until it can be read on `ground` (WCAG 2.2, success criterion 1.4.3).
    fn legible_on(self, ground: Self, end: Self) -> Self {
        let mixed = |share: u16| {
            let mut parts = self.0;
            for (part, end) in parts.iter_mut().zip(end.0) {
                let sum = u16::from(*part) * (20 - share) + u16::from(end) * share;
                *part = (sum / 20) as u8;
            }
            Self(parts)
        };
        (0..=20).map(mixed).find(|colour| colour.contrast(ground) >= 4.6).unwrap_or(end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_accent_gives_a_style_that_can_be_read() {
        for accent in ["#2457c5", "#ffff00", "#000000", "#ffffff", "#00aa55", "#808080"] {
            let colour = Colour::parse(accent);
            let (white, dark) = (Colour([255; 3]), Colour([0x16, 0x18, 0x1c]));
            assert!(colour.legible_on(white, Colour([0; 3])).contrast(white) >= 4.5, "{accent}");
            assert!(colour.legible_on(dark, white).contrast(dark) >= 4.5, "{accent}");
            let style = style(accent);
            assert!(style.contains(&format!("--accent:{accent}")) && !style.contains("ACCENT"), "{accent}");
        }
    }
}
