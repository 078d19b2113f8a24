//! Mails: their texts, and sending them to a server.

mod template;
mod transport;

pub use template::{Letter, Template};
pub use transport::{MailSetupError, Mailer, SendError, is_address};
