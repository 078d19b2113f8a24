//! Handing mails to a server.

use std::{fs, time::Duration};

use lettre::{
    Address, AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor,
    address::AddressError,
    message::{Mailbox, MultiPart, SinglePart},
    transport::smtp::{
        authentication::Credentials,
        client::{Certificate, Tls, TlsParameters},
    },
};
use thiserror::Error;

use super::{Letter, Template};
use crate::config::{self, Encryption};

/// Why no mails can be sent with a config.
#[derive(Debug, Error)]
pub enum MailSetupError {
    /// The sender is no mailbox.
    #[error("from: expected a mailbox such as `Example <no-reply@example.com>`: {0}")]
    From(AddressError),
    /// The certificates cannot be used.
    #[error("smtp.ca: {0}")]
    Certificates(String),
    /// TLS cannot be set up.
    #[error("smtp: {0}")]
    Tls(#[from] lettre::transport::smtp::Error),
    /// A text cannot be used: its file and the problem.
    #[error("templates: {0}: {1}")]
    Template(String, String),
}

/// Why a mail was not taken. The text is for the log: it holds no words of the server or the mail.
#[derive(Debug, Error)]
pub enum SendError {
    /// It is no mail: an address that cannot be written.
    #[error("the mail cannot be written: {0}")]
    Illegal(String),
    /// The server is away, slow, or refuses for now.
    #[error("the mail server did not take it: {0}")]
    NotTaken(String),
    /// The server refuses for good (RFC 5321, section 4.2.1).
    #[error("the mail server does not take it: {0}")]
    Refused(String),
}

/// Sends mails.
pub struct Mailer {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    from: Mailbox,
    timeout: Duration,
}

impl Mailer {
    /// A mailer for a config. No connection is made yet.
    ///
    /// # Errors
    /// [`MailSetupError`].
    pub fn new(config: &config::Email) -> Result<Self, MailSetupError> {
        let from = config.from.parse().map_err(MailSetupError::From)?;
        let smtp = &config.smtp;
        let mut tls = TlsParameters::builder(smtp.host.clone());
        if let Some(file) = &smtp.ca {
            let problem =
                |problem: String| MailSetupError::Certificates(format!("{}: {problem}", file.display()));
            let pem = fs::read(file).map_err(|error| problem(error.to_string()))?;
            let certificate = Certificate::from_pem(&pem).map_err(|error| problem(error.to_string()))?;
            tls = tls.add_root_certificate(certificate);
        }
        let tls = match smtp.encryption {
            Encryption::None => Tls::None,
            Encryption::Starttls => Tls::Required(tls.build()?),
            Encryption::Tls => Tls::Wrapper(tls.build()?),
        };
        let mut builder = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(smtp.host.as_str())
            .port(smtp.port)
            .tls(tls)
            .timeout(Some(smtp.timeout));
        if let Some((username, password)) = &smtp.credentials {
            builder = builder.credentials(Credentials::new(username.clone(), password.expose().to_owned()));
        }
        Ok(Self { transport: builder.build(), from, timeout: smtp.timeout })
    }

    /// Sends a mail.
    ///
    /// # Errors
    /// [`SendError`]; trying again may help.
    pub async fn send(&self, to: &str, template: &Template, letter: &Letter<'_>) -> Result<(), SendError> {
        let illegal = |error: &dyn std::fmt::Display| SendError::Illegal(error.to_string());
        let filled = template.fill(letter);
        let to = Mailbox::new(None, to.parse().map_err(|error| illegal(&error))?);
        let message = Message::builder()
            .from(self.from.clone())
            .to(to)
            .subject(filled.subject)
            .message_id(None)
            // Answers to it, such as absence notes, are not wanted (RFC 3834, section 5).
            .header(AutoSubmitted);
        let message = match filled.html {
            Some(html) => message.multipart(MultiPart::alternative_plain_html(filled.text, html)),
            None => message.singlepart(SinglePart::plain(filled.text)),
        };
        let message = message.map_err(|error| illegal(&error))?;
        // The library's own bound is on each step.
        match tokio::time::timeout(self.timeout, self.transport.send(message)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) if error.is_permanent() => Err(SendError::Refused(describe(&error))),
            Ok(Err(error)) => Err(SendError::NotTaken(describe(&error))),
            Err(_) => Err(SendError::NotTaken("no answer in time".to_owned())),
        }
    }
}

/// Returns whether a mail can be written to an address (RFC 5321, section 4.1.2): at a name, and at no address of a machine.
pub fn is_address(text: &str) -> bool {
    !text.ends_with(']') && text.parse::<Address>().is_ok()
}

/// What happened, without the server's words: they may quote an address or the mail itself.
fn describe(error: &lettre::transport::smtp::Error) -> String {
    match error.status() {
        Some(code) => format!("it answered {code}"),
        None if error.is_timeout() => "no answer in time".to_owned(),
        None => error.to_string(),
    }
}

/// `Auto-Submitted: auto-generated` (RFC 3834, section 5).
#[derive(Clone)]
struct AutoSubmitted;

impl lettre::message::header::Header for AutoSubmitted {
    fn name() -> lettre::message::header::HeaderName {
        lettre::message::header::HeaderName::new_from_ascii_str("Auto-Submitted")
    }

    fn parse(_: &str) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        Ok(Self)
    }

    fn display(&self) -> lettre::message::header::HeaderValue {
        lettre::message::header::HeaderValue::new(Self::name(), "auto-generated".to_owned())
    }
}
