//! A server by TLS, which sees by what name it is asked and what certificates are shown.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener},
    sync::{Arc, Mutex},
    thread,
};

use rustls::{
    RootCertStore, ServerConfig, ServerConnection, StreamOwned,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};

use super::{Authority, Issued, ok};

/// What a server saw of its clients: the name that was asked for, and how many certificates were shown.
pub type SeenByTls = Arc<Mutex<Vec<(Option<String>, usize)>>>;

/// A server by TLS that answers each request with the length of its body, and sends a large body for `big`.
pub fn server(issued: &Issued, clients: Option<&Authority>) -> (SocketAddr, SeenByTls) {
    let builder = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap();
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(authority) => {
            let mut roots = RootCertStore::empty();
            roots.add(CertificateDer::from_pem_slice(authority.pem().as_bytes()).unwrap()).unwrap();
            let provider = Arc::new(aws_lc_rs::default_provider());
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            builder.with_client_cert_verifier(verifier.unwrap())
        }
    };
    let chain = vec![CertificateDer::from_pem_slice(issued.certificate.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).unwrap();
    let config = Arc::new(builder.with_single_cert(chain, key).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let seen: SeenByTls = Arc::default();
    let kept = seen.clone();
    thread::spawn(move || {
        for socket in listener.incoming().map_while(Result::ok) {
            let (config, seen) = (config.clone(), kept.clone());
            thread::spawn(move || {
                let mut stream = StreamOwned::new(ServerConnection::new(config).unwrap(), socket);
                let _ = serve(&mut stream, &seen);
            });
        }
    });
    (address, seen)
}

fn serve(
    stream: &mut StreamOwned<ServerConnection, std::net::TcpStream>,
    seen: &SeenByTls,
) -> std::io::Result<()> {
    let mut bytes = Vec::new();
    loop {
        let end = loop {
            if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
                break end + 4;
            }
            let mut chunk = [0; 16 << 10];
            let length = stream.read(&mut chunk)?;
            if length == 0 {
                return Ok(());
            }
            bytes.extend_from_slice(&chunk[..length]);
        };
        let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
        bytes.drain(..end);
        let length = head.split("content-length: ").nth(1).and_then(|rest| rest.split("\r\n").next());
        let length = length.map_or(0, |length| length.parse().unwrap());
        while bytes.len() < length {
            let mut chunk = [0; 16 << 10];
            let count = stream.read(&mut chunk)?;
            bytes.extend_from_slice(&chunk[..count]);
        }
        bytes.drain(..length);
        let certificates = stream.conn.peer_certificates().map_or(0, <[_]>::len);
        if let Some(late) = head.split("x-late: ").nth(1).and_then(|rest| rest.split("\r\n").next()) {
            thread::sleep(std::time::Duration::from_millis(late.parse().unwrap()));
        }
        seen.lock().unwrap().push((stream.conn.server_name().map(str::to_owned), certificates));
        let body = if head.contains("/big") { "x".repeat(3 << 20) } else { length.to_string() };
        stream.write_all(&ok(&body))?;
        stream.flush()?;
    }
}
