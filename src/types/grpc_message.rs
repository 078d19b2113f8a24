//! The messages of a gRPC call as they stand in a body (gRPC over HTTP/2, "Length-Prefixed-Message").

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// A byte that says whether the message is compressed, and its length.
const PREFIX: usize = 5;

/// Returns the body of a call of one message, which is shorter than 4 GiB.
#[must_use]
pub fn body_of(message: &[u8]) -> Bytes {
    let mut body = BytesMut::with_capacity(PREFIX + message.len());
    body.put_u8(0);
    body.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    body.put(message);
    body.freeze()
}

/// Returns the message in the body of a call; none unless there is exactly one, not compressed.
#[must_use]
pub fn only_message(mut body: Bytes) -> Option<Bytes> {
    if body.len() < PREFIX || body.get_u8() != 0 {
        return None;
    }
    let length = body.get_u32() as usize;
    (body.len() == length).then_some(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_read_as_it_was_written() {
        for message in [&b""[..], b"abc"] {
            assert_eq!(only_message(body_of(message)).as_deref(), Some(message));
        }
    }

    #[test]
    fn what_is_compressed_or_cut_short_or_more_than_one_message_is_none() {
        let body = body_of(b"abc");
        let mut compressed = body.to_vec();
        compressed[0] = 1;
        for wrong in [compressed, body[..4].to_vec(), body[..7].to_vec(), [&body[..], &body[..]].concat()] {
            assert_eq!(only_message(wrong.into()), None);
        }
    }
}
