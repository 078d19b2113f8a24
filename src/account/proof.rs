//! Recent proofs of a caller's identity.

use super::{AccountError, Accounts, Holder, Result};
use crate::{
    clock::millis,
    error::{Kind, Unproved},
    store::{StepUp, User},
    token::SignedIn,
    types::Proof,
};

impl Accounts {
    /// Requires a recent proof of the caller's identity: by a factor if the account has one.
    ///
    /// # Errors
    /// [`AccountError::Unproved`].
    pub async fn need_proof(&self, caller: &SignedIn, me: &User) -> Result<()> {
        if self.has_proof(caller, me).await? {
            return Ok(());
        }
        let max_age = u32::try_from(self.config.reauth_window.as_secs()).ok();
        Err(AccountError::Unproved(Unproved { needs_factors: me.has_factors, max_age }))
    }

    /// Returns whether there is such a proof.
    pub(super) async fn has_proof(&self, caller: &SignedIn, me: &User) -> Result<bool> {
        let session = self.store.session(caller.session).await?;
        let session = session.ok_or(AccountError::Refused(Kind::Unauthenticated))?;
        // A login that is yet to come is no recent one: the clock was set back.
        let since = self.time.now().time - session.authenticated_at;
        let is_recent = (0..=millis(self.config.reauth_window)).contains(&since);
        Ok(is_recent && (!me.has_factors || session.proofs.has_factor()))
    }

    /// Returns whether the caller has proved their identity recently.
    ///
    /// # Errors
    /// [`AccountError`].
    pub async fn has_recent_proof(&self, caller: &SignedIn) -> Result<bool> {
        let me = self.me(caller).await?;
        self.has_proof(caller, &me).await
    }

    /// Requires a recent proof before the caller may change how they sign in.
    ///
    /// # Errors
    /// [`AccountError::Unproved`] without a recent proof.
    pub async fn may_change(&self, caller: &SignedIn) -> Result<()> {
        let me = self.me(caller).await?;
        self.need_proof(caller, &me).await
    }

    /// Returns the step-up of the caller's session by a proof.
    pub(super) fn step_up(&self, caller: &SignedIn, proof: Proof) -> StepUp {
        let ttls = match caller.holder() {
            Holder::Tokens => self.ttls(),
            Holder::Browser { keep } => self.browser_ttls(keep),
        };
        StepUp { session: caller.session, proof, ttls, refresh: None }
    }
}
