//! Pages for people with browsers: signing in, and keeping an account.
//!
//! They are rendered here and work without script. A page's context is a type (`view`) with samples, which a test renders in every
//! language; every form has a token that only the browser's own cookie gives (`csrf`); GET changes nothing; and where a person goes
//! afterwards is a path that a route takes, or a page of ours.
//!
//! To add a page: a context in `view`, a template, a handler, and its lines in `endpoint` and `dispatch`.

mod account;
mod assets;
mod csrf;
mod device;
mod dispatch;
mod endpoint;
mod factor;
mod factors;
mod file;
mod keys;
mod locale;
mod message;
mod prove;
mod provider;
mod refusal;
mod sign_in;
mod style;
mod template;
mod view;
mod visit;

use std::{net::IpAddr, sync::Arc};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};

pub use endpoint::endpoints;
pub use refusal::Refusals;

use self::{
    assets::Assets,
    csrf::FormTokens,
    endpoint::PageResult,
    locale::Locales,
    template::{Site, Templates},
};
use crate::{
    access::{Access, Failure},
    account::Accounts,
    config,
    error::Kind,
    oidc::ProviderClient,
    route::Table,
    token::Tickets,
    types::Random,
};

/// The folder of the pages, below `auth.path`.
pub const UI: &str = "/ui";

/// What a page without a form may load: its style and its logo, from here.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; style-src 'self'; img-src 'self' data:; form-action 'none'; \
     base-uri 'none'; frame-ancestors 'none'";

/// What was loaded of a config: templates, texts, style.
pub struct Loaded {
    templates: Arc<Templates>,
    assets: Assets,
    config: config::Browser,
    ui: String,
    /// What a page with forms may load, and the same of one that takes a script: ours, by which a passkey is made or shown.
    policies: [HeaderValue; 2],
}

impl std::fmt::Debug for Loaded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Loaded").field("ui", &self.ui).finish_non_exhaustive()
    }
}

impl Loaded {
    /// Loads the pages of a config below `mount`, which is `auth.path`.
    ///
    /// # Errors
    /// What is wrong with a file of the operator.
    pub fn load(browser: &config::Browser, mount: &str) -> Result<Self, String> {
        let pages = &browser.pages;
        let ui = format!("{mount}{UI}");
        let assets = Assets::load(pages)?;
        let locales = Locales::load(&pages.languages, pages.folder.as_deref())?;
        let site = Site {
            name: pages.name.clone(),
            style: assets.style_address(&ui),
            script: assets.script_address(&ui),
            logo: assets.logo_address(&ui),
            ui: ui.clone(),
        };
        let templates = Arc::new(Templates::load(pages.folder.as_deref(), locales, site)?);
        // A form leads to where the person was going, and the application may send them on to another site: browsers hold all of that
        // against `form-action`.
        let anywhere = if browser.public_url.is_https { "https:" } else { "https: http:" };
        let policy = |script: &str| {
            let text = format!(
                "default-src 'none'; {script}style-src 'self'; img-src 'self' data:; form-action 'self' {anywhere}; \
                 base-uri 'none'; frame-ancestors 'none'"
            );
            HeaderValue::try_from(text).map_err(|_| "the policy of pages is no header".to_owned())
        };
        let policies = [policy("")?, policy("script-src 'self'; ")?];
        Ok(Self { templates, assets, config: browser.clone(), ui, policies })
    }

    /// Returns the pages that take the place of refusals.
    pub fn refusals(&self) -> Refusals {
        Refusals::render(&self.templates)
    }
}

/// The pages.
pub struct Pages {
    loaded: Loaded,
    accounts: Arc<Accounts>,
    access: Arc<Access>,
    form_tokens: FormTokens,
    tickets: Tickets,
    providers: Vec<ProviderClient>,
    random: Arc<dyn Random>,
    routes: Arc<Table>,
    /// Where cookies of the calls below `auth.path` belong.
    mount: String,
}

/// What the pages are made with.
pub struct PageMeans {
    /// Makes the tokens of forms.
    pub form_key: aws_lc_rs::hmac::Key,
    /// Makes tickets for sign-in by providers.
    pub tickets: Tickets,
    /// The providers.
    pub providers: Vec<ProviderClient>,
    /// Randomness.
    pub random: Arc<dyn Random>,
    /// The routes that keys may open.
    pub routes: Arc<Table>,
}

/// A request for a page.
pub struct PageRequest<'a> {
    /// The request, with its whole body.
    pub request: &'a Request<Bytes>,
    /// The client's address.
    pub address: IpAddr,
    /// The request's id.
    pub request_id: &'a str,
    /// Whether a route takes a path, with its query, at this host.
    pub is_routed: &'a (dyn Fn(&str, &str) -> bool + Sync),
}

impl Pages {
    /// The pages of a config.
    pub fn new(
        loaded: Loaded,
        mount: &str,
        accounts: Arc<Accounts>,
        access: Arc<Access>,
        means: PageMeans,
    ) -> Self {
        let PageMeans { form_key, tickets, providers, random, routes } = means;
        let (form_tokens, mount) = (FormTokens::new(form_key), mount.to_owned());
        Self { loaded, accounts, access, form_tokens, tickets, providers, random, routes, mount }
    }

    /// Returns whether a path is below the pages.
    pub fn has(&self, path: &str) -> bool {
        path.strip_prefix(self.loaded.ui.as_str()).is_some_and(|rest| rest.starts_with('/'))
    }

    /// Handles a request for a page.
    pub async fn handle(&self, request: PageRequest<'_>) -> Response<Bytes> {
        let mut visit = self.visit(&request);
        let answer = match visit.endpoint() {
            Some((endpoint, parameter)) => visit.dispatch(endpoint, &parameter).await,
            None => Err(Kind::NotFound.into()),
        };
        let mut response = match answer {
            Ok(response) => response,
            Err(failure) if failure.problem.kind == Kind::Unauthenticated && !visit.has_several_cookies() => {
                visit.redirect_to_login()
            }
            Err(failure) if failure.problem.kind == Kind::InsufficientUserAuthentication => {
                visit.redirect_to_proof()
            }
            Err(failure) => self.failed(&visit, &failure, request.request_id),
        };
        visit.finish(&mut response).await;
        response
    }

    /// Returns the page about a failure that no form tells of.
    fn failed(&self, visit: &visit::Visit<'_>, failure: &Failure, request_id: &str) -> Response<Bytes> {
        failure.log(request_id);
        let kind = failure.problem.kind;
        let (title, text) = refusal::texts(kind).unwrap_or(match kind.status().is_client_error() {
            true => ("failed-400", "failed-400-other"),
            false => ("failed-503", "failed-503-text"),
        });
        let page = view::Text { title, text, request_id: Some(request_id.to_owned()) };
        let mut response = self.page(visit, kind.status(), &page).unwrap_or_else(|failure| {
            failure.problem.response(request_id, &self.accounts.config.compat.statuses)
        });
        if let Some(after) = failure.problem.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, after.as_secs().max(1).into());
        }
        response
    }

    /// Renders a page.
    fn page<P: template::Page>(&self, visit: &visit::Visit<'_>, status: StatusCode, page: &P) -> PageResult {
        let html = self.loaded.templates.render(page, visit.language).map_err(|error| {
            let mut failure = Failure::from(Kind::Internal);
            failure.log = Some(format!("page {}: {error:#}", P::TEMPLATE));
            failure
        })?;
        let mut response = html_response(status, html.into());
        let policy = self.loaded.policies[usize::from(page.has_script())].clone();
        response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, policy);
        Ok(response)
    }
}

/// Returns the response with a page.
fn html_response(status: StatusCode, html: Bytes) -> Response<Bytes> {
    let mut response = crate::error::private_response(status, "text/html; charset=utf-8", html);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(CONTENT_SECURITY_POLICY));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    if status == StatusCode::UNAUTHORIZED {
        // RFC 9110, section 15.5.2. Browsers ask nobody for a bearer token.
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

/// Returns the response that leads on by GET.
fn see_other(location: &str) -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = StatusCode::SEE_OTHER;
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    if let Ok(location) = HeaderValue::try_from(location) {
        headers.insert(header::LOCATION, location);
    }
    response
}

/// Returns a path as the value of `return_to` in a query.
fn query_of(target: &str) -> String {
    format!("?{}", serde_urlencoded::to_string([("return_to", target)]).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUR_SCRIPT: &str = "<script src=\"/auth/ui/passkey.js?v=";

    fn loaded() -> Loaded {
        Loaded::load(&config::tests::browser(), "/auth").unwrap()
    }

    #[test]
    fn every_page_is_small_whole_and_escapes_what_strangers_wrote() {
        let loaded = loaded();
        view::samples::each(|render| {
            for language in [0, 1] {
                let html = render(&loaded.templates, language);
                assert!(html.len() < 20_000, "{}", html.len());
                assert!(
                    html.starts_with("<!doctype html>") && html.trim_end().ends_with("</html>"),
                    "{html}"
                );
                for hostile in [view::samples::HOSTILE, "<script", "<img src=x", "alert('x')", ">49"] {
                    let others =
                        html.replace("<img src=\"", "").replace("<img class=", "").replace(OUR_SCRIPT, "");
                    assert!(!others.contains(hostile), "{hostile} in {html}");
                }
                // What has no text is shown by its key.
                for key in [">error-", ">page-", ">failed-", "undefined"] {
                    assert!(!html.contains(key), "{key} in {html}");
                }
            }
        });
        assert!(assets::Assets::load(&loaded.config.pages).unwrap().style().len() < 8_000);
    }

    #[test]
    #[ignore = "slow"]
    fn chromium_finds_nothing_in_the_way_of_people_on_any_page() {
        let (loaded, folder) = (loaded(), tempfile::tempdir().unwrap());
        let assets = assets::Assets::load(&loaded.config.pages).unwrap();
        std::fs::write(folder.path().join("style.css"), assets.style()).unwrap();
        let mut count = 0;
        view::samples::each(|render| {
            for language in [0, 1] {
                count += 1;
                let html = render(&loaded.templates, language);
                std::fs::write(folder.path().join(format!("{count:03}.html")), html).unwrap();
            }
        });
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        let output = std::process::Command::new("node")
            .arg(root.join("tests/peers/samples.mjs"))
            .arg(folder.path())
            .env("PEERS", root.join("target/peers"))
            .output()
            .unwrap();
        let (said, failed) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{said}{failed}");
        assert!(said.starts_with("looked ") && count > 90, "{said}");
    }
}
