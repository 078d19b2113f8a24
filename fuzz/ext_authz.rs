//! Envoy's calls: whatever is in a message, it is about a request that can be checked, or about none.

use bolero::check;
use prost::Message;

use super::{
    message::{AttributeContext, CheckRequest, HttpRequest, Request},
    *,
};
use crate::fuzz_words::{spell, steered};

const WORDS: &[&[u8]] = &[
    b"GET",
    b"/api/x",
    b"/",
    b"?",
    b"#",
    b"..",
    b"a.example",
    b"https",
    b":path",
    b"authorization",
    b"x-user-id",
    b"X_User_Id",
    b" ",
    b"\t",
    b"x-http-method-override",
    b"\xc3\xa9",
    b"\0",
    b"\r\n",
    b"CONNECT",
];

#[test]
fn a_call_is_about_a_request_or_none() {
    let peer = IpAddr::from([127, 0, 0, 1]);
    check!(name = "ext_authz").for_each(|input: &[u8]| {
        if let Some(message) = grpc_message::only_message(bytes::Bytes::copy_from_slice(input))
            && let Ok(call) = CheckRequest::decode(message)
        {
            let _ = Checked::of(call, peer);
        }
        let Some((_, rest)) = steered::<1>(input) else { return };
        let texts: Vec<String> = rest
            .split(|byte| *byte == 0xfe)
            .map(|text| String::from_utf8_lossy(&spell(text, WORDS)).into_owned())
            .collect();
        let [method, path, host, headers @ ..] = &texts[..] else { return };
        let headers = headers.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect();
        let http = HttpRequest {
            method: method.clone(),
            path: path.clone(),
            host: host.clone(),
            headers,
            ..HttpRequest::default()
        };
        let request = Some(Request { http: Some(http) });
        let call = CheckRequest { attributes: Some(AttributeContext { request, source: None }) };
        let Some(checked) = Checked::of(call, peer) else { return };
        if let Some(head) = &checked.head {
            assert!(head.uri.path().starts_with('/') && head.method != Method::CONNECT);
        }
        assert!(checked.fields.iter().all(|(name, _)| !name.as_str().starts_with(':')));
    });
}
