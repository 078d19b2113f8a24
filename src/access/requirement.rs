//! Checks a caller against the rule of a route. The same function serves requests and `authgate explain`.

use super::Denied;
use crate::{
    config::{Access, Requirements, RoleRule},
    error::Unproved,
    types::{Proofs, Roles},
};

/// The attributes of a caller that rules refer to.
#[derive(Debug, Clone, Copy)]
pub struct Caller<'a> {
    /// Their roles.
    pub roles: &'a Roles,
    /// How they have shown who they are.
    pub proofs: Proofs,
    /// How long ago that was, in seconds.
    pub proved: i64,
}

/// Checks whether a caller may use a route. `None` is an anonymous caller.
///
/// # Errors
/// The missing requirement.
pub fn judge(access: &Access, caller: Option<Caller<'_>>) -> Result<(), Denied> {
    match (access, caller) {
        (Access::Open | Access::Optional, _) => Ok(()),
        (Access::SignedIn(_), None) => Err(Denied::NoToken),
        (Access::SignedIn(requirements), Some(caller)) => meets(requirements, caller),
    }
}

fn meets(requirements: &Requirements, caller: Caller<'_>) -> Result<(), Denied> {
    let has_roles = match &requirements.roles {
        None => true,
        Some(RoleRule::Any(any)) => any.iter().any(|role| caller.roles.contains(role.as_str())),
        Some(RoleRule::All(all)) => all.iter().all(|role| caller.roles.contains(role.as_str())),
    };
    // No proof makes up for a role.
    if !has_roles {
        return Err(Denied::Role);
    }
    let fresh = requirements.fresh.map(|fresh| u32::try_from(fresh.as_secs()).unwrap_or(u32::MAX));
    let is_aged = fresh.is_some_and(|fresh| caller.proved > i64::from(fresh));
    let lacks_factors = requirements.mfa && !caller.proofs.is_multi_factor();
    if is_aged || lacks_factors {
        // Both are told, so that one proof is enough.
        return Err(Denied::Unproved(Unproved { needs_factors: requirements.mfa, max_age: fresh }));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Proof;

    fn unproved(needs_factors: bool, max_age: Option<u32>) -> Denied {
        Denied::Unproved(Unproved { needs_factors, max_age })
    }

    fn judged(access: &Access, roles: Option<&str>) -> Result<(), Denied> {
        let roles = roles.map(|roles| Roles::parse_joined(roles).unwrap());
        let caller = |roles| Caller { roles, proofs: Proofs::PASSWORD, proved: 301 };
        judge(access, roles.as_ref().map(caller))
    }

    #[test]
    fn any_of_the_roles_or_all_of_them_are_required_of_a_signed_in_caller() {
        let roles = || Roles::parse_joined("a,b").unwrap().iter().cloned().collect();
        let any =
            Access::SignedIn(Requirements { roles: Some(RoleRule::Any(roles())), ..Requirements::default() });
        let all =
            Access::SignedIn(Requirements { roles: Some(RoleRule::All(roles())), ..Requirements::default() });
        let signed_in = Access::SignedIn(Requirements::default());
        for access in [&any, &all, &signed_in] {
            assert_eq!(judged(access, None), Err(Denied::NoToken));
            assert_eq!(judged(access, Some("a,b,c")), Ok(()));
        }
        assert_eq!(judged(&any, Some("b")), Ok(()));
        assert_eq!(judged(&any, Some("c")), Err(Denied::Role));
        assert_eq!(judged(&all, Some("b")), Err(Denied::Role));
        assert_eq!(judged(&signed_in, Some("c")), Ok(()));
        assert_eq!((judged(&Access::Open, None), judged(&Access::Optional, None)), (Ok(()), Ok(())));
    }

    #[test]
    fn a_proof_must_be_recent_where_a_route_says_so_and_is_no_role() {
        let seconds = std::time::Duration::from_secs;
        let fresh =
            |age| Access::SignedIn(Requirements { fresh: Some(seconds(age)), ..Requirements::default() });
        assert_eq!(judged(&fresh(301), Some("a")), Ok(()));
        assert_eq!(judged(&fresh(300), Some("a")), Err(unproved(false, Some(300))));
        assert_eq!(judged(&fresh(301), None), Err(Denied::NoToken));
        let staff = "staff".parse().unwrap();
        let both = Requirements {
            roles: Some(RoleRule::Any(vec![staff])),
            fresh: Some(seconds(1)),
            ..Requirements::default()
        };
        assert_eq!(judged(&Access::SignedIn(both), Some("a")), Err(Denied::Role));
    }

    #[test]
    fn two_factors_are_required_where_a_route_says_so() {
        let second = std::time::Duration::from_secs(1);
        let rule = |fresh| Access::SignedIn(Requirements { mfa: true, fresh, ..Requirements::default() });
        assert_eq!(judged(&rule(None), Some("a")), Err(unproved(true, None)));
        assert_eq!(judged(&rule(Some(second)), Some("a")), Err(unproved(true, Some(1))));
        let roles = Roles::default();
        let by = |proof, proved| Caller { roles: &roles, proofs: Proofs::PASSWORD.with(proof), proved };
        assert_eq!(judge(&rule(None), Some(by(Proof::Code, 999))), Ok(()));
        assert_eq!(judge(&rule(Some(second)), Some(by(Proof::Code, 2))), Err(unproved(true, Some(1))));
        assert_eq!(judge(&rule(Some(second)), Some(by(Proof::Code, 1))), Ok(()));
    }
}
