//! Accounts and tokens: `auth`.

use std::{collections::HashSet, sync::Arc, time::Duration};

use http::StatusCode;

use super::{Check, Links};
use crate::{
    config::{
        ApiKeys, AttributeRules, Auth, BreachedList, BreachedService, Compat, HttpUrl, LoginBy, Mfa,
        Password, Rate, Store, Throttle, UpstreamTls, UsernameRules,
        raw::{self, LoginName},
        units::{Number, Span},
    },
    error::Statuses,
    types::{Role, Roles, Username, path},
};

/// The member that carries the access token, whatever else does.
const ACCESS_TOKEN: &str = "access_token";

impl Check<'_> {
    fn username_rules(&mut self, raw: raw::Username) -> UsernameRules {
        let pattern = match raw.pattern.as_deref().map(UsernameRules::whole) {
            None => UsernameRules::default_pattern(),
            Some(Ok(pattern)) => pattern,
            Some(Err(problem)) => {
                self.error("auth.username.pattern", format!("expected a regular expression: {problem}"));
                UsernameRules::default_pattern()
            }
        };
        let most = Username::MAX_CHARS as u64;
        let min_length = self.number("auth.username.min_length", raw.min_length, 1, (1, most));
        let max_length = self.number("auth.username.max_length", raw.max_length, most, (1, most));
        if min_length > max_length {
            self.error("auth.username.min_length", "expected no more than max_length");
        }
        let default = || UsernameRules::RESERVED.iter().map(|name| (*name).to_owned()).collect();
        let mut reserved = HashSet::new();
        for (index, name) in raw.reserved.unwrap_or_else(default).iter().enumerate() {
            match Username::new(name) {
                Ok(name) => drop(reserved.insert(name.skeleton())),
                Err(error) => self.error(&format!("auth.username.reserved[{index}]"), error.to_string()),
            }
        }
        UsernameRules { pattern, min_length, max_length, reserved }
    }

    pub(super) fn roles(&mut self, key: &str, texts: &[String]) -> Roles {
        let mut roles = Vec::new();
        for (index, text) in texts.iter().enumerate() {
            match text.parse::<Role>() {
                Ok(role) => roles.push(role),
                Err(error) => self.error(&format!("{key}[{index}]"), error.to_string()),
            }
        }
        let roles: Roles = roles.into_iter().collect();
        if roles.len() > Roles::MAX {
            self.error(key, format!("expected at most {} roles", Roles::MAX));
        }
        roles
    }

    fn mount(&mut self, path: Option<String>) -> String {
        let path = path.unwrap_or_else(|| "/auth".to_owned());
        let legal = path.is_empty()
            || (path.len() > 1
                && !path.ends_with('/')
                && path::canonical(&path).is_ok_and(|canonical| canonical.decoded == path));
        if !legal {
            self.error(
                "auth.path",
                "expected a path such as /auth, without a final slash, or \"\" for the root",
            );
        }
        path
    }

    fn login_by(&mut self, by: Option<Vec<LoginName>>) -> LoginBy {
        let by = by.unwrap_or_else(|| vec![LoginName::Username]);
        if by.is_empty() {
            self.error("auth.login.by", "expected username, email, or both");
        }
        LoginBy { username: by.contains(&LoginName::Username), email: by.contains(&LoginName::Email) }
    }

    /// Returns the default roles and the self-assignable roles of registrations.
    fn registration_roles(
        &mut self,
        default: Option<&[String]>,
        self_assignable: &[String],
    ) -> (Roles, Roles) {
        let default_roles = match default {
            Some(roles) => self.roles("auth.default_roles", roles),
            None => Roles::parse_joined("user").unwrap_or_default(),
        };
        let self_assignable_roles = self.roles("auth.self_assignable_roles", self_assignable);
        for (key, roles) in
            [("auth.default_roles", &default_roles), ("auth.self_assignable_roles", &self_assignable_roles)]
        {
            if roles.contains(Role::ADMIN) {
                self.error(
                    key,
                    "`admin` may not be given to whoever registers; use `authgate user set-roles`",
                );
            }
        }
        (default_roles, self_assignable_roles)
    }

    pub(super) fn auth(&mut self, raw: raw::Auth, store: &Store, cores: usize, links: Links<'_>) -> Auth {
        let path = self.mount(raw.path);
        for (key, text) in [("auth.issuer", &raw.issuer), ("auth.audience", &raw.audience)] {
            if text.is_empty() || text.len() > 512 || text.chars().any(char::is_control) {
                self.error(key, "expected 1 to 512 characters");
            }
        }
        let email = raw.email.map(|email| self.email(email, &path, links));
        let login_by = self.login_by(raw.login.by);
        let (default_roles, self_assignable_roles) =
            self.registration_roles(raw.default_roles.as_deref(), &raw.self_assignable_roles);
        let minutes = |minutes: u64| Duration::from_secs(minutes * 60);
        let days = |days: u64| Duration::from_secs(days * 86_400);
        let access_token_ttl = self.span("auth.access_token_ttl", raw.access_token_ttl, minutes(15));
        if access_token_ttl < Duration::from_secs(1) || access_token_ttl > days(1) {
            self.error("auth.access_token_ttl", "expected 1s to 1d");
        }
        let refresh_token_ttl = self.span("auth.refresh_token_ttl", raw.refresh_token_ttl, days(30));
        let session_max_ttl = self.span("auth.session_max_ttl", raw.session_max_ttl, days(30));
        let max_sessions = self.number("auth.max_sessions", raw.max_sessions, 100, (1, 10_000)) as u32;
        let username = self.username_rules(raw.username);
        let master_key = self.master_key("auth.master_key", raw.master_key, raw.master_key_file);
        let master_key = master_key.unwrap_or_else(|| self.default_master_key(store));
        let previous_master_key = self.master_key(
            "auth.previous_master_key",
            raw.previous_master_key,
            raw.previous_master_key_file,
        );
        if previous_master_key.as_ref().is_some_and(|previous| previous.is(&master_key)) {
            self.error("auth.previous_master_key", "is the same as the master key");
        }
        Auth {
            path,
            issuer: raw.issuer,
            audience: raw.audience,
            registration: raw.registration,
            login_by,
            default_roles,
            self_assignable_roles,
            access_token_ttl,
            refresh_token_ttl,
            refresh_grace: raw.refresh_grace.map_or(Duration::from_secs(30), |grace| grace.0),
            session_max_ttl,
            max_sessions,
            username,
            master_key,
            previous_master_key,
            reauth_window: raw.reauth_window.map_or(minutes(5), |window| window.0),
            signing: self.signing(raw.signing),
            mfa: self.mfa(raw.mfa),
            keys: ApiKeys {
                basic: raw.keys.basic.is_some_and(|taken| taken.0),
                header: raw.keys.header.is_some_and(|taken| taken.0),
            },
            password: self.password(&raw.password, cores),
            throttle: self.throttle(raw.throttle),
            cors: raw.cors.map(|cors| self.cors("auth.cors", cors)),
            compat: self.compat(raw.compat),
            email,
            // Beside `auth` in the file.
            attributes: AttributeRules::new(),
            claims: Arc::default(),
        }
    }

    fn mfa(&mut self, raw: raw::Mfa) -> Mfa {
        Mfa {
            required_for: self.roles("auth.mfa.required_for", &raw.required_for),
            // Nothing means never.
            remember_device: raw.remember_device.map_or(Duration::from_secs(30 * 86_400), |span| span.0),
            mail_codes: raw.mail_codes.is_none_or(|taken| taken.0),
        }
    }

    fn throttle(&mut self, raw: raw::Throttle) -> Throttle {
        let minutes = |minutes: u64| Duration::from_secs(minutes * 60);
        Throttle {
            account: self.rate(
                "auth.throttle.account",
                raw.account.map(|rate| (rate.failures, rate.per)),
                "failures",
                Rate { count: 10, per: minutes(5) },
            ),
            address: self.rate(
                "auth.throttle.address",
                raw.address.map(|rate| (rate.failures, rate.per)),
                "failures",
                Rate { count: 100, per: minutes(5) },
            ),
            registrations: self.rate(
                "auth.throttle.registrations",
                raw.registrations.map(|rate| (rate.requests, rate.per)),
                "requests",
                Rate { count: 20, per: minutes(1) },
            ),
            mails: self.rate(
                "auth.throttle.mails",
                raw.mails.map(|rate| (rate.requests, rate.per)),
                "requests",
                Rate { count: 10, per: minutes(10) },
            ),
        }
    }

    fn compat(&mut self, raw: raw::Compat) -> Compat {
        let token_fields = raw.token_fields.unwrap_or_else(|| vec![ACCESS_TOKEN.to_owned()]);
        for (index, field) in token_fields.iter().enumerate() {
            let key = format!("auth.compat.token_fields[{index}]");
            let plain = !field.is_empty() && field.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
            const TAKEN: &[&str] =
                &["message", "user_id", "username", "roles", "refresh_token", "token_type", "expires_in"];
            if !plain || field.len() > 64 {
                self.error(&key, "expected a name of letters, digits and `_`");
            } else if TAKEN.contains(&field.as_str()) {
                self.error(&key, "this member has a meaning of its own");
            } else if token_fields[..index].contains(field) {
                self.error(&key, "is named twice");
            }
        }
        let mut status = |key: &str, value: Option<Number>, default: StatusCode, legal: &[StatusCode]| {
            let Some(Number(number)) = value else { return default };
            let found = legal.iter().find(|status| u64::from(status.as_u16()) == number).copied();
            found.unwrap_or_else(|| {
                let legal: Vec<_> = legal.iter().map(StatusCode::as_str).collect();
                self.error(&format!("auth.compat.{key}"), format!("expected one of {}", legal.join(", ")));
                default
            })
        };
        use StatusCode as S;
        let username_exists = status(
            "duplicate_username",
            raw.duplicate_username,
            S::CONFLICT,
            &[S::CONFLICT, S::BAD_REQUEST, S::UNPROCESSABLE_ENTITY],
        );
        let unauthenticated =
            status("unauthenticated", raw.unauthenticated, S::UNAUTHORIZED, &[S::UNAUTHORIZED, S::FORBIDDEN]);
        Compat {
            statuses: Statuses { unauthenticated, username_exists },
            token_fields: token_fields.into_iter().filter(|field| field != ACCESS_TOKEN).collect(),
            token_in_header: raw.token_in_header.is_some_and(|header| header.0),
        }
    }

    pub(super) fn rate(
        &mut self,
        key: &str,
        raw: Option<(Number, Span)>,
        counted: &str,
        default: Rate,
    ) -> Rate {
        let Some((count, per)) = raw else { return default };
        let count = self.number(&format!("{key}.{counted}"), Some(count), 1, (1, 1_000_000));
        let per = self.span(&format!("{key}.per"), Some(per), default.per);
        Rate { count: count as u32, per }
    }

    fn breached_service(&mut self, raw: &raw::BreachedService) -> Option<BreachedService> {
        const LONGEST: Duration = Duration::from_secs(10);
        let key = "auth.password.breached_service";
        let url = HttpUrl::parse(&raw.url).map_err(|legal| self.error(&format!("{key}.url"), legal)).ok();
        if !raw.url.ends_with('/') {
            self.error(&format!("{key}.url"), "expected a / at its end, behind which the digits come");
        }
        let timeout = self.span(&format!("{key}.timeout"), raw.timeout, Duration::from_secs(2));
        if timeout > LONGEST {
            self.error(&format!("{key}.timeout"), "expected at most 10s");
        }
        let tls = UpstreamTls {
            ca: raw.ca.as_ref().map(|ca| self.document.folder.join(ca)),
            beside_system: false,
            name: None,
            own: None,
            source: self.document.source(&format!("{key}.ca")),
        };
        Some(BreachedService { url: url?, timeout, tls })
    }

    pub(super) fn password(&mut self, raw: &raw::Password, cores: usize) -> Password {
        let key = "auth.password";
        let parallelism =
            self.number(&format!("{key}.argon2.parallelism"), raw.argon2.parallelism, 1, (1, 16)) as u64;
        let memory = self.size(
            &format!("{key}.argon2.memory"),
            raw.argon2.memory,
            19 << 20,
            ((8 * parallelism) << 10, 1 << 30),
        );
        Password {
            min_length: self.number(&format!("{key}.min_length"), raw.min_length, 15, (1, 128)),
            reject_common: raw.reject_common.is_none_or(|reject| reject.0),
            breached: raw.breached.as_ref().map(|file| BreachedList {
                path: self.document.folder.join(file),
                source: self.document.source(&format!("{key}.breached")),
            }),
            breached_service: raw.breached_service.as_ref().and_then(|raw| self.breached_service(raw)),
            // At most 1 GiB, so the number of KiB fits.
            memory_kib: (memory >> 10) as u32,
            iterations: self.number(&format!("{key}.argon2.iterations"), raw.argon2.iterations, 2, (1, 100))
                as u32,
            parallelism: parallelism as u32,
            workers: self.number(&format!("{key}.workers"), raw.workers, cores as u64, (1, 256)),
            queue: self.number(&format!("{key}.queue"), raw.queue, 64, (1, 100_000)),
            queue_timeout: self.span(
                &format!("{key}.queue_timeout"),
                raw.queue_timeout,
                Duration::from_secs(2),
            ),
        }
    }
}
