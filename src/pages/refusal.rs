//! The pages that take the place of refusals that programs read, rendered once for each language.

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;
use http::{HeaderValue, Response};

use super::{html_response, query_of, see_other, template::Templates, view};
use crate::error::Kind;

/// Kinds that people meet on their way, with the title and the text of their page.
const KINDS: &[(Kind, &str, &str)] = &[
    (Kind::BadRequest, "failed-400", "failed-400-text"),
    (Kind::Unauthenticated, "failed-401", "failed-401-text"),
    (Kind::InsufficientRole, "failed-403", "failed-403-text"),
    (Kind::CrossSiteRequest, "failed-403", "failed-403-cross-site"),
    (Kind::NotFound, "failed-404", "failed-404-text"),
    (Kind::TooManyRequests, "failed-429", "failed-429-text"),
    (Kind::UpstreamFailed, "failed-502", "failed-502-text"),
    (Kind::NoHealthyUpstream, "failed-503", "failed-503-text"),
    (Kind::Unavailable, "failed-503", "failed-503-text"),
];

/// What stands where the id of a request comes.
const REQUEST_ID: &str = "REQUEST-ID";

/// Returns the title and the text of the page about a failure, if there is one.
pub(super) fn texts(kind: Kind) -> Option<(&'static str, &'static str)> {
    KINDS.iter().find(|(known, ..)| *known == kind).map(|(_, title, text)| (*title, *text))
}

/// The pages in place of refusals.
pub struct Refusals {
    templates: Arc<Templates>,
    /// What comes before and after the id of the request, by kind and language.
    pages: HashMap<(Kind, usize), (String, String)>,
}

impl Refusals {
    pub(super) fn render(templates: &Arc<Templates>) -> Self {
        let mut pages = HashMap::new();
        for (kind, title, text) in KINDS {
            for language in 0..templates.locales.all().len() {
                let page = view::Text { title, text, request_id: Some(REQUEST_ID.to_owned()) };
                // A template of an operator that fails was refused when it was loaded, or leaves the refusal as it is.
                let Ok(html) = templates.render(&page, language) else { continue };
                let (before, after) = html.split_once(REQUEST_ID).unwrap_or((&html, ""));
                pages.insert((*kind, language), (before.to_owned(), after.to_owned()));
            }
        }
        Self { templates: templates.clone(), pages }
    }

    /// Returns the page about a failure, in the language that `languages` (`Accept-Language`) prefers; none if there is no page about it.
    pub fn page(
        &self,
        kind: Kind,
        languages: Option<&HeaderValue>,
        request_id: &str,
    ) -> Option<Response<Bytes>> {
        let (before, after) = self.pages.get(&(kind, self.templates.locales.preferred_index(languages)))?;
        Some(html_response(kind.status(), [before.as_str(), request_id, after].concat().into()))
    }

    /// Returns the response that leads to the login page, and from there to `target`, a path with its query, or nowhere if it is empty.
    pub fn login(&self, target: &str) -> Response<Bytes> {
        let query = if target.is_empty() { String::new() } else { query_of(target) };
        see_other(&format!("{}/login{query}", self.templates.site.ui))
    }

    /// Returns the redirect to the page for a new proof of identity, by a factor if that is required, and from there to `target`.
    pub fn prove(&self, target: &str, needs_factors: bool) -> Response<Bytes> {
        let mfa = if needs_factors { "&mfa=yes" } else { "" };
        see_other(&format!("{}/prove{}{mfa}", self.templates.site.ui, query_of(target)))
    }
}
