//! Others by whom people sign in: `providers`.

use super::Check;
use crate::config::{HttpUrl, Provider, ProviderKind, ProviderRegistration, UpstreamTls, raw};

/// The most of them: each has a button.
const MOST: usize = 20;

impl Check<'_> {
    pub(super) fn providers(&mut self, raw: Vec<raw::Provider>, has_pages: bool) -> Vec<Provider> {
        if !raw.is_empty() && !has_pages {
            self.error("providers", "needs `pages`: people sign in by others there");
        }
        if raw.len() > MOST {
            self.error("providers", format!("expected at most {MOST}"));
        }
        let mut providers: Vec<Provider> = Vec::new();
        for (index, raw) in raw.into_iter().enumerate() {
            let key = format!("providers[{index}]");
            let provider = self.provider(&key, raw);
            if providers.iter().any(|other| other.name == provider.name) {
                self.error(&format!("{key}.name"), "another provider has this name");
            }
            if providers.iter().any(|other| other.kind == provider.kind) {
                self.error(&key, "another provider is the same: its people would be one here");
            }
            providers.push(provider);
        }
        providers
    }

    fn provider(&mut self, key: &str, raw: raw::Provider) -> Provider {
        let of = |name: &str| format!("{key}.{name}");
        let legal = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if raw.name.is_empty() || raw.name.len() > 32 || !raw.name.bytes().all(legal) {
            self.error(&of("name"), "expected 1 to 32 of a-z, 0-9 and `-`");
        }
        for (name, text) in
            [("client_id", raw.client_id.as_str()), ("client_secret", raw.client_secret.expose())]
        {
            if text.is_empty() || text.len() > 512 {
                self.error(&of(name), "expected 1 to 512 characters");
            }
        }
        let kind = match raw.kind {
            raw::ProviderKind::Oidc => {
                if raw.url.is_some() {
                    self.error(
                        &of("url"),
                        "is for `kind: github`; a provider by OpenID Connect has `issuer`",
                    );
                }
                let issuer = raw.issuer.unwrap_or_default();
                let url = self.url(&of("issuer"), &issuer);
                ProviderKind::OpenId { issuer, url }
            }
            raw::ProviderKind::Github => {
                if raw.issuer.is_some() {
                    self.error(
                        &of("issuer"),
                        "is for `kind: oidc`; an Enterprise server of GitHub has `url`",
                    );
                }
                let url = raw.url.map(|url| self.url(&of("url"), &url));
                self.github(url)
            }
        };
        let is_open_id = matches!(kind, ProviderKind::OpenId { .. });
        if !is_open_id && !raw.roles.map.is_empty() {
            self.error(&of("roles.map"), "is for `kind: oidc`: GitHub tells no roles");
        }
        let default: &[&str] =
            if is_open_id { &["openid", "profile", "email"] } else { &["read:user", "user:email"] };
        let scopes = raw.scopes.unwrap_or_else(|| default.iter().map(|scope| (*scope).to_owned()).collect());
        let is_scope =
            |scope: &String| !scope.is_empty() && scope.bytes().all(|byte| byte.is_ascii_graphic());
        if !scopes.iter().all(is_scope) || (is_open_id && !scopes.iter().any(|scope| scope == "openid")) {
            self.error(
                &of("scopes"),
                "expected scopes without blanks, `openid` among them for OpenID Connect",
            );
        }
        let register = match raw.register {
            None => ProviderRegistration::Nobody,
            Some(raw::Register::Switch(switch)) if switch.0 => ProviderRegistration::Anyone,
            Some(raw::Register::Switch(_)) => ProviderRegistration::Nobody,
            Some(raw::Register::Domains(domains)) => {
                if domains.is_empty()
                    || domains.iter().any(|domain| domain.is_empty() || domain.contains('@'))
                {
                    self.error(&of("register"), "expected true, false, or domains such as [example.com]");
                }
                ProviderRegistration::Domains(domains.iter().map(|domain| domain.to_lowercase()).collect())
            }
        };
        let claim = raw.roles.claim.unwrap_or_else(|| "roles".to_owned());
        Provider {
            title: raw.title.unwrap_or_else(|| raw.name.clone()),
            name: raw.name,
            kind,
            client_id: raw.client_id,
            client_secret: raw.client_secret,
            scopes,
            links_by_email: raw.link == raw::Link::VerifiedEmail,
            register,
            roles_claim: self.claim(&of("roles.claim"), claim),
            roles: self.role_map(&of("roles.map"), raw.roles.map),
            string_booleans: raw.string_booleans.is_some_and(|taken| taken.0),
            tls: UpstreamTls {
                ca: raw.ca.map(|ca| self.document.folder.join(ca)),
                beside_system: false,
                name: None,
                own: None,
                source: self.document.source(&of("ca")),
            },
            source: self.document.source(key),
        }
    }

    fn github(&mut self, url: Option<HttpUrl>) -> ProviderKind {
        match url {
            Some(web) => ProviderKind::GitHub { api: web.below("/api/v3"), web },
            None => {
                let public = |host: &str| HttpUrl {
                    is_https: true,
                    host: host.to_owned(),
                    port: 443,
                    authority: host.to_owned(),
                    target: "/".to_owned(),
                };
                ProviderKind::GitHub { web: public("github.com"), api: public("api.github.com") }
            }
        }
    }
}
