//! How rows of the store print: never what a thief of a log could use.

use std::fmt;

use super::{
    AccountChange, ImportedUser, NewInvitation, NewMail, NewSession, NewUser, RotationRequest, Session,
    Spend, User,
};

/// Prints the fields that are named, `***` for what is secret, and of the rest that there is more.
macro_rules! hides {
    ($($row:ident { $($shown:ident),* ; $($secret:ident),* })*) => {$(
        impl fmt::Debug for $row {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($row))
                    $(.field(stringify!($shown), &self.$shown))*
                    $(.field(stringify!($secret), &format_args!("***")))*
                    .finish_non_exhaustive()
            }
        }
    )*};
}

hides! {
    User { id, name, generation, disabled; password_hash }
    NewUser { id, name; password_hash }
    ImportedUser { id, name, foreign_scheme; password_hash }
    NewSession { id, most; refresh_hash, nonce }
    Session { id, user, generation, refresh_number; current_hash, previous_hash, nonce }
    RotationRequest { session; presented, successor, nonce }
    NewInvitation { id, roles, uses; token_hash }
    NewMail { id, user, purpose; token_hash }
    AccountChange { name, roles, disabled, delete, ends; password_hash }
    Spend { purpose; token_hash }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_prints_as_stars() {
        let change =
            AccountChange { password_hash: Some("$argon2id$x".to_owned()), ..AccountChange::default() };
        let printed = format!("{change:?}");
        assert!(printed.contains("password_hash: ***") && !printed.contains("argon2id"), "{printed}");
    }
}
