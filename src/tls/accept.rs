//! The handshake with a client.

use std::{io, pin::pin, sync::Arc};

use rustls::{HandshakeKind, InvalidMessage, ProtocolVersion, ServerConnection, server::Acceptor};
use tokio::{io::AsyncWriteExt, net::TcpStream};
use tokio_rustls::{LazyConfigAcceptor, TlsStream};

use super::{ServerTls, Shown, certificate::subject};

/// A connection whose handshake is over.
pub struct Secured {
    /// What is written is encrypted.
    pub stream: TlsStream<TcpStream>,
    /// The certificate that the client was shown.
    pub shown: Arc<Shown>,
    /// The subject of the client's own certificate (RFC 4514).
    pub client_subject: Option<String>,
    /// The version, as metrics have it.
    pub version: &'static str,
    /// Whether the client came back with a ticket.
    pub is_resumed: bool,
    /// Whether both sides agreed on HTTP/2.
    pub is_http2: bool,
}

/// A handshake that came to nothing.
#[derive(Debug)]
pub enum AcceptError {
    /// The client speaks another protocol than TLS, and is told nothing yet.
    NotTls(TcpStream),
    /// The client has gone, or does not agree with the settings. It was told so.
    Failed(io::Error),
    /// The client was an authority that has made sure of a name: nothing else is served on its connection.
    Proof,
}

/// Shakes hands with a client, and shows the certificate for the host that it asks for.
///
/// # Errors
/// [`AcceptError`].
pub async fn accept(socket: TcpStream, tls: &ServerTls) -> Result<Secured, AcceptError> {
    let mut hello = pin!(LazyConfigAcceptor::new(Acceptor::default(), socket));
    let begun = match hello.as_mut().await {
        Ok(begun) => begun,
        Err(error) if is_other_protocol(&error) => {
            return Err(hello.take_io().map_or(AcceptError::Failed(error), AcceptError::NotTls));
        }
        Err(error) => return Err(AcceptError::Failed(error)),
    };
    let hello = begun.client_hello();
    let host = hello.server_name().map(str::to_ascii_lowercase);
    let protocols: Vec<&[u8]> = hello.alpn().into_iter().flatten().collect();
    if let Some(settings) = host.as_deref().and_then(|host| tls.proof(host, &protocols)) {
        let mut stream = begun.into_stream(settings).await.map_err(AcceptError::Failed)?;
        // It has what it came for.
        let _ = stream.shutdown().await;
        return Err(AcceptError::Proof);
    }
    let Some(shown) = tls.choose(host.as_deref()) else {
        let error = io::Error::other("no certificate was issued yet");
        return Err(AcceptError::Failed(error));
    };
    let settings = shown.settings(hello.cipher_suites()).clone();
    let stream = begun.into_stream(settings).await.map_err(AcceptError::Failed)?;
    let connection = stream.get_ref().1;
    Ok(Secured {
        client_subject: subject_of(connection),
        version: match connection.protocol_version() {
            Some(ProtocolVersion::TLSv1_2) => "1.2",
            _ => "1.3",
        },
        is_http2: connection.alpn_protocol() == Some(b"h2"),
        is_resumed: connection.handshake_kind() == Some(HandshakeKind::Resumed),
        stream: stream.into(),
        shown,
    })
}

/// Whether the first byte begins no record of TLS.
fn is_other_protocol(error: &io::Error) -> bool {
    let error = error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>());
    matches!(error, Some(rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType)))
}

fn subject_of(connection: &ServerConnection) -> Option<String> {
    connection.peer_certificates().and_then(|chain| subject(chain.first()?))
}
