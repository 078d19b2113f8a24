//! Checks a caller against the rule of a route. The same function serves requests and `authgate explain`.

use super::Denied;
use crate::{
    config::{Access, Requirements, RoleRule},
    types::Roles,
};

/// The attributes of a caller that rules refer to.
#[derive(Debug, Clone, Copy)]
pub struct Caller<'a> {
    /// Their roles.
    pub roles: &'a Roles,
    /// How long ago they showed who they are, in seconds.
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
    match requirements.fresh.map(|fresh| fresh.as_secs()) {
        Some(fresh) if i64::try_from(fresh).is_ok_and(|fresh| caller.proved > fresh) => {
            Err(Denied::NotFresh { max_age: fresh })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(access: &Access, roles: Option<&str>) -> Result<(), Denied> {
        let roles = roles.map(|roles| Roles::parse_joined(roles).unwrap());
        judge(access, roles.as_ref().map(|roles| Caller { roles, proved: 301 }))
    }

    #[test]
    fn any_of_the_roles_or_all_of_them_are_required_of_a_signed_in_caller() {
        let roles = || Roles::parse_joined("a,b").unwrap().iter().cloned().collect();
        let any = Access::SignedIn(Requirements { roles: Some(RoleRule::Any(roles())), fresh: None });
        let all = Access::SignedIn(Requirements { roles: Some(RoleRule::All(roles())), fresh: None });
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
        let fresh = |age| Access::SignedIn(Requirements { roles: None, fresh: Some(seconds(age)) });
        assert_eq!(judged(&fresh(301), Some("a")), Ok(()));
        assert_eq!(judged(&fresh(300), Some("a")), Err(Denied::NotFresh { max_age: 300 }));
        assert_eq!(judged(&fresh(301), None), Err(Denied::NoToken));
        let staff = "staff".parse().unwrap();
        let both = Requirements { roles: Some(RoleRule::Any(vec![staff])), fresh: Some(seconds(1)) };
        assert_eq!(judged(&Access::SignedIn(both), Some("a")), Err(Denied::Role));
    }
}
