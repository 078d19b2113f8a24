//! What holds of a session whatever the database.

use crate::{
    clock::UnixMillis,
    store::{Session, User},
};

/// Returns whether the holder of a session may show anew who they are, and go on with it.
pub(in crate::store) fn may_be_reauthenticated(
    user: &User,
    session: &Session,
    generation: i64,
    now: UnixMillis,
) -> bool {
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
        let may =
            |user: &User, session: &Session, now| may_be_reauthenticated(user, session, user.generation, now);
        assert!(may(&user, &session, session.ends_at - 1));
        assert!(!may(&user, &session, session.ends_at));
        assert!(!may(&User { disabled: true, ..user.clone() }, &session, 0));
        assert!(!may(&User { generation: user.generation + 1, ..user.clone() }, &session, 0));
        assert!(!may_be_reauthenticated(&user, &session, user.generation - 1, 0));
        assert!(!may(&a_user(), &session, 0));
    }
}
