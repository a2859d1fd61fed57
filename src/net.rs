//! Names to addresses, addresses to connections.

use crate::tls;
use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
};
use url::{Host, Url};

/// Whether a URL's host is to be looked up: no address, and not `localhost`.
pub fn is_name(host: &Host<&str>) -> bool {
    matches!(host, Host::Domain(name) if *name != "localhost" && !name.ends_with(".localhost"))
}

/// Resolves a host. `localhost` is `::1` and `127.0.0.1` by definition (RFC 6761 §6.3): an empty root has no
/// `/etc/hosts` to say so.
///
/// # Errors
/// What was looked up and why that failed.
pub async fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    if let Ok(ip) = bare.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(ip, port)]);
    }
    if host.is_empty() {
        return Ok(vec![(Ipv6Addr::UNSPECIFIED, port).into(), (Ipv4Addr::UNSPECIFIED, port).into()]);
    }
    if !is_name(&Host::Domain(host)) {
        return Ok(vec![(Ipv4Addr::LOCALHOST, port).into(), (Ipv6Addr::LOCALHOST, port).into()]);
    }
    let look_up = tokio::net::lookup_host((host, port)).await;
    let found: Vec<_> = look_up.map_err(|e| io::Error::new(e.kind(), format!("resolve {host}: {e}")))?.collect();
    if found.is_empty() {
        Err(io::Error::new(io::ErrorKind::NotFound, format!("resolve {host}: no address")))
    } else {
        Ok(found)
    }
}

/// A byte stream to an upstream, plain or TLS.
pub trait Io: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// A connection to an upstream.
pub enum Connection {
    /// As it is.
    Plain(TcpStream),
    /// Behind a handshake.
    Tls(Box<tokio_rustls::client::TlsStream<TcpStream>>),
}

impl Connection {
    /// From now on it is reset when it is dropped, so that the peer notices at once, also where our sending side was
    /// closed before (`SO_LINGER`, socket(7)).
    pub fn reset_on_drop(&self) {
        let stream = match self {
            Connection::Plain(stream) => stream,
            Connection::Tls(stream) => stream.get_ref().0,
        };
        if let Err(error) = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO)) {
            tracing::debug!(%error, "a connection ends without a reset");
        }
    }

    /// To read from and write to.
    pub fn io(&mut self) -> &mut dyn Io {
        match self {
            Connection::Plain(stream) => stream,
            Connection::Tls(stream) => stream,
        }
    }

    /// The same as a value.
    pub fn boxed(self) -> Box<dyn Io> {
        match self {
            Connection::Plain(stream) => Box::new(stream),
            Connection::Tls(stream) => stream,
        }
    }
}

/// How upstreams are reached.
#[derive(Clone)]
pub struct Dialer {
    /// Who is trusted.
    pub tls: Arc<rustls::ClientConfig>,
    /// For connecting and shaking hands.
    pub timeout: Duration,
    /// Where to connect, whatever the URL's host stands for; else it is looked up.
    pub at: Option<IpAddr>,
}

impl Dialer {
    /// The same, but for where it connects.
    pub fn at(&self, at: Option<IpAddr>) -> Self {
        Dialer { at, ..self.clone() }
    }

    /// The same for an origin that nobody typed: it is looked up, and is not shown our certificate.
    pub fn for_strangers(&self) -> Self {
        Dialer { tls: tls::without_certificate(&self.tls), at: None, ..self.clone() }
    }

    /// Connects to the URL's host, with TLS for `wss`, `https` and `mqtts`; the first address that answers wins.
    ///
    /// # Errors
    /// What was attempted on what.
    pub async fn dial(&self, url: &Url) -> io::Result<Box<dyn Io>> {
        self.connect(url, &[]).await.map(Connection::boxed)
    }

    /// The same, for whoever makes a difference between plain and TLS; `preface` is said before anything else.
    ///
    /// # Errors
    /// What was attempted on what.
    pub async fn connect(&self, url: &Url, preface: &[u8]) -> io::Result<Connection> {
        let attempt = async {
            let (host, port) = (url.host_str().unwrap_or("localhost"), url.port_or_known_default().unwrap_or(80));
            let mut stream = match self.at {
                Some(ip) => TcpStream::connect((ip, port)).await?,
                None => dial_any(host, port).await?,
            };
            stream.set_nodelay(true)?;
            socket2::SockRef::from(&stream).set_keepalive(true)?;
            stream.write_all(preface).await?;
            if matches!(url.scheme(), "wss" | "https" | "mqtts") {
                return Ok(Connection::Tls(Box::new(tls::connect(&self.tls, host, stream).await?)));
            }
            Ok(Connection::Plain(stream))
        };
        tokio::time::timeout(self.timeout, attempt).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }
}

async fn dial_any(host: &str, port: u16) -> io::Result<TcpStream> {
    let mut failure = io::Error::from(io::ErrorKind::NotFound);
    for address in resolve(host, port).await? {
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

/// What went wrong on a connection, and what to type where that is known.
pub fn plain_words(error: &io::Error) -> String {
    use rustls::{CertificateError::UnknownIssuer, Error};
    if error.kind() == io::ErrorKind::UnexpectedEof {
        return "closed without a goodbye".into();
    }
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(Error::InvalidMessage(_)) => "no TLS there (ws:// or http:// instead?)".into(),
        Some(Error::InvalidCertificate(UnknownIssuer)) => format!("{error} (--ca FILE trusts its issuer)"),
        _ => error.to_string(),
    }
}

/// The URL as it may be logged: without credentials and query, which may hold tokens.
pub fn redacted(url: &Url) -> String {
    let mut url = url.clone();
    let _ = url.set_username("");
    let _ = url.set_password(None);
    if url.query().is_some() {
        url.set_query(Some("…"));
    }
    url.to_string().replace("%E2%80%A6", "…")
}
