//! Inputs that reach deeper than random bytes: each byte stands for a word of the target's language.

/// From this byte on, the next one stands for itself.
const LITERAL: u8 = 0xe0;

/// Spells an input out in words. Every text can be spelled.
pub(crate) fn spell(input: &[u8], words: &[&[u8]]) -> Vec<u8> {
    let mut text = Vec::new();
    let mut bytes = input.iter();
    while let Some(&byte) = bytes.next() {
        if byte < LITERAL {
            text.extend_from_slice(words[usize::from(byte) % words.len()]);
        } else if let Some(&literal) = bytes.next() {
            text.push(literal);
        }
    }
    text
}

/// Cuts an input in two: the first bytes steer, the rest is what is steered.
pub(crate) fn steered<const N: usize>(input: &[u8]) -> Option<([u8; N], &[u8])> {
    let (first, rest) = input.split_first_chunk()?;
    Some((*first, rest))
}
