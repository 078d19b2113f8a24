//! Trace contexts: what is parsed is what is formatted.

use bolero::check;

use super::*;
use crate::fuzz_words::{spell, steered};

const WORDS: &[&[u8]] = &[
    b"00-",
    b"ff-",
    b"01-",
    b"4bf92f3577b34da6a3ce929d0e0e4736",
    b"00000000000000000000000000000000",
    b"-",
    b"00f067aa0ba902b7",
    b"0000000000000000",
    b"-01",
    b"-00",
    b"-ff",
    b"-0g",
    b"A",
    b"4bf92f35",
    b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
];

#[test]
fn a_trace_context_that_is_parsed_is_formatted_alike() {
    check!(name = "trace_context").for_each(|input: &[u8]| {
        let Some((_, rest)) = steered::<1>(input) else { return };
        let text = spell(rest, WORDS);
        let Some(context) = TraceContext::parse(&text) else { return };
        assert!(context.trace_id != [0; 16] && context.parent_id != [0; 8]);
        assert_eq!(TraceContext::parse(&context.text()), Some(context));
        assert_eq!(context.text()[3..52], text[3..52]);
    });
}
