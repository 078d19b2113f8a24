//! Mails: what they say, and handing them to a server.

mod template;
mod transport;

pub use template::{Letter, Template};
pub use transport::{MailSetupError, Mailer, SendError};
