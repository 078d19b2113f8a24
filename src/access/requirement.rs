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
    let is_enough = match &requirements.roles {
        None => true,
        Some(RoleRule::Any(any)) => any.iter().any(|role| caller.roles.contains(role.as_str())),
        Some(RoleRule::All(all)) => all.iter().all(|role| caller.roles.contains(role.as_str())),
    };
    if is_enough { Ok(()) } else { Err(Denied::Role) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(access: &Access, roles: Option<&str>) -> Result<(), Denied> {
        let roles = roles.map(|roles| Roles::parse_joined(roles).unwrap());
        judge(access, roles.as_ref().map(|roles| Caller { roles }))
    }

    #[test]
    fn any_of_the_roles_or_all_of_them_are_required_of_a_signed_in_caller() {
        let roles = || Roles::parse_joined("a,b").unwrap().iter().cloned().collect();
        let any = Access::SignedIn(Requirements { roles: Some(RoleRule::Any(roles())) });
        let all = Access::SignedIn(Requirements { roles: Some(RoleRule::All(roles())) });
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
}
