//! What holds of a session whatever the database.

use crate::{
    clock::UnixMillis,
    store::{NewSession, Session, User},
    types::Proof,
};

/// Returns whether a session of an account may be opened: it is as it was when its owner showed who they are, and where it has a factor
/// that was shown, or the device is one where it was.
pub(in crate::store) fn may_be_opened(user: &User, generation: i64, session: &NewSession) -> bool {
    let is_proved = !user.has_factors || session.proofs.has_factor() || session.is_remembered;
    !user.disabled && user.generation == generation && is_proved
}

/// Returns whether a session may be stepped up.
pub(in crate::store) fn may_be_reauthenticated(
    user: &User,
    session: &Session,
    generation: i64,
    proof: Proof,
    now: UnixMillis,
) -> bool {
    // Where there is a factor, a password alone is no new proof.
    if user.has_factors && proof == Proof::Password {
        return false;
    }
    let is_theirs = session.user == user.id && session.generation == generation;
    is_theirs && !user.disabled && user.generation == generation && now < session.ends_at
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::{a_session, a_user};

    #[test]
    fn a_session_of_another_generation_or_at_its_end_is_not_reauthenticated() {
        let user = a_user();
        let session = a_session(&user);
        let may = |user: &User, session: &Session, now| {
            may_be_reauthenticated(user, session, user.generation, Proof::Password, now)
        };
        assert!(may(&user, &session, session.ends_at - 1));
        assert!(!may(&user, &session, session.ends_at));
        assert!(!may(&User { disabled: true, ..user.clone() }, &session, 0));
        assert!(!may(&User { generation: user.generation + 1, ..user.clone() }, &session, 0));
        assert!(!may_be_reauthenticated(&user, &session, user.generation - 1, Proof::Password, 0));
        assert!(!may(&a_user(), &session, 0));
        let with_factors = User { has_factors: true, ..user.clone() };
        assert!(!may(&with_factors, &session, 0));
        assert!(may_be_reauthenticated(&with_factors, &session, user.generation, Proof::Code, 0));
    }
}
