//! Refresh tokens: nothing is read that was not made.

use std::{panic::AssertUnwindSafe, sync::Arc};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use bolero::check;

use crate::{
    fuzz_words::steered,
    token::RootSecret,
    types::{OsRandom, SessionId},
};

#[test]
fn a_refresh_token_that_was_not_made_is_not_read() {
    let tokens = RootSecret::new(b"a", Arc::new(OsRandom)).refresh_tokens();
    // A failed input ends the test, so nothing is used after it.
    let tokens = AssertUnwindSafe(tokens);
    let genuine = tokens.first(SessionId::generate(&OsRandom)).text.expose().to_owned();
    let bytes = URL_SAFE_NO_PAD.decode(&genuine).unwrap();
    check!(name = "refresh").for_each(|input: &[u8]| {
        let Some(([how], rest)) = steered(input) else { return };
        let text = if how & 1 == 0 {
            // Of the right length, which random bytes never are.
            let mut altered = bytes.clone();
            altered.iter_mut().zip(rest).for_each(|(byte, other)| *byte ^= other);
            URL_SAFE_NO_PAD.encode(altered)
        } else {
            String::from_utf8_lossy(rest).into_owned()
        };
        assert_eq!(tokens.read(&text).is_some(), text == genuine, "{text}");
    });
}
