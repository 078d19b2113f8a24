//! Decides whether a name can be given to a new account, and by which skeleton.

use crate::store::NewUser;

/// Returns the skeleton for the row of a new account. One that may be similar to another gets a skeleton of its own if the
/// name's is taken, so that it stays the other account's.
pub(in crate::store) fn skeleton(new: &NewUser, is_taken: bool) -> String {
    if new.similar && is_taken { new.name.own_skeleton(new.id) } else { new.name.skeleton() }
}

/// Returns whether a new account is refused because its name is retired.
pub(in crate::store) fn is_refused(new: &NewUser, is_retired: bool) -> bool {
    is_retired && !new.release
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::a_user;

    fn new(similar: bool, release: bool) -> NewUser {
        let user = a_user();
        NewUser { similar, release, ..NewUser::new(user.id, user.name, user.roles) }
    }

    #[test]
    fn a_name_that_looks_like_anothers_leaves_its_skeleton_to_that_one() {
        let (plain, similar) = (new(false, false), new(true, false));
        assert_eq!(skeleton(&plain, true), plain.name.skeleton());
        assert_eq!(skeleton(&similar, false), similar.name.skeleton());
        assert_eq!(skeleton(&similar, true), similar.name.own_skeleton(similar.id));
    }

    #[test]
    fn a_retired_name_is_given_out_again_only_where_it_is_released() {
        assert!(is_refused(&new(false, false), true));
        assert!(!is_refused(&new(false, true), true) && !is_refused(&new(false, false), false));
    }
}
