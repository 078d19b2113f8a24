//! A request for a page: whose it is, what it brings, and what it is answered with.

use std::collections::HashMap;

use bytes::Bytes;
use http::{HeaderValue, Method, Response, StatusCode, header};

use super::{
    PageRequest, Pages,
    csrf::{self, Binding},
    endpoint::{self, Answer, Endpoint},
    query_of, see_other,
    template::Page,
    view::Form,
};
use crate::{
    access::{Credential, Denied, Failure},
    account::Client,
    config::OnStale,
    error::Kind,
    token::SignedIn,
    types::Secret,
    web::device,
};

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
    /// The visitor's cookie: what came, or what is given.
    visitor: Option<String>,
    cookies: Vec<HeaderValue>,
}

/// What was sent.
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
        let lines = |name: &'static http::HeaderName| headers.get_all(name).iter();
        let cookies = self.access.cookies().map(AsRef::as_ref);
        let credential = Credential::of_request(request.request.method(), lines, cookies);
        let user_agent = headers.get(header::USER_AGENT).and_then(|name| name.to_str().ok());
        Visit {
            pages: self,
            request,
            client: Client { address: request.address, user_agent, device: device::token(headers) },
            language: self.loaded.templates.locales.preferred_index(headers.get(header::ACCEPT_LANGUAGE)),
            // A page is for browsers: whoever has a bearer token calls the API.
            credential: if credential.is_cookie() { credential } else { Credential::Absent },
            visitor: csrf::visitor(headers),
            cookies: Vec::new(),
        }
    }
}

impl Visit<'_> {
    /// Returns the page that is asked for.
    pub(super) fn endpoint(&self) -> Option<Endpoint> {
        let request = self.request.request;
        let path = request.uri().path().strip_prefix(self.pages.loaded.ui.as_str())?;
        endpoint::find(request.method(), path)
    }

    /// Returns who is signed in.
    ///
    /// # Errors
    /// Why nobody is known to be.
    pub(super) fn signed_in(&self) -> Result<(SignedIn, String), Denied> {
        let access = &self.pages.access;
        let principal = access.identify(self.credential, OnStale::Deny, access.now())?;
        let person = principal.signed_in().ok_or(Denied::Role)?;
        Ok((person, principal.name.clone()))
    }

    /// Returns who is signed in, or the way to the login page.
    ///
    /// # Errors
    /// The response in place of the page.
    pub(super) fn person(&mut self) -> Result<SignedIn, Box<Answer>> {
        match self.signed_in() {
            Ok((person, _)) => {
                let access = &self.pages.access;
                if let Ok(principal) = access.identify(self.credential, OnStale::Deny, access.now()) {
                    self.cookies.extend(access.renewed_cookie(&principal));
                }
                Ok(person)
            }
            Err(denied) if denied.kind() == Kind::Unauthenticated => {
                if self.credential.is_cookie() {
                    self.forget();
                }
                let uri = self.request.request.uri();
                // What was sent is lost; the page that it was sent from is where to go on.
                let target = match *self.request.request.method() {
                    Method::POST => uri.path(),
                    _ => uri.path_and_query().map_or("/", |target| target.as_str()),
                };
                Err(Box::new(Ok(see_other(&format!("{}/login{}", self.pages.loaded.ui, query_of(target))))))
            }
            Err(denied) => Err(Box::new(Err(denied.into()))),
        }
    }

    /// Returns whether the browser has sent a session's cookie.
    pub(super) fn has_cookie(&self) -> bool {
        self.credential.is_cookie()
    }

    /// Takes the session's cookie away.
    pub(super) fn forget(&mut self) {
        self.cookies.clear();
        self.cookies.extend(self.pages.access.cookies().and_then(|cookies| cookies.removal()));
    }

    /// Sets the cookie of a session.
    pub(super) fn is_signed_in_by(&mut self, cookie: HeaderValue) {
        self.cookies.clear();
        self.cookies.push(cookie);
    }

    /// Sets the cookie by which this browser is known again by whoever counts failed logins.
    pub(super) fn is_known_by(&mut self, device: Option<&str>) {
        self.cookies.extend(device.and_then(|token| device::cookie(token, &self.pages.mount)));
    }

    /// Adds the cookies to a response.
    pub(super) fn set_cookies(self, response: &mut Response<Bytes>) {
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
        let is_form = headers
            .get(header::CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.split(';').next())
            .is_some_and(|value| value.trim().eq_ignore_ascii_case("application/x-www-form-urlencoded"));
        if !is_form {
            return Err(Kind::UnsupportedMediaType.into());
        }
        let origin = self.pages.loaded.config.public_url.origin.as_str();
        let is_ours = match (headers.get("sec-fetch-site"), headers.get(header::ORIGIN)) {
            (Some(site), _) => matches!(site.as_bytes(), b"same-origin" | b"none"),
            (None, Some(from)) => from == origin,
            // The form's token tells.
            (None, None) => true,
        };
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
        let query = self.request.request.uri().query().unwrap_or_default();
        let pairs: Vec<(String, String)> = serde_urlencoded::from_str(query).unwrap_or_default();
        pairs.into_iter().find(|(known, _)| known == name).map(|(_, value)| value).unwrap_or_default()
    }

    /// Returns where the person wants to go, if they may be sent there: a path that a route takes, or a page of the account.
    pub(super) fn destination(&self, target: &str) -> Option<String> {
        let ui = self.pages.loaded.ui.as_str();
        let path = target.split('?').next().unwrap_or_default();
        let is_page = path.strip_prefix(ui).is_some_and(endpoint::is_of_account)
            && target.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#' && byte != b'\\');
        let host = self.pages.loaded.config.public_url.host.as_str();
        (is_page || (self.request.is_routed)(host, target)).then(|| target.to_owned())
    }

    /// Returns where people go who came for nothing else.
    pub(super) fn after_login(&self) -> &str {
        &self.pages.loaded.config.pages.after_login
    }

    pub(super) fn show<P: Page>(&self, status: StatusCode, page: &P) -> Answer {
        self.pages.page(self, status, page)
    }

    pub(super) fn style(&self) -> Response<Bytes> {
        self.pages.loaded.assets.style_response()
    }

    pub(super) fn logo(&self) -> Answer {
        self.pages.loaded.assets.logo_response().ok_or_else(|| Kind::NotFound.into())
    }
}
