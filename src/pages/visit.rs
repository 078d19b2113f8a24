//! A request for a page: its user, its form, and the cookies of its response.

use std::{collections::HashMap, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Method, Response, StatusCode, header};

use super::{
    PageRequest, Pages,
    csrf::{self, Binding},
    endpoint::{self, Endpoint, PageResult},
    query_of, see_other,
    template::Page,
    view::Form,
};
use crate::{
    access::{Credential, Denied, Failure, is_own},
    account::{BrowserSession, Client},
    config::OnStale,
    error::Kind,
    token::{Principal, SignedIn},
    types::{Secret, host::name_of},
    web::{
        credential, device,
        media_type::{FORM, essence},
    },
};

/// The cookie of a challenge: the browser that has given the password meets it, and no other.
const CHALLENGE: &str = "__Host-authgate-challenge";
const CHALLENGE_ATTRIBUTES: &str = "Path=/; Secure; HttpOnly; SameSite=Lax";

/// The cookie that keeps where a person wants to go while they follow a link in a mail, for so many seconds, and its longest value before
/// it is encoded.
const DESTINATION: &str = "__Host-authgate-destination";
const KEPT_FOR: u32 = 3_600;
const LONGEST_KEPT: usize = 1_000;

/// The most fields of a form.
const MAX_FIELDS: usize = 32;

/// A request for a page.
pub(super) struct Visit<'a> {
    pub(super) pages: &'a Pages,
    pub(super) request: &'a PageRequest<'a>,
    pub(super) client: Client<'a>,
    /// The number of the language.
    pub(super) language: usize,
    credential: Credential<'a>,
    /// The visitor's cookie: the one that was sent, or a new one.
    visitor: Option<String>,
    cookies: Vec<HeaderValue>,
    /// Who is signed in, whose cookie is signed anew if it is time.
    renewed: Option<Arc<Principal>>,
    /// When to try again what has failed.
    pub(super) retry_after: Option<Duration>,
}

/// The fields of a form.
pub(super) struct Sent(HashMap<String, Secret>);

impl Sent {
    /// Returns a field without the spaces around it; empty if it is not there.
    pub(super) fn text(&self, name: &str) -> String {
        self.0.get(name).map(|value| value.expose().trim().to_owned()).unwrap_or_default()
    }

    /// Returns a secret as it was typed, unless it is empty.
    pub(super) fn secret(&self, name: &str) -> Option<Secret> {
        self.0.get(name).filter(|value| !value.expose().is_empty()).cloned()
    }

    /// Returns whether a box was ticked.
    pub(super) fn is_set(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }
}

impl Pages {
    pub(super) fn visit<'a>(&'a self, request: &'a PageRequest<'a>) -> Visit<'a> {
        let headers = request.request.headers();
        let credential = credential::of(request.request, self.access.credential_kinds());
        let user_agent = headers.get(header::USER_AGENT).and_then(|name| name.to_str().ok());
        Visit {
            pages: self,
            request,
            client: Client {
                address: request.address,
                user_agent,
                device: device::token(headers),
                remembered: device::remembered(headers),
            },
            language: self.loaded.templates.locales.preferred_index(headers.get(header::ACCEPT_LANGUAGE)),
            // Pages are for browsers; a program with a bearer token calls the API.
            credential: if credential.is_cookie() { credential } else { Credential::Absent },
            visitor: csrf::visitor(headers),
            cookies: Vec::new(),
            renewed: None,
            retry_after: None,
        }
    }
}

impl Visit<'_> {
    /// Returns the page that is asked for.
    pub(super) fn endpoint(&self) -> Option<(Endpoint, String)> {
        let request = self.request.request;
        let path = request.uri().path().strip_prefix(self.pages.loaded.ui.as_str())?;
        endpoint::find(request.method(), path)
    }

    /// Returns who is signed in.
    ///
    /// # Errors
    /// Why nobody is known to be.
    pub(super) fn signed_in(&self) -> Result<Arc<Principal>, Denied> {
        let access = &self.pages.access;
        access.identify(self.credential, OnStale::Deny, access.now())
    }

    /// Returns who is signed in, and signs their cookie anew if it is time.
    ///
    /// # Errors
    /// Why nobody is known to be.
    pub(super) fn person(&mut self) -> Result<SignedIn, Failure> {
        let principal = self.signed_in()?;
        let person = principal.signed_in();
        self.renewed = Some(principal);
        person.ok_or_else(|| Kind::InsufficientRole.into())
    }

    /// Returns whether the browser sends several session cookies, of which a sibling may have set one. To sign in again would end here again.
    pub(super) fn has_several_cookies(&self) -> bool {
        let lines = self.request.request.headers().get_all(header::COOKIE);
        let cookies = self.pages.access.cookies();
        cookies.is_some_and(|cookies| Credential::of_cookies(lines, cookies.name()) == Credential::Unusable)
    }

    /// Returns the redirect to the login page, which leads back to this page.
    pub(super) fn redirect_to_login(&mut self) -> Response<Bytes> {
        if self.has_cookie() {
            self.remove_session_cookie();
        }
        see_other(&format!("{}/login{}", self.pages.loaded.ui, query_of(self.target())))
    }

    /// Returns where to go on at this page. A form that was sent is lost; its page is where.
    fn target(&self) -> &str {
        let request = self.request.request;
        match *request.method() {
            Method::POST => request.uri().path(),
            _ => request.uri().path_and_query().map_or("/", |target| target.as_str()),
        }
    }

    /// Returns the redirect to the page for a new proof of identity, which leads back to this page.
    pub(super) fn redirect_to_proof(&self) -> Response<Bytes> {
        see_other(&format!("{}/prove{}", self.pages.loaded.ui, query_of(self.target())))
    }

    /// Returns the token of the challenge that this browser is to meet, if there is one.
    pub(super) fn challenge(&self) -> Option<Secret> {
        let lines = self.request.request.headers().get_all(header::COOKIE);
        match Credential::of_cookies(lines, CHALLENGE) {
            Credential::Cookie(value) => std::str::from_utf8(value).ok().map(Secret::new),
            _ => None,
        }
    }

    /// Sets the cookie of a challenge. It ends with the browser.
    pub(super) fn set_challenge_cookie(&mut self, token: &Secret) {
        let cookie = format!("{CHALLENGE}={}; {CHALLENGE_ATTRIBUTES}", token.expose());
        self.cookies.extend(HeaderValue::try_from(cookie));
    }

    /// Removes the cookie of a challenge that was met, or has ended.
    pub(super) fn remove_challenge_cookie(&mut self) {
        let cookie = format!("{CHALLENGE}=; {CHALLENGE_ATTRIBUTES}; Max-Age=0");
        self.cookies.extend(HeaderValue::try_from(cookie));
    }

    /// Sets another cookie.
    pub(super) fn add_cookie(&mut self, cookie: Option<HeaderValue>) {
        self.cookies.extend(cookie);
    }

    /// Sets the cookies of a session that was opened.
    pub(super) fn welcome(&mut self, session: BrowserSession) {
        self.set_session_cookie(session.cookie);
        if self.challenge().is_some() {
            // What was begun before is over.
            self.remove_challenge_cookie();
        }
        self.set_device_cookie(session.device.as_deref());
        let (ttl, mount) = (self.pages.accounts.remembers_devices_for(), self.pages.mount.as_str());
        let remembered = session.remembered.as_deref();
        self.cookies.extend(remembered.and_then(|token| device::remembered_cookie(token, mount, ttl)));
    }

    /// Returns whether the browser has sent a session's cookie.
    pub(super) fn has_cookie(&self) -> bool {
        self.credential.is_cookie()
    }

    /// Removes the session's cookie from the browser.
    pub(super) fn remove_session_cookie(&mut self) {
        self.forget_cookies();
        self.cookies.extend(self.pages.access.cookies().and_then(|cookies| cookies.removal()));
    }

    /// Sets the cookie of a session.
    pub(super) fn set_session_cookie(&mut self, cookie: HeaderValue) {
        self.forget_cookies();
        self.cookies.push(cookie);
    }

    fn forget_cookies(&mut self) {
        self.cookies.clear();
        self.renewed = None;
    }

    /// Sets the cookie by which the throttle of logins recognizes this browser.
    pub(super) fn set_device_cookie(&mut self, device: Option<&str>) {
        self.cookies.extend(device.and_then(|token| device::cookie(token, &self.pages.mount)));
    }

    /// Adds the cookies to a response and, after a failure, when to try again.
    pub(super) async fn finish(mut self, response: &mut Response<Bytes>) {
        let access = &self.pages.access;
        if let Some(change) = self.renewed.take().and_then(|principal| access.renewed_cookie(&principal)) {
            self.cookies.extend(access.set_cookie(change).await);
        }
        if let Some(after) = self.retry_after {
            let seconds = u64::try_from(after.as_millis().div_ceil(1_000).max(1)).unwrap_or(u64::MAX);
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        for cookie in self.cookies {
            response.headers_mut().append(header::SET_COOKIE, cookie);
        }
    }

    /// Returns a form for a visitor, who gets a cookie that it is bound to.
    pub(super) fn visitor_form(&mut self, return_to: Option<String>) -> Form {
        let visitor = self.visitor.take().unwrap_or_else(|| {
            let value = csrf::new_visitor(self.pages.random.bytes());
            self.cookies.extend(csrf::visitor_cookie(&value));
            value
        });
        let token = self.pages.form_tokens.token(&Binding::Visitor(visitor.clone()));
        self.visitor = Some(visitor);
        let query = return_to.as_deref().map(query_of).unwrap_or_default();
        Form { token, return_to, query }
    }

    /// Returns a form for a person who is signed in.
    pub(super) fn form(&self, person: &SignedIn) -> Form {
        let token = self.pages.form_tokens.token(&Binding::Session(person.session));
        Form { token, ..Form::default() }
    }

    /// Returns whether a token is that of the forms that somebody who is signed in is shown.
    pub(super) fn is_from_form(&self, person: &SignedIn, token: &str) -> bool {
        self.pages.form_tokens.is_genuine(token, &Binding::Session(person.session))
    }

    /// Returns what a visitor has sent.
    ///
    /// # Errors
    /// 403 if it is not known to be from a form of ours.
    pub(super) fn sent_by_visitor(&self) -> Result<Sent, Failure> {
        let binding = self.visitor.clone().map(Binding::Visitor);
        self.sent(binding.as_ref())
    }

    /// Returns what a person who is signed in has sent.
    ///
    /// # Errors
    /// 403 if it is not known to be from a form of ours.
    pub(super) fn sent_by(&self, person: &SignedIn) -> Result<Sent, Failure> {
        self.sent(Some(&Binding::Session(person.session)))
    }

    fn sent(&self, binding: Option<&Binding>) -> Result<Sent, Failure> {
        let request = self.request.request;
        let headers = request.headers();
        if !essence(headers).eq_ignore_ascii_case(FORM) {
            return Err(Kind::UnsupportedMediaType.into());
        }
        let lines = |name: &'static http::HeaderName| headers.get_all(name).iter();
        let origin = self.pages.loaded.config.public_url.origin.as_str();
        // Where a browser does not tell, the form's token does.
        let is_ours = is_own(lines, origin).unwrap_or(true);
        let pairs: Vec<(String, Secret)> =
            serde_urlencoded::from_bytes(request.body()).map_err(|_| Kind::BadRequest)?;
        let count = pairs.len();
        let fields: HashMap<String, Secret> = pairs.into_iter().collect();
        if count > MAX_FIELDS || fields.len() < count {
            return Err(Kind::BadRequest.into());
        }
        let token = fields.get("form_token").map(Secret::expose).unwrap_or_default();
        let is_genuine = binding.is_some_and(|binding| self.pages.form_tokens.is_genuine(token, binding));
        if is_ours && is_genuine { Ok(Sent(fields)) } else { Err(Kind::CrossSiteRequest.into()) }
    }

    /// Returns a parameter of the query; empty if it is not there.
    pub(super) fn query(&self, name: &str) -> String {
        self.queries(name).next().unwrap_or_default()
    }

    /// Returns whether the query has a parameter more than once.
    pub(super) fn is_repeated(&self, name: &str) -> bool {
        self.queries(name).nth(1).is_some()
    }

    fn queries(&self, name: &str) -> impl Iterator<Item = String> {
        let query = self.request.request.uri().query().unwrap_or_default();
        let pairs: Vec<(String, String)> = serde_urlencoded::from_str(query).unwrap_or_default();
        pairs.into_iter().filter(move |(known, _)| known == name).map(|(_, value)| value)
    }

    /// Returns where the person wants to go, if they may be sent there: a path that a route takes, or a page of the account.
    pub(super) fn destination(&self, target: &str) -> Option<String> {
        let ui = self.pages.loaded.ui.as_str();
        let path = target.split('?').next().unwrap_or_default();
        let is_page = path.strip_prefix(ui).is_some_and(endpoint::is_of_account)
            && target.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#' && byte != b'\\');
        // The address that the browser shows, which may be another one below a cookie's domain; or, as another proxy in front may
        // replace it, that which people type.
        let shown = self.request.request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
        let typed = self.pages.loaded.config.public_url.host.as_str();
        let mut hosts = shown.into_iter().chain([typed]);
        let is_place = is_page || hosts.any(|host| (self.request.is_routed)(&name_of(host), target));
        is_place.then(|| target.to_owned())
    }

    /// Keeps in the browser where the person wants to go, while they follow a link in a mail.
    pub(super) fn keep_destination(&mut self, target: &str) {
        if target.len() <= LONGEST_KEPT {
            let value = query_of(target);
            let cookie = format!("{DESTINATION}={}; {CHALLENGE_ATTRIBUTES}; Max-Age={KEPT_FOR}", &value[1..]);
            self.cookies.extend(HeaderValue::try_from(cookie));
        } else {
            self.forget_destination();
        }
    }

    /// Returns where the person wanted to go before they followed a link in a mail.
    pub(super) fn kept_destination(&self) -> Option<String> {
        let lines = self.request.request.headers().get_all(header::COOKIE);
        let Credential::Cookie(value) = Credential::of_cookies(lines, DESTINATION) else { return None };
        let kept: HashMap<String, String> = serde_urlencoded::from_bytes(value).ok()?;
        self.destination(kept.get("return_to")?)
    }

    /// Removes the cookie of the kept destination.
    pub(super) fn forget_destination(&mut self) {
        let cookie = format!("{DESTINATION}=; {CHALLENGE_ATTRIBUTES}; Max-Age=0");
        self.cookies.extend(HeaderValue::try_from(cookie));
    }

    /// Returns where people go who came for nothing else.
    pub(super) fn after_login(&self) -> &str {
        &self.pages.loaded.config.pages.after_login
    }

    pub(super) fn show<P: Page>(&self, status: StatusCode, page: &P) -> PageResult {
        self.pages.page(self, status, page)
    }

    pub(super) fn script(&self) -> Response<Bytes> {
        self.pages.loaded.assets.script_response()
    }

    pub(super) fn style(&self) -> Response<Bytes> {
        self.pages.loaded.assets.style_response()
    }

    pub(super) fn logo(&self) -> PageResult {
        self.pages.loaded.assets.logo_response().ok_or_else(|| Kind::NotFound.into())
    }
}
