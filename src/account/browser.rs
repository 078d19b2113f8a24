//! People with browsers: their sessions are held by a cookie.

use std::net::IpAddr;

use http::HeaderValue;

use super::{
    Accounts, Client, Holder, Registration, Result, Tokens, claims, error::AccountError, login::Judged,
};
use crate::{
    error::Kind,
    store::{Event, Grant, Ttls, User},
    token::SignedIn,
    types::{Proof, Secret},
};

/// A browser's session, and whose it is.
#[derive(Debug)]
pub struct BrowserSession {
    /// The account, from the locked read.
    pub user: User,
    /// The value of `Set-Cookie`.
    pub cookie: HeaderValue,
    /// The token by which the device is known again, after a login.
    pub device: Option<String>,
    /// The token by which it is not asked for a factor for a while.
    pub remembered: Option<String>,
}

/// What a caller gets who has changed their own account.
#[derive(Debug)]
pub enum Changed {
    /// New tokens.
    Tokens(Box<Tokens>),
    /// A new cookie.
    Cookie(Box<BrowserSession>),
}

impl Accounts {
    pub(super) fn browser_ttls(&self, keep: bool) -> Ttls {
        let most = self.config.session_max_ttl;
        let session = match self.cookies.as_ref().map(|cookies| cookies.lifetimes()) {
            Some(cookies) if keep => cookies.remember.min(most),
            Some(cookies) => cookies.ttl.min(most),
            None => most,
        };
        // Its cookies are signed anew without a write, so each of them may live as long as the session.
        Ttls { access: session, refresh: session, session }
    }

    pub(super) async fn issue_cookie(&self, grant: Grant, keep: bool) -> Result<BrowserSession> {
        let cookies = self.cookies.as_ref().ok_or(AccountError::Refused(Kind::NotFound))?;
        let key = self.key_for(&grant).await?;
        let said = self.config.claims.of(&grant.user.profile());
        let cookie = cookies.issue(&claims(&grant, &said), keep, &key)?;
        Ok(BrowserSession { user: grant.user, cookie, device: None, remembered: None })
    }

    /// Steps up a browser's session by the password.
    ///
    /// # Errors
    /// [`AccountError`].
    pub async fn prove_again(
        &self,
        caller: &SignedIn,
        password: &Secret,
        address: IpAddr,
    ) -> Result<BrowserSession> {
        let me = self.me(caller).await?;
        match self.judge_password(&me, password, address).await? {
            Judged::Right => {}
            Judged::Wrong => return Err(AccountError::Refused(Kind::InvalidCredentials)),
        }
        self.step_up_browser(caller, &me, Proof::Password, address).await
    }

    /// Steps up a browser's session by a proof that was judged.
    pub(super) async fn step_up_browser(
        &self,
        caller: &SignedIn,
        me: &User,
        proof: Proof,
        address: IpAddr,
    ) -> Result<BrowserSession> {
        self.await_key().await?;
        let event = Event::own(me.id, address, "user.proof", format!("session: {}", caller.session));
        let step_up = self.step_up(caller, proof);
        let grant = self.store.reauthenticate_session(me.id, caller.generation, &step_up, &event).await?;
        // It ended meanwhile, or the account was changed.
        let grant = grant.ok_or(AccountError::Refused(Kind::Unauthenticated))?;
        self.issue_cookie(grant, caller.is_kept).await
    }

    /// Opens a browser's session after the password was verified. With `keep` the person is remembered.
    ///
    /// # Errors
    /// [`AccountError`], as those of a login.
    pub async fn sign_in(
        &self,
        username: &str,
        password: &Secret,
        keep: bool,
        client: Client<'_>,
    ) -> Result<BrowserSession> {
        let authenticated = self.authenticate(username, password, Holder::Browser { keep }, client).await?;
        let session = self.issue_cookie(authenticated.grant, keep).await?;
        let device = self.device_token(authenticated.device, session.user.generation);
        if let Some(rehash) = authenticated.rehash {
            self.rehash(rehash).await;
        }
        Ok(BrowserSession { device: Some(device), ..session })
    }

    /// Makes an account and its first session, which is a browser's.
    ///
    /// # Errors
    /// [`AccountError`].
    pub async fn register_browser(&self, wanted: Registration, client: Client<'_>) -> Result<BrowserSession> {
        let (grant, _) = self.admit(wanted, Holder::Browser { keep: false }, client).await?;
        let session = self.issue_cookie(grant, false).await?;
        let device = self.device_tokens.new_device(session.user.id);
        let device = self.device_token(device, session.user.generation);
        Ok(BrowserSession { device: Some(device), ..session })
    }
}
