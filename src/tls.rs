//! TLS for what we connect to: the system's roots, Mozilla's where a machine has none, and `--ca`.

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use std::{io, path::Path, sync::Arc};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

/// Who is trusted.
///
/// # Errors
/// When the file cannot be read or holds no certificate.
pub fn client_config(ca: Option<&Path>) -> io::Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    let native = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(native.certs);
    if roots.is_empty() {
        // A scratch image has no store.
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    if let Some(path) = ca {
        let wrong = |error: &dyn std::fmt::Display| io::Error::other(format!("read --ca {}: {error}", path.display()));
        let mut found = 0;
        for cert in CertificateDer::pem_file_iter(path).map_err(|error| wrong(&error))? {
            roots.add(cert.map_err(|error| wrong(&error))?).map_err(|error| wrong(&error))?;
            found += 1;
        }
        if found == 0 {
            return Err(wrong(&"no certificate in it"));
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.map_err(io::Error::other)?.with_root_certificates(roots).with_no_client_auth();
    Ok(Arc::new(config))
}

/// Shakes hands as a client.
///
/// # Errors
/// A name that cannot be in a certificate, or the handshake's failure.
pub async fn connect(config: &Arc<ClientConfig>, host: &str, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
    let bare = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let name = ServerName::try_from(bare).map_err(io::Error::other)?;
    TlsConnector::from(config.clone()).connect(name, stream).await
}
