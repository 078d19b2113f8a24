//! A page of each kind, empty and full, with texts of strangers in it.

use super::*;
use crate::{account::AccountError, error::Kind};

pub(in crate::pages) const HOSTILE: &str =
    "<script>alert('x')</script>\"><img src=x onerror=alert(1)>{{ 7*7 }}";

fn form() -> Form {
    let return_to = Some(format!("/a?b={HOSTILE}"));
    Form { token: "token".to_owned(), return_to, query: "?return_to=%2Fa".to_owned() }
}

fn wrong() -> Wrong {
    Wrong::of(Message::of(&AccountError::Refused(Kind::InvalidCredentials), "username"))
}

fn hostile() -> String {
    HOSTILE.to_owned()
}

/// Calls `render` with each of them.
pub(in crate::pages) fn each(
    mut render: impl FnMut(&dyn Fn(&crate::pages::template::Templates, usize) -> String),
) {
    macro_rules! each {
        ($($page:expr),* $(,)?) => {
            $({
                let page = $page;
                render(&|templates, language| templates.render(&page, language).unwrap());
            })*
        };
    }
    each!(
        Login::default(),
        Login {
            form: form(),
            wrong: wrong(),
            username: hostile(),
            remember: true,
            by_email: true,
            has_mail: true,
            is_open: true,
            takes_passkeys: true,
            providers: vec![ProviderButton { title: hostile(), address: hostile() }],
            notice: Some("challenge-ended"),
            signed_in_as: Some(hostile()),
            continue_to: "/".to_owned(),
        },
        Register::default(),
        Register { is_closed: true, ..Register::default() },
        Register {
            form: form(),
            invitation: hostile(),
            is_closed: false,
            wrong: wrong(),
            username: hostile(),
            email: hostile(),
            min_length: 15,
            providers: vec![ProviderButton { title: hostile(), address: hostile() }],
        },
        Providers::default(),
        Providers {
            form: form(),
            wrong: Wrong::of(last_link()),
            notice: Some("saved-linked"),
            links: vec![LinkEntry {
                id: hostile(),
                title: hostile(),
                label: hostile(),
                created_on: hostile()
            }],
            buttons: vec![ProviderButton { title: hostile(), address: hostile() }],
        },
        Forgot::default(),
        Forgot { form: form(), has_mail: true, wrong: wrong(), email: hostile(), is_done: false },
        Forgot { has_mail: true, is_done: true, ..Forgot::default() },
        Reset::default(),
        Reset {
            form: form(),
            wrong: wrong(),
            token: hostile(),
            account: hostile(),
            min_length: 15,
            is_done: false
        },
        Reset { is_done: true, ..Reset::default() },
        Verify::default(),
        Verify { form: form(), wrong: wrong(), token: hostile(), ..Verify::default() },
        Verify { is_done: true, continue_to: "/".to_owned(), ..Verify::default() },
        Prove::default(),
        Prove { form: form(), wrong: wrong(), account: hostile(), ..Prove::default() },
        Prove {
            account: hostile(),
            providers: vec![ProviderButton { title: hostile(), address: hostile() }],
            ..Prove::default()
        },
        Factor::default(),
        Factor { method: "totp", others: vec!["recovery"], may_remember: true, ..Factor::default() },
        Factor {
            form: form(),
            wrong: wrong(),
            place: "factor",
            method: "passkey",
            others: vec!["totp", "recovery", "email"],
            options: Some(format!("{{\"a\":\"{HOSTILE}\"}}")),
            is_begun: true,
            may_remember: true,
            is_sent: true,
        },
        Factor { place: "prove", method: "recovery", ..Factor::default() },
        Factor { place: "factor", method: "email", ..Factor::default() },
        Factor { place: "factor", method: "email", is_sent: true, ..Factor::default() },
        Factors::default(),
        Factors { is_enrolment: true, takes_passkeys: true, ..Factors::default() },
        Factors {
            form: form(),
            wrong: wrong(),
            notice: Some("saved-factor"),
            factors: vec![
                FactorEntry { id: hostile(), kind: "totp", name: hostile(), ..FactorEntry::default() },
                FactorEntry {
                    kind: "passkey",
                    created_on: "2026-01-01".to_owned(),
                    used_on: Some("2026-01-01".to_owned()),
                    ..FactorEntry::default()
                },
            ],
            recovery_codes: 1,
            takes_passkeys: true,
            is_enrolment: false,
        },
        NewFactor {
            form: form(),
            wrong: wrong(),
            id: hostile(),
            secret: Some("ABCD EFGH".to_owned()),
            uri: Some(hostile()),
            picture: Some(hostile()),
            ..NewFactor::default()
        },
        NewFactor { options: Some(hostile()), is_begun: true, ..NewFactor::default() },
        RecoveryCodes { codes: vec![hostile(); 10], continue_to: "/".to_owned() },
        Logout { form: form(), is_done: false },
        Logout { is_done: true, ..Logout::default() },
        Account::default(),
        Account {
            form: form(),
            notice: Some("saved-name"),
            username: hostile(),
            email: Some(hostile()),
            email_verified: true,
            pending_email: Some(hostile()),
            can_send_again: true,
            roles: "admin, user".to_owned(),
            created_at: "2026-01-01T00:00:00Z".to_owned(),
            created_on: "2026-01-01".to_owned(),
        },
        Keys::default(),
        Keys {
            form: form(),
            wrong: wrong(),
            notice: Some("saved-key"),
            made: Some(hostile()),
            keys: vec![
                KeyEntry::default(),
                KeyEntry {
                    id: hostile(),
                    name: hostile(),
                    prefix: hostile(),
                    roles: Some(hostile()),
                    routes: Some(hostile()),
                    networks: Some(hostile()),
                    created_on: "2026-01-01".to_owned(),
                    expires_on: Some("2026-01-01".to_owned()),
                    used_on: Some("2026-01-01".to_owned()),
                },
            ],
            next: Some("1.2".to_owned()),
            name: hostile(),
            days: hostile(),
            roles: hostile(),
            routes: hostile(),
            networks: hostile(),
        },
        Sessions::default(),
        Sessions {
            form: form(),
            notice: Some("saved-session"),
            sessions: vec![
                Session::default(),
                Session {
                    id: hostile(),
                    current: true,
                    device: Some(hostile()),
                    address: Some("::1".to_owned()),
                    created_on: "2026-01-01".to_owned(),
                    used_on: "2026-01-01".to_owned(),
                },
            ],
            next: Some("1.2".to_owned()),
        },
        Text { title: "failed-404", text: "failed-404-text", request_id: Some(hostile()) },
    );
    for what in [What::Name, What::Password, What::Email, What::Delete] {
        let full = Change {
            what,
            form: form(),
            wrong: wrong(),
            account: hostile(),
            value: hostile(),
            attributes: vec![Attribute { name: "city".to_owned(), value: hostile() }],
            needs_password: true,
            min_length: 15,
        };
        each!(Change { what, ..Change::default() }, full);
    }
}
