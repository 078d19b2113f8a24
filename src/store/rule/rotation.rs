//! Decides what a presented refresh token does.

use std::time::Duration;

use crate::{
    clock::{UnixMillis, millis},
    store::{Session, SessionKind, User},
};

/// The effect of a refresh token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) enum Plan {
    /// The token is replaced.
    Rotate,
    /// The token was replaced a moment ago. The response is the same as then.
    Replay,
    /// The token was used before, and may be stolen. The session ends.
    EndSession,
    /// The token is refused.
    Refuse,
}

/// In place of a nonce: the token before this one has no successor, since another one took its place when its holder showed anew who they
/// are.
pub(in crate::store) const NO_SUCCESSOR: [u8; 16] = [0; 16];

/// Decides about a genuine refresh token, under the row locks.
pub(in crate::store) fn plan(
    session: &Session,
    user: &User,
    presented: &[u8; 32],
    now: UnixMillis,
    grace: Duration,
) -> Plan {
    if session.kind != SessionKind::Token || user.disabled || session.generation != user.generation {
        return Plan::Refuse;
    }
    if now >= session.refresh_expires_at || now >= session.ends_at {
        return Plan::Refuse;
    }
    if session.current_hash == *presented {
        return Plan::Rotate;
    }
    // Its holder got another one in its place, and may not have heard of it.
    if session.previous_hash.as_ref() == Some(presented) && session.nonce == NO_SUCCESSOR {
        return Plan::Refuse;
    }
    let within_grace = now <= session.rotated_at + millis(grace);
    if session.previous_hash.as_ref() == Some(presented) && within_grace {
        return Plan::Replay;
    }
    // A change of the account has replaced the token, and another tab of the client may still use the old one.
    if session.previous_hash.is_none() && within_grace {
        return Plan::Refuse;
    }
    Plan::EndSession
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::{a_session, a_user};

    const GRACE: Duration = Duration::from_secs(30);

    #[test]
    fn a_token_rotates_once_replays_within_the_grace_and_then_ends_the_session() {
        let user = a_user();
        let session = a_session(&user);
        let at = |token: u8, now| plan(&session, &user, &[token; 32], now, GRACE);
        assert_eq!((at(2, 0), at(2, 499_999), at(2, 500_000)), (Plan::Rotate, Plan::Rotate, Plan::Refuse));
        assert_eq!((at(1, 130_000), at(1, 130_001)), (Plan::Replay, Plan::EndSession));
        assert_eq!(at(9, 110_000), Plan::EndSession);
    }

    #[test]
    fn a_token_whose_holder_got_another_by_a_proof_is_refused_and_ends_nothing() {
        let user = a_user();
        let session = Session { nonce: NO_SUCCESSOR, ..a_session(&user) };
        for now in [100_000, 130_000, 400_000] {
            assert_eq!(plan(&session, &user, &[1; 32], now, GRACE), Plan::Refuse);
        }
        assert_eq!(plan(&session, &user, &[9; 32], 110_000, GRACE), Plan::EndSession);
    }

    #[test]
    fn a_token_of_the_time_before_a_change_is_refused_for_a_while_and_ends_the_session_later() {
        let user = a_user();
        let session = Session { previous_hash: None, ..a_session(&user) };
        let at = |now| plan(&session, &user, &[1; 32], now, GRACE);
        assert_eq!((at(130_000), at(130_001)), (Plan::Refuse, Plan::EndSession));
    }

    #[test]
    fn a_session_of_another_generation_or_kind_and_one_of_a_disabled_account_refresh_nothing() {
        let user = a_user();
        let live = a_session(&user);
        let refused = |session: &Session, user: &User| {
            assert_eq!(plan(session, user, &[2; 32], 0, GRACE), Plan::Refuse);
        };
        refused(&live, &User { disabled: true, ..user.clone() });
        refused(&live, &User { generation: user.generation + 1, ..user.clone() });
        refused(&Session { kind: SessionKind::Browser, ..live.clone() }, &user);
        refused(&Session { ends_at: 0, ..live.clone() }, &user);
    }
}
