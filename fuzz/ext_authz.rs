//! Envoy's questions: whatever is in a message, a request is told of or not.

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
fn a_question_is_one_or_not() {
    let peer = std::net::IpAddr::from([127, 0, 0, 1]);
    check!(name = "ext_authz").for_each(|input: &[u8]| {
        if let Some(message) = unframed(Bytes::copy_from_slice(input))
            && let Ok(question) = CheckRequest::decode(message)
        {
            let _ = Question::of(question, peer);
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
        let question = CheckRequest { attributes: Some(AttributeContext { request, source: None }) };
        let Some(question) = Question::of(question, peer) else { return };
        if let Some(told) = &question.told {
            assert!(told.uri.path().starts_with('/') && told.method != Method::CONNECT);
        }
        assert!(question.fields.iter().all(|(name, _)| !name.as_str().starts_with(':')));
    });
}
