//! Decides what a change of an account does.

use crate::{
    clock::UnixMillis,
    store::{AccountChange, Change, Ends, LogEntry, Purpose, Rekey, Revoked, Session, User},
    types::{Proofs, Role, SessionId, UserId, Username},
};

/// The state of the account, read under its lock. Fields that the change does not depend on may have any value.
#[derive(Debug, Clone)]
pub(in crate::store) struct Facts {
    /// The account.
    pub(in crate::store) user: User,
    /// Whether the account's row has the skeleton of its name. One that was allowed to be similar has another.
    pub(in crate::store) holds_look: bool,
    /// The latest expiry of any of its access tokens.
    pub(in crate::store) access_exp_max: UnixMillis,
    /// The session to be kept, if the change keeps one.
    pub(in crate::store) session: Option<Session>,
    /// Whether there is another administrator that is not disabled.
    pub(in crate::store) has_other_admin: bool,
    /// Whether the new name or its skeleton belongs or belonged to another account.
    pub(in crate::store) name_is_taken: bool,
    /// Whether the mail token is valid.
    pub(in crate::store) token_holds: bool,
    /// Whether the address to be verified is verified for another account.
    pub(in crate::store) address_is_taken: bool,
    /// The current time.
    pub(in crate::store) now: UnixMillis,
}

/// The effects of a change that do not follow from it alone.
#[derive(Debug)]
pub(in crate::store) struct Plan<'a> {
    /// The account's new generation.
    pub(in crate::store) generation: i64,
    /// The entry for the revocation log.
    pub(in crate::store) entry: Option<LogEntry>,
    /// The account's new name.
    pub(in crate::store) renamed: Option<&'a Username>,
    /// The account's former name, to be retired.
    pub(in crate::store) retired: Option<Retired>,
    /// The change of its addresses.
    pub(in crate::store) address: Address<'a>,
    /// The session that is kept.
    pub(in crate::store) rekeyed: Option<Rekeyed<'a>>,
}

/// A retired name. Only its holder may take it again.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::store) struct Retired {
    pub(in crate::store) skeleton: String,
    pub(in crate::store) name: String,
    pub(in crate::store) holder: Option<UserId>,
}

/// A change of an account's addresses.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::store) enum Address<'a> {
    /// Keeps them.
    Keep,
    /// Replaces all by this unverified one, or removes all.
    Replace(Option<&'a str>),
    /// Sets or removes the pending address.
    Await(Option<&'a str>),
    /// Verifies the pending address, or the account's own if none is pending.
    Verify { was_waiting: bool },
}

/// A session that is kept, with its new expiries.
#[derive(Debug)]
pub(in crate::store) struct Rekeyed<'a> {
    pub(in crate::store) rekey: &'a Rekey,
    /// The expiry of its new access token.
    pub(in crate::store) access_end: UnixMillis,
    /// The expiry of its new refresh token.
    pub(in crate::store) refresh_end: UnixMillis,
    /// The end of the session.
    pub(in crate::store) ends_at: UnixMillis,
    /// When its holder last showed who they are: by a password alone only where there is no factor.
    pub(in crate::store) authenticated_at: UnixMillis,
    /// How they have.
    pub(in crate::store) proofs: Proofs,
}

impl AccountChange {
    /// Returns the session to be kept.
    pub(in crate::store) fn rekey(&self) -> Option<&Rekey> {
        match &self.ends {
            Ends::Others(rekey) if !self.delete => Some(rekey),
            Ends::Others(_) | Ends::All | Ends::Nothing => None,
        }
    }

    /// Returns the new name if it differs from the current one.
    pub(in crate::store) fn new_name(&self, user: &User) -> Option<&Username> {
        self.name.as_ref().filter(|name| **name != user.name && !self.delete)
    }

    /// Returns whether the change must be refused without another administrator.
    pub(in crate::store) fn may_take_the_last_admin(&self, user: &User) -> bool {
        let loses = self.delete
            || self.disabled == Some(true)
            || self.roles.as_ref().is_some_and(|roles| !roles.contains(Role::ADMIN));
        self.keep_last_admin && loses && user.roles.contains(Role::ADMIN) && !user.disabled
    }

    /// Returns whether sessions end. Only a change of addresses may end none: tokens show the name, the roles and attributes, and a
    /// password that is changed may be known to a thief.
    fn ends_sessions(&self) -> bool {
        let changes_more = self.delete
            || self.name.is_some()
            || self.password_hash.is_some()
            || self.must_change_password.is_some()
            || self.roles.is_some()
            || self.disabled.is_some()
            || !self.attributes.is_empty();
        changes_more || !matches!(self.ends, Ends::Nothing)
    }

    /// Returns whether the password is chosen by whoever read a mail.
    pub(in crate::store) fn is_by_mail(&self) -> bool {
        self.spends.is_some_and(|spend| spend.purpose == Purpose::ResetPassword)
    }

    /// Returns whether the change verifies an address by a mail token.
    pub(in crate::store) fn verifies(&self) -> bool {
        self.spends.is_some_and(|spend| spend.purpose == Purpose::VerifyEmail)
    }
}

/// Returns whether any of these joined role lists contains `admin`.
pub(in crate::store) fn any_admin(joined: &[String]) -> bool {
    joined.iter().any(|roles| roles.split(',').any(|role| role == Role::ADMIN))
}

/// Decides what a change does.
///
/// # Errors
/// The refusal.
pub(in crate::store) fn plan<'a>(change: &'a AccountChange, facts: &'a Facts) -> Result<Plan<'a>, Change> {
    let user = &facts.user;
    let session = own_session(change, facts)?;
    if change.expected_generation.is_some_and(|expected| expected != user.generation) {
        return Err(Change::Conflict);
    }
    if change.may_take_the_last_admin(user) && !facts.has_other_admin {
        return Err(Change::LastAdmin);
    }
    let renamed = change.new_name(user);
    if renamed.is_some() && facts.name_is_taken {
        return Err(Change::NameTaken);
    }
    if change.spends.is_some() && !facts.token_holds {
        return Err(Change::Gone);
    }
    if change.verifies() && facts.address_is_taken {
        return Err(Change::AddressTaken);
    }
    let ends = change.ends_sessions();
    let generation = user.generation + i64::from(ends);
    let revoked = Revoked::User(user.id);
    let look_is_given_up =
        change.delete || renamed.is_some_and(|name| name.skeleton() != user.name.skeleton());
    let retired = (look_is_given_up && facts.holds_look).then(|| Retired {
        skeleton: user.name.skeleton(),
        name: user.name.to_string(),
        holder: (!change.delete).then_some(user.id),
    });
    Ok(Plan {
        generation,
        entry: ends.then(|| LogEntry::new(revoked, generation, facts.access_exp_max, facts.now)),
        renamed,
        retired,
        address: address(change, user),
        rekeyed: session.map(|(rekey, session)| Rekeyed {
            rekey,
            access_end: rekey.session.ttls.access_end(facts.now),
            refresh_end: rekey.session.ttls.refresh_end(facts.now, session.ends_at),
            ends_at: session.ends_at,
            authenticated_at: if rekey.authenticated && !user.has_factors {
                facts.now
            } else {
                session.authenticated_at
            },
            proofs: session.proofs,
        }),
    })
}

/// Returns the session to be kept, if the change keeps one.
fn own_session<'a>(
    change: &'a AccountChange,
    facts: &'a Facts,
) -> Result<Option<(&'a Rekey, &'a Session)>, Change> {
    let Some(rekey) = change.rekey() else { return Ok(None) };
    let is_its = |session: &&Session| {
        session.id == rekey.session.id
            && session.user == facts.user.id
            && session.generation == facts.user.generation
    };
    facts.session.as_ref().filter(is_its).map(|session| Some((rekey, session))).ok_or(Change::Gone)
}

fn address<'a>(change: &'a AccountChange, user: &User) -> Address<'a> {
    match &change.email {
        Some(Some(email)) if change.email_pending && user.email_verified => {
            // The current address removes the pending one.
            Address::Await(Some(email.as_str()).filter(|email| user.email.as_deref() != Some(*email)))
        }
        Some(email) => Address::Replace(email.as_deref()),
        None if change.verifies() => Address::Verify { was_waiting: user.pending_email.is_some() },
        // A thief may have added it before the owner recovered the account.
        None if change.password_hash.is_some() && !change.email_pending => Address::Await(None),
        None => Address::Keep,
    }
}

impl Rekeyed<'_> {
    /// Returns the id of the session.
    pub(in crate::store) fn id(&self) -> SessionId {
        self.rekey.session.id
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        store::{
            NewSession, Place, SessionKind, Spend, Ttls,
            tests::{a_session, a_user},
        },
        types::Roles,
    };

    fn facts(roles: &str) -> Facts {
        Facts {
            user: User { roles: Roles::parse_joined(roles).unwrap(), ..a_user() },
            holds_look: true,
            access_exp_max: 5_000_000,
            session: None,
            has_other_admin: false,
            name_is_taken: false,
            token_holds: false,
            address_is_taken: false,
            now: 1_000,
        }
    }

    fn change() -> AccountChange {
        AccountChange::default()
    }

    fn rekey(id: SessionId) -> Rekey {
        let hour = std::time::Duration::from_secs(3_600);
        let session = NewSession {
            id,
            kind: SessionKind::Token,
            proofs: Proofs::PASSWORD,
            is_remembered: false,
            place: Place::default(),
            refresh_hash: [3; 32],
            nonce: [3; 16],
            ttls: Ttls { access: hour, refresh: hour, session: hour },
            most: 1,
        };
        Rekey { session, authenticated: true }
    }

    #[test]
    fn a_change_raises_the_generation_and_writes_an_entry_unless_nothing_ends_with_it() {
        let facts = facts("user");
        let all = change();
        let plan_all = plan(&all, &facts).unwrap();
        assert_eq!(plan_all.generation, facts.user.generation + 1);
        let entry = plan_all.entry.unwrap();
        assert_eq!((entry.revoked, entry.generation), (Revoked::User(facts.user.id), plan_all.generation));
        assert!(entry.expires_at > 5_000_000);
        let nothing = AccountChange { ends: Ends::Nothing, ..change() };
        let plan_nothing = plan(&nothing, &facts).unwrap();
        assert_eq!((plan_nothing.generation, plan_nothing.entry), (facts.user.generation, None));
        for more in [
            AccountChange { delete: true, ..nothing.clone() },
            AccountChange { disabled: Some(true), ..nothing.clone() },
            AccountChange { password_hash: Some("h".to_owned()), ..nothing },
        ] {
            assert!(plan(&more, &facts).unwrap().entry.is_some(), "{more:?}");
        }
    }

    #[test]
    fn the_last_administrator_is_kept_where_that_is_asked_for() {
        let (alone, mut two) = (facts("admin"), facts("admin"));
        two.has_other_admin = true;
        let demoted = || Some(Roles::parse_joined("user").unwrap());
        for taken in [
            AccountChange { delete: true, ..change() },
            AccountChange { disabled: Some(true), ..change() },
            AccountChange { roles: demoted(), ..change() },
        ] {
            let kept = AccountChange { keep_last_admin: true, ..taken.clone() };
            assert!(matches!(plan(&kept, &alone), Err(Change::LastAdmin)));
            assert!(plan(&kept, &two).is_ok() && plan(&taken, &alone).is_ok());
            assert!(plan(&kept, &facts("user")).is_ok());
        }
    }

    #[test]
    fn a_former_name_is_retired_for_its_holder_and_for_everybody_once_the_account_is_gone() {
        let facts = facts("user");
        let renamed = AccountChange { name: Some(Username::new("bob").unwrap()), ..change() };
        let retired = plan(&renamed, &facts).unwrap().retired.unwrap();
        assert_eq!((retired.name.as_str(), retired.holder), ("alice", Some(facts.user.id)));
        let deleted = AccountChange { delete: true, ..change() };
        assert_eq!(plan(&deleted, &facts).unwrap().retired.unwrap().holder, None);
        let shared = Facts { holds_look: false, ..facts };
        assert_eq!(plan(&deleted, &shared).unwrap().retired, None);
        let taken = Facts { name_is_taken: true, ..shared };
        assert!(matches!(plan(&renamed, &taken), Err(Change::NameTaken)));
    }

    #[test]
    fn a_new_address_waits_beside_a_verified_one_and_otherwise_takes_its_place() {
        let given = |pending| AccountChange {
            email: Some(Some("b@x".to_owned())),
            email_pending: pending,
            ..change()
        };
        let unverified = facts("user");
        let mut verified = unverified.clone();
        verified.user.email_verified = true;
        let address =
            |change: &AccountChange, facts: &Facts| format!("{:?}", plan(change, facts).unwrap().address);
        assert_eq!(address(&given(true), &verified), r#"Await(Some("b@x"))"#);
        assert_eq!(address(&given(true), &unverified), r#"Replace(Some("b@x"))"#);
        assert_eq!(address(&given(false), &verified), r#"Replace(Some("b@x"))"#);
        verified.user.email = Some("b@x".to_owned());
        assert_eq!(address(&given(true), &verified), "Await(None)", "it takes back what was waiting");
        let recovered = AccountChange { password_hash: Some("h".to_owned()), ..change() };
        assert_eq!(address(&recovered, &verified), "Await(None)");
        let changed = AccountChange { email_pending: true, ..recovered };
        assert_eq!(address(&changed, &verified), "Keep");
    }

    #[test]
    fn a_mails_token_allows_what_it_was_for_if_it_holds() {
        let spends = |purpose| Some(Spend { purpose, token_hash: [1; 32] });
        let verify = AccountChange { spends: spends(Purpose::VerifyEmail), ends: Ends::Nothing, ..change() };
        assert!(matches!(plan(&verify, &facts("user")), Err(Change::Gone)));
        let holds = Facts { token_holds: true, ..facts("user") };
        assert_eq!(plan(&verify, &holds).unwrap().address, Address::Verify { was_waiting: false });
        let taken = Facts { address_is_taken: true, ..holds };
        assert!(matches!(plan(&verify, &taken), Err(Change::AddressTaken)));
        let reset = AccountChange { spends: spends(Purpose::ResetPassword), ..change() };
        assert!(plan(&reset, &taken).is_ok());
    }

    #[test]
    fn a_change_for_another_state_of_the_account_is_a_conflict_and_one_without_its_session_is_none() {
        let facts = facts("user");
        let expected = AccountChange { expected_generation: Some(99), ..change() };
        assert!(matches!(plan(&expected, &facts), Err(Change::Conflict)));
        let own = a_session(&facts.user);
        let kept = AccountChange { ends: Ends::Others(Box::new(rekey(own.id))), ..change() };
        let with = |session| Facts { session, ..facts.clone() };
        assert!(matches!(plan(&kept, &with(None)), Err(Change::Gone)));
        let older = Session { generation: facts.user.generation - 1, ..own.clone() };
        assert!(matches!(plan(&kept, &with(Some(older))), Err(Change::Gone)));
        let of_another = Session { user: a_user().id, ..own.clone() };
        assert!(matches!(plan(&kept, &with(Some(of_another))), Err(Change::Gone)));
        assert_eq!(plan(&kept, &with(Some(own.clone()))).unwrap().rekeyed.unwrap().id(), own.id);
    }
}
