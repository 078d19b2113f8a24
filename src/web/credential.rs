//! The credential of a call to the gateway itself.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, header};

use crate::{
    access::{Credential, CredentialKinds},
    token::SessionCookies,
    types::host::name_of,
};

/// Reads the credential of a call. A cookie that other hosts get, too, counts at the public one only: a page of another host would read
/// and change the account otherwise.
pub fn of<'a>(request: &'a Request<Bytes>, kinds: CredentialKinds<'_>) -> Credential<'a> {
    let headers = request.headers();
    let lines = |name: &'static HeaderName| headers.get_all(name).iter();
    let credential = Credential::of_request(request.method(), lines, kinds);
    let is_public = |cookies: &SessionCookies| {
        let host = headers.get(header::HOST).map(HeaderValue::to_str);
        matches!(host, Some(Ok(host)) if name_of(host) == cookies.host())
    };
    let is_elsewhere = kinds.cookies.is_some_and(|cookies| cookies.have_domain() && !is_public(cookies));
    if credential.is_cookie() && is_elsewhere { Credential::Absent } else { credential }
}
