//! The calls of the admin API, one function each.
//!
//! Whether the caller administers is looked up in the store at each call: an administrator who was
//! removed a moment ago, on any gateway, is none.

use std::{net::IpAddr, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use percent_encoding::percent_decode_str;
use serde::de::DeserializeOwned;

use super::{
    AdminApi, Asked, CallResult,
    shape::{
        AuditQuery, AuditTrail, Invitation, Key, Keys as KeyList, Lifetime, LogSettings, Message,
        NewInvitation, NewResetLink, NewUser, Page, Reloaded, ResetLink, Revocation, Revoked, Sessions,
        Upstream, Upstreams, User, UserQuery, UserUpdate, Users,
    },
};
use crate::{
    access::{Credential, Denied, Failure},
    account::{
        Actor, Ended, ExternalTarget, InvitationRequest, KeysError, NewAccount, RESET_LINK_HOLDS_FOR, Update,
        list_keys, list_sessions,
    },
    clock::{parse_rfc3339, rfc3339},
    config::OnStale,
    error::{Kind, Problem, private_json, private_response},
    store::{self, AuditFilter, UserFilter},
    types::{Role, Roles, SessionId, UserId},
    upstream::ServerReport,
    web::{api_key::ApiKeys, media_type::essence},
};

/// The largest body, in bytes.
const MAX_BODY: usize = 64 << 10;

/// For a whole body.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// Entries of a list when none are asked for, and the most.
const LIMIT: u32 = 100;
const MAX_LIMIT: u32 = 500;

const JSON: &str = "application/json";

/// Converts a failure of the keys to one for the client.
fn key_failure(error: KeysError) -> Failure {
    match error {
        KeysError::SharedSecret => Kind::KeysFromConfig.into(),
        KeysError::Store(error) => error.into(),
        other => Failure { log: Some(other.to_string()), ..Kind::Internal.into() },
    }
}

impl AdminApi {
    /// Who calls. The token says who it is; what the account is now, the store says.
    pub(super) async fn authenticate(&self, headers: &HeaderMap, peer: IpAddr) -> Result<Actor, Failure> {
        let credential = Credential::of(headers.get_all(header::AUTHORIZATION));
        // Staleness is no matter where the store itself is asked.
        let identified = self.access.identify(credential, OnStale::Allow, self.access.now());
        let principal = identified.map_err(Denied::without_asking)?;
        let person = principal.signed_in().ok_or(Kind::InsufficientRole)?;
        let ended = || Failure::from(Problem { had_token: true, ..Kind::Unauthenticated.into() });
        let user = self.operator.store.user(person.user).await?.ok_or_else(ended)?;
        let session = self.operator.store.session(person.session).await?.ok_or_else(ended)?;
        if user.disabled || user.generation != person.generation || session.generation != user.generation {
            return Err(ended());
        }
        if !user.roles.contains(Role::ADMIN) {
            return Err(Kind::InsufficientRole.into());
        }
        Ok(Actor { id: Some(user.id), name: user.name.to_string(), address: Some(peer.to_string()) })
    }

    pub(super) async fn user(&self, id: &str) -> Result<crate::store::User, Failure> {
        let id = UserId::parse(id).ok_or(Kind::NotFound)?;
        Ok(self.operator.store.user(id).await?.ok_or(Kind::NotFound)?)
    }

    /// The servers of each upstream.
    pub(super) fn upstreams(&self, asked: &Asked<'_>) -> Response<Bytes> {
        let upstream = |(name, servers): (String, Vec<ServerReport>)| Upstream {
            name,
            servers: servers.into_iter().map(Into::into).collect(),
        };
        let upstreams = asked.status.upstreams().into_iter().map(upstream).collect();
        private_json(StatusCode::OK, &Upstreams { upstreams })
    }

    /// The routes as they are.
    pub(super) async fn routes(&self, asked: Asked<'_>) -> CallResult {
        if !asked.peer.to_canonical().is_loopback() {
            self.authenticate(asked.headers, asked.peer).await?;
        }
        Ok(private_json(StatusCode::OK, &asked.status.routes()))
    }

    /// Takes the config up anew.
    pub(super) async fn reload(&self, asked: Asked<'_>) -> CallResult {
        let by = asked.by()?;
        let result = asked.status.reload().await;
        let action = if result.is_ok() { "config.reload" } else { "config.refuse" };
        self.operator.store.record(None, &by.event(action, String::new())).await?;
        match result {
            Ok(warnings) => {
                let message = "Config taken up";
                Ok(private_json(StatusCode::OK, &Reloaded { message, warnings }))
            }
            Err(errors) => {
                let detail = Some(errors.join("\n"));
                Err(Problem { detail, ..Kind::ConfigNotAccepted.into() }.into())
            }
        }
    }

    /// Ends tokens of another issuer.
    pub(super) async fn revoke_external(&self, asked: Asked<'_>) -> CallResult {
        let by = asked.by()?.clone();
        let wanted: Revocation = read(asked.headers, asked.body).await?;
        let targets = [
            wanted.sub.as_deref().map(ExternalTarget::Subject),
            wanted.sid.as_deref().map(ExternalTarget::Session),
            wanted.jti.as_deref().map(ExternalTarget::Token),
        ];
        let mut targets = targets.into_iter().flatten();
        let is_empty = [&wanted.sub, &wanted.sid, &wanted.jti].into_iter().flatten().any(String::is_empty);
        let (Some(target), None, false) = (targets.next(), targets.next(), is_empty) else {
            return Err(Kind::MissingParameters.into());
        };
        let ended = match &wanted.until {
            None => Ended::UntilNow,
            Some(until) => {
                let until = parse_rfc3339(until).filter(|until| *until > self.operator.clock.wall());
                Ended::Until(until.ok_or(Kind::MissingParameters)?)
            }
        };
        let issuer =
            self.access.external_issuers().iter().find(|issuer| issuer.config().name == wanted.issuer);
        let issuer = issuer.ok_or(Kind::NotFound)?;
        let until = self.operator.end_external(&by, issuer.config(), target, ended).await?;
        Ok(private_json(StatusCode::CREATED, &Revoked { message: "Revoked", until: rfc3339(until) }))
    }

    /// Sets the level of the log.
    pub(super) async fn set_log(&self, asked: Asked<'_>) -> CallResult {
        let LogSettings { level } = read(asked.headers, asked.body).await?;
        asked.status.set_log_level(level);
        let by = asked.by.as_ref().ok_or(Kind::Unauthenticated)?;
        let detail = format!("{level:?}").to_lowercase();
        self.operator.store.record(None, &by.event("log.level", detail)).await?;
        Ok(done("Set"))
    }

    pub(super) async fn show_user(&self, asked: Asked<'_>) -> CallResult {
        Ok(with_version(StatusCode::OK, self.user(asked.parameter(0)).await?))
    }

    pub(super) async fn delete_user(&self, asked: Asked<'_>) -> CallResult {
        let expected = expected_version(asked.headers)?;
        self.operator.delete(asked.by()?, &self.user(asked.parameter(0)).await?, expected).await?;
        Ok(done("Deleted"))
    }

    pub(super) async fn release_name(&self, asked: Asked<'_>) -> CallResult {
        let name = percent_decode_str(asked.parameter(0)).decode_utf8().map_err(|_| Kind::NotFound)?;
        self.operator.release_name(asked.by()?, &name).await?;
        Ok(done("Released"))
    }

    pub(super) async fn sessions(&self, asked: Asked<'_>) -> CallResult {
        let page: Page = read_query(asked.query)?;
        let (user, limit) = (self.user(asked.parameter(0)).await?.id, limit(page.limit)?);
        let listed = list_sessions(&*self.operator.store, user, limit, page.after.as_deref()).await?;
        Ok(private_json(StatusCode::OK, &Sessions::from(listed)))
    }

    pub(super) async fn end_sessions(&self, asked: Asked<'_>) -> CallResult {
        self.operator.end_sessions(asked.by()?, &self.user(asked.parameter(0)).await?).await?;
        Ok(done("Ended"))
    }

    pub(super) async fn reset_factors(&self, asked: Asked<'_>) -> CallResult {
        self.operator.reset_factors(asked.by()?, &self.user(asked.parameter(0)).await?).await?;
        Ok(done("Reset"))
    }

    pub(super) async fn end_session(&self, asked: Asked<'_>) -> CallResult {
        let (user, session) = (self.user(asked.parameter(0)).await?, SessionId::parse(asked.parameter(1)));
        self.operator.end_session(asked.by()?, user.id, session.ok_or(Kind::NotFound)?).await?;
        Ok(done("Ended"))
    }

    pub(super) async fn api_keys(&self, asked: Asked<'_>) -> CallResult {
        let page: Page = read_query(asked.query)?;
        let (user, limit) = (self.user(asked.parameter(0)).await?.id, limit(page.limit)?);
        let listed = list_keys(&*self.operator.store, user, limit, page.after.as_deref()).await?;
        Ok(private_json(StatusCode::OK, &ApiKeys::from(listed)))
    }

    pub(super) async fn end_api_key(&self, asked: Asked<'_>) -> CallResult {
        let user = self.user(asked.parameter(0)).await?;
        self.operator.end_api_key(asked.by()?, user.id, asked.parameter(1)).await?;
        Ok(done("Ended"))
    }

    pub(super) async fn list_keys(&self, _: Asked<'_>) -> CallResult {
        let keys = self.keys.list().await.map_err(key_failure)?.into_iter().map(Key::from).collect();
        Ok(private_json(StatusCode::OK, &KeyList { keys }))
    }

    pub(super) async fn rotate_key(&self, asked: Asked<'_>) -> CallResult {
        let key = self.keys.rotate(asked.by()?).await.map_err(key_failure)?;
        Ok(private_json(StatusCode::CREATED, &Key::from(key)))
    }

    pub(super) async fn revoke_key(&self, asked: Asked<'_>) -> CallResult {
        let revoked = self.operator.revoke_keys(&self.keys, asked.by()?, Some(asked.parameter(0))).await;
        revoked.map_err(key_failure)?.ok_or(Kind::NotFound)?;
        // It has happened; what signs from now on is read by the next poll, too.
        if let Err(error) = self.keys.follow(&self.keyring).await {
            tracing::debug!(%error, "the keys could not be read");
        }
        Ok(done("Revoked"))
    }

    pub(super) fn description(&self) -> Response<Bytes> {
        private_response(StatusCode::OK, JSON, self.description.clone())
    }

    pub(super) async fn users(&self, asked: Asked<'_>) -> CallResult {
        let query: UserQuery = read_query(asked.query)?;
        let limit = limit(query.limit)?;
        // One more than asked for tells whether there is a next page.
        let role = query.role.map(|role| role.parse()).transpose().map_err(|_| Kind::MissingParameters)?;
        let filter = UserFilter {
            after: query.after,
            search: query.search,
            email: query.email,
            external_id: query.external_id,
            role,
            disabled: query.disabled,
            limit: limit + 1,
        };
        let mut users = self.operator.store.users(&filter).await?;
        let more = users.len() > limit as usize;
        users.truncate(limit as usize);
        let next = users.last().filter(|_| more).map(|user| user.name.to_string());
        Ok(private_json(StatusCode::OK, &Users { users: users.into_iter().map(User::from).collect(), next }))
    }

    pub(super) async fn invite(&self, asked: Asked<'_>) -> CallResult {
        let by = asked.by()?.clone();
        let page = self.registration_page.as_ref().ok_or_else(|| Problem {
            detail: Some("An invitation is a link to a page: set `pages`.".to_owned()),
            ..Kind::NotFound.into()
        })?;
        let wanted: NewInvitation = read_optional(asked.headers, asked.body).await?;
        let roles: Vec<String> = wanted.roles.into_iter().flatten().chain(wanted.role).collect();
        let roles = parse_roles(&roles)?;
        let holds_for = span_or(wanted.expires, InvitationRequest::USUAL)?;
        let request = InvitationRequest { roles, uses: wanted.uses.unwrap_or(1), holds_for };
        let invited = self.operator.invite(&by, request).await?;
        let invitation = Invitation {
            id: invited.id.to_string(),
            link: invited.link(page),
            expires_at: rfc3339(invited.expires_at),
        };
        Ok(private_json(StatusCode::CREATED, &invitation))
    }

    pub(super) async fn reset_link(&self, asked: Asked<'_>) -> CallResult {
        let (by, user) = (asked.by()?.clone(), self.user(asked.parameter(0)).await?);
        let page = self.reset_page.as_ref().ok_or_else(|| Problem {
            detail: Some("It is a link to a page: set `pages`, or `auth.email`.".to_owned()),
            ..Kind::NotFound.into()
        })?;
        let wanted: NewResetLink = read_optional(asked.headers, asked.body).await?;
        let holds_for = span_or(wanted.expires, RESET_LINK_HOLDS_FOR)?;
        let made = self.operator.reset_link(&by, &user, holds_for).await?;
        let shown = ResetLink { link: made.link(page), expires_at: rfc3339(made.expires_at) };
        Ok(private_json(StatusCode::CREATED, &shown))
    }

    /// Makes an account.
    pub(super) async fn add_user(&self, asked: Asked<'_>) -> CallResult {
        let by = asked.by()?.clone();
        let new: NewUser = read(asked.headers, asked.body).await?;
        let roles = match &new.roles {
            Some(texts) => parse_roles(texts)?,
            None => self.default_roles.clone(),
        };
        let account = NewAccount {
            name: &new.username,
            email: new.email.as_deref(),
            password: &new.password,
            must_change_password: new.must_change_password,
            roles,
            attributes: new.attributes,
            release: new.release,
            allow_similar: new.allow_similar,
        };
        Ok(with_version(StatusCode::CREATED, self.operator.add(&by, account).await?))
    }

    pub(super) async fn update(&self, asked: Asked<'_>) -> CallResult {
        let (by, id) = (asked.by()?.clone(), asked.parameter(0));
        let expected = expected_version(asked.headers)?;
        let wanted: UserUpdate = read(asked.headers, asked.body).await?;
        let user = self.user(id).await?;
        let update = Update {
            roles: wanted.roles.as_deref().map(parse_roles).transpose()?,
            disabled: wanted.disabled,
            password: wanted.password,
            must_change_password: wanted.must_change_password,
            email: wanted.email,
            attributes: wanted.attributes,
            expected,
        };
        let empty = update.roles.is_none()
            && update.disabled.is_none()
            && update.password.is_none()
            && update.must_change_password.is_none()
            && update.email.is_none()
            && update.attributes.is_empty();
        if empty {
            return Err(Kind::MissingParameters.into());
        }
        self.operator.update(&by, &user, update).await?;
        Ok(with_version(StatusCode::OK, self.user(id).await?))
    }

    pub(super) async fn audit(&self, asked: Asked<'_>) -> CallResult {
        let query: AuditQuery = read_query(asked.query)?;
        let limit = limit(query.limit)?;
        let subject = match query.user.as_deref() {
            Some(id) => Some(UserId::parse(id).ok_or(Kind::MissingParameters)?),
            None => None,
        };
        let filter = AuditFilter { before: query.before, subject, limit: limit + 1 };
        let mut entries = self.operator.store.audit(&filter).await?;
        let more = entries.len() > limit as usize;
        entries.truncate(limit as usize);
        let next = entries.last().filter(|_| more).map(|entry| entry.seq);
        let entries = entries.into_iter().map(Into::into).collect();
        Ok(private_json(StatusCode::OK, &AuditTrail { entries, next }))
    }
}

/// An account, with the version that a conditional change of it names.
fn with_version(status: StatusCode, user: store::User) -> Response<Bytes> {
    let version = format!("\"{}\"", user.generation);
    let mut response = private_json(status, &User::from(user));
    if let Ok(version) = HeaderValue::try_from(version) {
        response.headers_mut().insert(header::ETAG, version);
    }
    response
}

/// The version in `If-Match` (RFC 9110, section 13.1.1); none where there is no such header, or `*`.
fn expected_version(headers: &HeaderMap) -> Result<Option<i64>, Failure> {
    let mut values = headers.get_all(header::IF_MATCH).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let text = value.to_str().ok().filter(|_| values.next().is_none()).map(str::trim);
    match text {
        Some("*") => Ok(None),
        // An ETag that this API did not issue matches no version.
        Some(tag) => {
            let version = tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"'));
            Ok(Some(version.and_then(|version| version.parse().ok()).unwrap_or(i64::MIN)))
        }
        None => Err(Kind::BadRequest.into()),
    }
}

pub(super) fn limit(asked: Option<u32>) -> Result<u32, Failure> {
    let limit = asked.unwrap_or(LIMIT);
    if (1..=MAX_LIMIT).contains(&limit) { Ok(limit) } else { Err(Kind::MissingParameters.into()) }
}

pub(super) fn parse_roles(texts: &[String]) -> Result<Roles, Failure> {
    Roles::parse_all(texts)
        .map_err(|error| Problem { detail: Some(error.to_string()), ..Kind::RoleNotAccepted.into() }.into())
}

pub(super) fn read_query<T: DeserializeOwned>(query: &str) -> Result<T, Failure> {
    // No name holds NUL, and PostgreSQL takes none.
    if query.contains("%00") {
        return Err(Kind::MissingParameters.into());
    }
    serde_urlencoded::from_str(query).map_err(|_| Kind::MissingParameters.into())
}

fn span_or(lifetime: Option<Lifetime>, default: Duration) -> Result<Duration, Failure> {
    match lifetime {
        Some(lifetime) => lifetime.span().ok_or_else(|| Kind::MissingParameters.into()),
        None => Ok(default),
    }
}

/// Reads the body of a request that may have none.
async fn read_optional<T: DeserializeOwned + Default>(
    headers: &HeaderMap,
    body: Incoming,
) -> Result<T, Failure> {
    if headers.contains_key(header::CONTENT_TYPE) { read(headers, body).await } else { Ok(T::default()) }
}

pub(super) async fn read<T: DeserializeOwned>(headers: &HeaderMap, body: Incoming) -> Result<T, Failure> {
    if !essence(headers).eq_ignore_ascii_case("application/json") {
        return Err(Kind::UnsupportedMediaType.into());
    }
    let collected = tokio::time::timeout(BODY_TIMEOUT, Limited::new(body, MAX_BODY).collect()).await;
    let body = match collected {
        Err(_) => return Err(Kind::RequestTimeout.into()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
            return Err(Kind::BodyTooLarge.into());
        }
        Ok(Err(_)) => return Err(Kind::BadRequest.into()),
        Ok(Ok(body)) => body.to_bytes(),
    };
    if body.trim_ascii_start().first() != Some(&b'{') {
        let json = serde_json::from_slice::<serde::de::IgnoredAny>(&body).is_ok();
        return Err(if json { Kind::MissingParameters } else { Kind::BadRequest }.into());
    }
    serde_json::from_slice(&body).map_err(|error| match error.classify() {
        serde_json::error::Category::Data => Kind::MissingParameters.into(),
        _ => Kind::BadRequest.into(),
    })
}

pub(super) fn done(message: &'static str) -> Response<Bytes> {
    private_json(StatusCode::OK, &Message { message })
}
