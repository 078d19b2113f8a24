//! What each page shows. Each type has samples, which a test renders in every language.

use serde::Serialize;

use super::{message::Message, template::Page};

/// What every form has.
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct Form {
    /// The token that shows that the form is ours.
    pub(super) token: String,
    /// Where the person goes afterwards, if they came for something.
    pub(super) return_to: Option<String>,
    /// The same as the query of a link to another form; empty or with its `?`.
    pub(super) query: String,
}

/// What was wrong with what was sent before.
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct Wrong {
    /// What to say, and about which field.
    pub(super) errors: Vec<Message>,
    /// The fields.
    pub(super) wrong: Vec<&'static str>,
}

impl Wrong {
    /// One error.
    pub(super) fn of(message: Message) -> Self {
        Self { wrong: message.field.into_iter().collect(), errors: vec![message] }
    }
}

#[derive(Debug, Default, Serialize)]
pub(super) struct Login {
    pub(super) form: Form,
    #[serde(flatten)]
    pub(super) wrong: Wrong,
    pub(super) username: String,
    pub(super) remember: bool,
    /// Whether an address may be given for a name.
    pub(super) by_email: bool,
    pub(super) has_mail: bool,
    /// Whether strangers may register.
    pub(super) is_open: bool,
    pub(super) takes_passkeys: bool,
    pub(super) providers: Vec<ProviderButton>,
    pub(super) notice: Option<&'static str>,
    pub(super) signed_in_as: Option<String>,
    pub(super) continue_to: String,
}

#[derive(Debug, Default, Serialize)]
pub(super) struct Register {
    pub(super) form: Form,
    /// The token of an invitation, or empty.
    pub(super) invitation: String,
    /// Whether nobody may register without an invitation, and there is none that holds.
    pub(super) is_closed: bool,
    #[serde(flatten)]
    pub(super) wrong: Wrong,
    pub(super) username: String,
    pub(super) email: String,
    pub(super) min_length: usize,
    pub(super) providers: Vec<ProviderButton>,
}

/// A link to a provider by whom people sign in.
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct ProviderButton {
    pub(super) title: String,
    pub(super) address: String,
}

#[derive(Debug, Default, Serialize)]
pub(super) struct Providers {
    pub(super) form: Form,
    #[serde(flatten)]
    pub(super) wrong: Wrong,
    pub(super) notice: Option<&'static str>,
    pub(super) links: Vec<LinkEntry>,
    pub(super) buttons: Vec<ProviderButton>,
}

#[derive(Debug, Default, Serialize)]
pub(super) struct LinkEntry {
    pub(super) id: String,
    pub(super) title: String,
    /// What the account is called there.
    pub(super) label: String,
    pub(super) created_on: String,
}

/// What is said about the only way in, which stays.
pub(super) fn last_link() -> Message {
    Message::general("error-last-link")
}

#[derive(Debug, Default, Serialize)]
pub(super) struct Forgot {
    pub(super) form: Form,
    /// Whether mails are sent here at all.
    pub(super) has_mail: bool,
    #[serde(flatten)]
    pub(super) wrong: Wrong,
    pub(super) email: String,
    pub(super) is_done: bool,
}

#[derive(Debug, Default, Serialize)]
pub(super) struct Reset {
    pub(super) form: Form,
    #[serde(flatten)]
    pub(super) wrong: Wrong,
    pub(super) token: String,
    /// The name of the account, for password managers.
    pub(super) account: String,
    pub(super) min_length: usize,
    pub(super) is_done: bool,
}

#[derive(Debug, Default, Serialize)]
pub(super) struct Verify {
    pub(super) form: Form,
    #[serde(flatten)]
    pub(super) wrong: Wrong,
    pub(super) token: String,
    pub(super) is_done: bool,
    pub(super) continue_to: String,
}

#[derive(Debug, Default, Serialize)]
pub(super) struct Prove {
    pub(super) form: Form,
    #[serde(flatten)]
    pub(super) wrong: Wrong,
    /// The account's name.
    pub(super) account: String,
    /// The providers to sign in by once more, for an account without a password.
    pub(super) providers: Vec<ProviderButton>,
}

/// The second step of a login, or the proof of who is signed in.
#[derive(Debug, Default, Serialize)]
pub(super) struct Factor {
    pub(super) form: Form,
    #[serde(flatten)]
    pub(super) wrong: Wrong,
    /// `factor` or `prove`.
    pub(super) place: &'static str,
    /// How it is shown: the name of a method.
    pub(super) method: &'static str,
    /// How else it may be.
    pub(super) others: Vec<&'static str>,
    /// What a browser is asked to show a passkey with, in JSON.
    pub(super) options: Option<String>,
    /// Whether it is asked at once.
    pub(super) is_begun: bool,
    /// Whether the person may want this device not to be asked again for a while.
    pub(super) may_remember: bool,
    /// Whether a mail was sent.
    pub(super) is_sent: bool,
}

#[derive(Debug, Default, Serialize)]
pub(super) struct Factors {
    pub(super) form: Form,
    #[serde(flatten)]
    pub(super) wrong: Wrong,
    pub(super) notice: Option<&'static str>,
    pub(super) factors: Vec<FactorEntry>,
    /// How many recovery codes are left.
    pub(super) recovery_codes: u32,
    pub(super) takes_passkeys: bool,
    /// Whether somebody gets their first factor to be signed in at all.
    pub(super) is_enrolment: bool,
}

#[derive(Debug, Default, Serialize)]
pub(super) struct FactorEntry {
    pub(super) id: String,
    pub(super) kind: &'static str,
    pub(super) name: String,
    pub(super) created_on: String,
    pub(super) used_on: Option<String>,
}

/// A factor that was begun, to be confirmed.
#[derive(Debug, Default, Serialize)]
pub(super) struct NewFactor {
    pub(super) form: Form,
    #[serde(flatten)]
    pub(super) wrong: Wrong,
    pub(super) id: String,
    /// The secret of an app, in groups.
    pub(super) secret: Option<String>,
    /// Its address, and that as a picture.
    pub(super) uri: Option<String>,
    pub(super) picture: Option<String>,
    /// What a browser is asked to make a passkey with, in JSON.
    pub(super) options: Option<String>,
    /// Whether it is asked at once.
    pub(super) is_begun: bool,
}

#[derive(Debug, Default, Serialize)]
pub(super) struct RecoveryCodes {
    pub(super) codes: Vec<String>,
    pub(super) continue_to: String,
}

#[derive(Debug, Default, Serialize)]
pub(super) struct Logout {
    pub(super) form: Form,
    pub(super) is_done: bool,
}

#[derive(Debug, Default, Serialize)]
pub(super) struct Account {
    pub(super) form: Form,
    /// The key of what was done a moment ago.
    pub(super) notice: Option<&'static str>,
    pub(super) username: String,
    pub(super) email: Option<String>,
    pub(super) email_verified: bool,
    pub(super) pending_email: Option<String>,
    /// Whether a mail to an unverified address may be sent again.
    pub(super) can_send_again: bool,
    pub(super) roles: String,
    pub(super) created_at: String,
    pub(super) created_on: String,
}

/// A change of the account: of what.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum What {
    #[default]
    Name,
    Password,
    Email,
    Delete,
}

#[derive(Debug, Default, Serialize)]
pub(super) struct Change {
    pub(super) what: What,
    pub(super) form: Form,
    #[serde(flatten)]
    pub(super) wrong: Wrong,
    /// The account's name, for whatever keeps passwords.
    pub(super) account: String,
    /// The name or the address.
    pub(super) value: String,
    /// Beside the name, what people say of themselves.
    pub(super) attributes: Vec<Attribute>,
    pub(super) needs_password: bool,
    pub(super) min_length: usize,
}

/// An attribute that its owner sets.
#[derive(Debug, Default, Serialize)]
pub(super) struct Attribute {
    pub(super) name: String,
    pub(super) value: String,
}

#[derive(Debug, Default, Serialize)]
pub(super) struct Sessions {
    pub(super) form: Form,
    pub(super) notice: Option<&'static str>,
    pub(super) sessions: Vec<Session>,
    pub(super) next: Option<String>,
}

#[derive(Debug, Default, Serialize)]
pub(super) struct Session {
    pub(super) id: String,
    pub(super) current: bool,
    pub(super) device: Option<String>,
    pub(super) address: Option<String>,
    pub(super) created_on: String,
    pub(super) used_on: String,
}

/// API keys, and what was typed for a new one.
#[derive(Debug, Default, Serialize)]
pub(super) struct Keys {
    pub(super) form: Form,
    #[serde(flatten)]
    pub(super) wrong: Wrong,
    pub(super) notice: Option<&'static str>,
    /// The key that was made a moment ago, which is shown once.
    pub(super) made: Option<String>,
    pub(super) keys: Vec<KeyEntry>,
    pub(super) next: Option<String>,
    pub(super) name: String,
    pub(super) days: String,
    pub(super) roles: String,
    pub(super) routes: String,
    pub(super) networks: String,
}

#[derive(Debug, Default, Serialize)]
pub(super) struct KeyEntry {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) prefix: String,
    pub(super) roles: Option<String>,
    pub(super) routes: Option<String>,
    pub(super) networks: Option<String>,
    pub(super) created_on: String,
    pub(super) expires_on: Option<String>,
    pub(super) used_on: Option<String>,
}

/// A page that only says something.
#[derive(Debug, Serialize)]
pub(super) struct Text {
    #[serde(skip)]
    pub(super) title: &'static str,
    /// The key of what it says.
    pub(super) text: &'static str,
    pub(super) request_id: Option<String>,
}

macro_rules! page {
    ($type:ident, $template:literal, $title:literal) => {
        impl Page for $type {
            const TEMPLATE: &'static str = $template;

            fn title(&self) -> String {
                $title.to_owned()
            }
        }
    };
}

page!(Login, "login.html", "page-login");
page!(Register, "register.html", "page-register");
page!(Forgot, "forgot.html", "page-forgot");
page!(Reset, "reset.html", "page-reset");
page!(Verify, "verify.html", "page-verify");
page!(Prove, "prove.html", "page-prove");
page!(Logout, "logout.html", "page-logout");
page!(Providers, "providers.html", "page-providers");
page!(Factors, "factors.html", "page-factors");
page!(RecoveryCodes, "recovery-codes.html", "page-recovery-codes");
page!(Account, "account.html", "page-account");
page!(Keys, "keys.html", "page-keys");
page!(Sessions, "sessions.html", "page-sessions");

impl Page for Factor {
    const TEMPLATE: &'static str = "factor.html";

    fn title(&self) -> String {
        if self.place == "prove" { "page-prove" } else { "page-factor" }.to_owned()
    }

    fn has_script(&self) -> bool {
        self.options.is_some()
    }
}

impl Page for NewFactor {
    const TEMPLATE: &'static str = "new-factor.html";

    fn title(&self) -> String {
        if self.secret.is_some() { "page-new-app" } else { "page-new-passkey" }.to_owned()
    }

    fn has_script(&self) -> bool {
        self.options.is_some()
    }
}

impl Page for Change {
    const TEMPLATE: &'static str = "change.html";

    fn title(&self) -> String {
        let title = match self.what {
            What::Name => "page-name",
            What::Password => "page-password",
            What::Email => "page-email",
            What::Delete => "page-delete",
        };
        title.to_owned()
    }
}

impl Page for Text {
    const TEMPLATE: &'static str = "message.html";

    fn title(&self) -> String {
        self.title.to_owned()
    }
}

#[cfg(test)]
pub(super) mod samples;
