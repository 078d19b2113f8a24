//! The table of pages: method, path, and what is done there.

use bytes::Bytes;
use http::{Method, Response};

use super::UI;
use crate::access::Failure;

/// A page, or why there is none.
pub(super) type PageResult = Result<Response<Bytes>, Failure>;

/// What is done at a page: it is shown, or what was typed there is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Endpoint {
    ShowLogin,
    SendLogin,
    ShowRegister,
    SendRegister,
    ShowForgot,
    SendForgot,
    ShowReset,
    SendReset,
    ShowVerify,
    SendVerify,
    ShowFactor,
    SendFactor,
    ShowProve,
    SendProve,
    ShowLogout,
    SendLogout,
    ShowAccount,
    ShowAccountName,
    SendAccountName,
    ShowAccountPassword,
    SendAccountPassword,
    ShowAccountEmail,
    SendAccountEmail,
    ShowAccountDelete,
    SendAccountDelete,
    ShowAccountSessions,
    SendAccountSessions,
    ShowAccountFactors,
    SendAccountFactors,
    ShowAccountKeys,
    SendAccountKeys,
    ShowAccountProviders,
    SendAccountProviders,
    GoToProvider,
    ComeFromProvider,
    Style,
    Script,
    Logo,
}

const ENDPOINTS: &[(Method, &str, Endpoint)] = &[
    (Method::GET, "/login", Endpoint::ShowLogin),
    (Method::POST, "/login", Endpoint::SendLogin),
    (Method::GET, "/register", Endpoint::ShowRegister),
    (Method::POST, "/register", Endpoint::SendRegister),
    (Method::GET, "/forgot", Endpoint::ShowForgot),
    (Method::POST, "/forgot", Endpoint::SendForgot),
    (Method::GET, "/reset", Endpoint::ShowReset),
    (Method::POST, "/reset", Endpoint::SendReset),
    (Method::GET, "/verify", Endpoint::ShowVerify),
    (Method::POST, "/verify", Endpoint::SendVerify),
    (Method::GET, "/factor", Endpoint::ShowFactor),
    (Method::POST, "/factor", Endpoint::SendFactor),
    (Method::GET, "/prove", Endpoint::ShowProve),
    (Method::POST, "/prove", Endpoint::SendProve),
    (Method::GET, "/logout", Endpoint::ShowLogout),
    (Method::POST, "/logout", Endpoint::SendLogout),
    (Method::GET, "/account", Endpoint::ShowAccount),
    (Method::GET, "/account/name", Endpoint::ShowAccountName),
    (Method::POST, "/account/name", Endpoint::SendAccountName),
    (Method::GET, "/account/password", Endpoint::ShowAccountPassword),
    (Method::POST, "/account/password", Endpoint::SendAccountPassword),
    (Method::GET, "/account/email", Endpoint::ShowAccountEmail),
    (Method::POST, "/account/email", Endpoint::SendAccountEmail),
    (Method::GET, "/account/delete", Endpoint::ShowAccountDelete),
    (Method::POST, "/account/delete", Endpoint::SendAccountDelete),
    (Method::GET, "/account/sessions", Endpoint::ShowAccountSessions),
    (Method::POST, "/account/sessions", Endpoint::SendAccountSessions),
    (Method::GET, "/account/factors", Endpoint::ShowAccountFactors),
    (Method::POST, "/account/factors", Endpoint::SendAccountFactors),
    (Method::GET, "/account/keys", Endpoint::ShowAccountKeys),
    (Method::POST, "/account/keys", Endpoint::SendAccountKeys),
    (Method::GET, "/account/providers", Endpoint::ShowAccountProviders),
    (Method::POST, "/account/providers", Endpoint::SendAccountProviders),
    (Method::GET, "/provider/{name}", Endpoint::GoToProvider),
    (Method::GET, "/provider/{name}/callback", Endpoint::ComeFromProvider),
    (Method::GET, "/style.css", Endpoint::Style),
    (Method::GET, "/passkey.js", Endpoint::Script),
    (Method::GET, "/logo", Endpoint::Logo),
];

/// Returns what is done with this method at a path below the pages.
/// With it the name that the path has for `{name}`; empty where it has none.
pub(super) fn find(method: &Method, path: &str) -> Option<(Endpoint, String)> {
    let method = if *method == Method::HEAD { &Method::GET } else { method };
    let mut known = ENDPOINTS.iter().filter(|(known, ..)| known == method);
    known.find_map(|(_, at, endpoint)| Some((*endpoint, name_in(path, at)?)))
}

/// Returns what a path has for `{name}`, if it is this one.
fn name_in(path: &str, pattern: &str) -> Option<String> {
    let Some((before, after)) = pattern.split_once("{name}") else {
        return (path == pattern).then(String::new);
    };
    let name = path.strip_prefix(before)?.strip_suffix(after)?;
    (!name.is_empty() && !name.contains('/')).then(|| name.to_owned())
}

/// Returns whether a path is a page of the account that can be gone to.
pub(super) fn is_of_account(path: &str) -> bool {
    path.starts_with("/account") && find(&Method::GET, path).is_some()
}

/// Returns the methods and paths of all pages, below `auth.path`.
pub fn endpoints() -> impl Iterator<Item = (Method, String)> {
    ENDPOINTS.iter().map(|(method, path, _)| (method.clone(), format!("{UI}{path}")))
}
