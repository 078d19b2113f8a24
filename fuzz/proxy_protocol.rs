//! The PROXY protocol: a preamble has one end, however it arrives.

use bolero::check;

use super::*;
use crate::fuzz_words::{spell, steered};

const WORDS: &[&[u8]] = &[
    b"PROXY ",
    b"TCP4 ",
    b"TCP6 ",
    b"UNKNOWN",
    b"192.0.2.1 ",
    b"10.0.0.1 ",
    b"2001:db8::1 ",
    b"::1 ",
    b"80 ",
    b"65535",
    b"65536",
    b"\r\n",
    b"\r\n\r\n\0\r\nQUIT\n",
    b"\x21\x11\x00\x0c",
    b"\x20\x00\x00\x00",
    b"\x21\x21\x00\x24",
    b"\xc0\x00\x02\x01\x0a\x00\x00\x01\x00\x50\x01\xbb",
    b"\x21\x31\x00\xd8",
    b" ",
    b"\n",
    b"GET / HTTP/1.1\r\n",
    b"\x04\x00\x01\x00",
    b"\x20\x00\x05\x01\0\0\0\0",
];

#[test]
fn a_preamble_has_one_end() {
    let peer: SocketAddr = "10.0.0.9:99".parse().unwrap();
    check!(name = "proxy_protocol").for_each(|input: &[u8]| {
        let Some((_, rest)) = steered::<1>(input) else { return };
        let mut bytes = spell(rest, WORDS);
        bytes.truncate(MOST);
        let whole = parse(&bytes, peer);
        if let Parsed::Told(_, length) = whole {
            assert!(length > 0 && length <= bytes.len());
        }
        for end in 0..bytes.len() {
            match parse(&bytes[..end], peer) {
                Parsed::Incomplete => {}
                found @ Parsed::Told(..) => {
                    assert_eq!(found, whole, "{end} of {bytes:?}");
                    break;
                }
                Parsed::Malformed => {
                    assert!(!matches!(whole, Parsed::Told(..)), "{end} of {bytes:?}");
                    break;
                }
            }
        }
    });
}
