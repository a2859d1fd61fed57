//! TLS: who we are, whom we trust, and the connections of both sides.
//!
//! What we connect to is judged by the system's roots, Mozilla's where a machine has none, and `--ca`. Our own
//! certificate serves readers, and is shown to upstreams that ask for one; it is read again when its files change.

use crate::files::{self, Watched};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig, SignatureScheme,
    client::{ResolvesClientCert, Resumption},
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
    server::WebPkiClientVerifier,
    sign::{CertifiedKey, SingleCertAndKey},
};
use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

/// What is offered to readers, best first (RFC 7301).
const PROTOCOLS: [&[u8]; 2] = [HTTP2, b"http/1.1"];
/// HTTP/2 over TLS (RFC 9113 §3.2).
pub const HTTP2: &[u8] = b"h2";

/// The files that say who we are.
#[derive(Debug, Clone, PartialEq)]
pub struct TlsFiles {
    /// Our certificate and those up to its root (PEM).
    pub cert: PathBuf,
    /// Its private key (PEM).
    pub key: PathBuf,
    /// Whoever signs the certificates of readers (PEM); with it, a reader without one is turned away.
    pub client_ca: Option<PathBuf>,
}

impl TlsFiles {
    /// All of them.
    pub fn paths(&self) -> Vec<PathBuf> {
        [&self.cert, &self.key].into_iter().chain(&self.client_ca).cloned().collect()
    }
}

/// Who we are.
pub struct Identity {
    server: Arc<ServerConfig>,
    own: Arc<CertifiedKey>,
}

impl Identity {
    /// Reads the files.
    ///
    /// # Errors
    /// Which one, and what is wrong with it.
    pub fn load(from: &TlsFiles) -> io::Result<Self> {
        let provider = provider();
        let wrong = |error: &dyn std::fmt::Display| files::wrong("--tls-cert", &from.cert, error);
        let chain = certificates("--tls-cert", &from.cert)?;
        let key = PrivateKeyDer::from_pem_slice(&files::read("--tls-key", &from.key)?);
        let key = key.map_err(|error| files::wrong("--tls-key", &from.key, &error))?;
        let own = Arc::new(CertifiedKey::from_der(chain, key, &provider).map_err(|error| wrong(&error))?);
        let config = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
        let config = config.map_err(io::Error::other)?;
        let config = match &from.client_ca {
            None => config.with_no_client_auth(),
            Some(path) => {
                let mut trusted = RootCertStore::empty();
                trust(&mut trusted, "--tls-client-ca", path)?;
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(trusted), provider).build();
                config
                    .with_client_cert_verifier(verifier.map_err(|error| files::wrong("--tls-client-ca", path, &error))?)
            }
        };
        let mut config = config.with_cert_resolver(Arc::new(SingleCertAndKey::from(own.clone())));
        config.alpn_protocols = PROTOCOLS.map(Vec::from).into();
        // Readers come back all at once: a ticket spares them and us the better half of a handshake.
        config.ticketer = aws_lc_rs::Ticketer::new().map_err(io::Error::other)?;
        Ok(Identity { server: Arc::new(config), own })
    }

    /// Shakes hands as a server.
    ///
    /// # Errors
    /// The handshake's failure.
    pub async fn accept(&self, stream: TcpStream) -> io::Result<server::TlsStream<TcpStream>> {
        TlsAcceptor::from(self.server.clone()).accept(stream).await
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

fn certificates(option: &str, path: &Path) -> io::Result<Vec<CertificateDer<'static>>> {
    let text = files::read(option, path)?;
    let found = CertificateDer::pem_slice_iter(&text).collect::<Result<Vec<_>, _>>();
    let found = found.map_err(|error| files::wrong(option, path, &error))?;
    if found.is_empty() { Err(files::wrong(option, path, &"no certificate in it")) } else { Ok(found) }
}

fn trust(roots: &mut RootCertStore, option: &str, path: &Path) -> io::Result<()> {
    for cert in certificates(option, path)? {
        roots.add(cert).map_err(|error| files::wrong(option, path, &error))?;
    }
    Ok(())
}

/// Who is trusted, and who we are to those who ask.
///
/// # Errors
/// When a file cannot be read or holds no certificate.
pub fn client_config(ca: Option<&Path>, own: Option<Arc<Watched<Identity>>>) -> io::Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    let native = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(native.certs);
    if roots.is_empty() {
        // A scratch image has no store.
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    if let Some(path) = ca {
        trust(&mut roots, "--ca", path)?;
    }
    let config = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
    let config = config.map_err(io::Error::other)?.with_root_certificates(roots);
    Ok(Arc::new(match own {
        None => config.with_no_client_auth(),
        Some(own) => config.with_client_cert_resolver(Arc::new(Shown(own))),
    }))
}

/// Our certificate as it is now.
struct Shown(Arc<Watched<Identity>>);

impl std::fmt::Debug for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Shown")
    }
}

impl ResolvesClientCert for Shown {
    fn resolve(&self, _roots: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let own = self.0.get().own.clone();
        own.key.choose_scheme(schemes).is_some().then_some(own)
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// The same trust for servers that are not to know who we are: no certificate is shown, and no earlier session resumed.
pub fn without_certificate(config: &ClientConfig) -> Arc<ClientConfig> {
    let mut config = config.clone();
    config.client_auth_cert_resolver = Arc::new(NoCertificate);
    config.resumption = Resumption::disabled();
    Arc::new(config)
}

/// Shows nothing to servers that ask for a certificate.
#[derive(Debug)]
struct NoCertificate;

impl ResolvesClientCert for NoCertificate {
    fn resolve(&self, _roots: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}

/// Shakes hands as a client.
///
/// # Errors
/// A name that cannot be in a certificate, or the handshake's failure.
pub async fn connect(
    config: &Arc<ClientConfig>,
    host: &str,
    stream: TcpStream,
) -> io::Result<client::TlsStream<TcpStream>> {
    let bare = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let name = ServerName::try_from(bare).map_err(io::Error::other)?;
    TlsConnector::from(config.clone()).connect(name, stream).await
}
