//! Any test over TLS: with `WSEVENT_TEST_TLS` set, every server that is started speaks TLS, and its URL is that of a plain
//! door in front of it, which shakes hands for whoever comes. What holds for readers on a shard must hold there, too.

use super::{Scratch, run};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use std::{
    process::Command,
    sync::{Arc, OnceLock},
};
use tokio::{
    io::{AsyncWriteExt, Interest},
    net::{TcpListener, TcpStream},
    runtime::Runtime,
};
use tokio_rustls::TlsConnector;

/// Whether this run is over TLS.
pub fn is_wanted() -> bool {
    std::env::var_os("WSEVENT_TEST_TLS").is_some()
}

struct Setting {
    scratch: Scratch,
    connector: TlsConnector,
    runtime: Runtime,
}

fn setting() -> &'static Setting {
    static SETTING: OnceLock<Setting> = OnceLock::new();
    SETTING.get_or_init(|| {
        let scratch = Scratch::new();
        let mut openssl = Command::new("openssl");
        openssl.args("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=door -days 2".split(' '));
        openssl.args(["-addext", "subjectAltName=DNS:localhost", "-addext", "basicConstraints=critical,CA:FALSE"]);
        openssl.args(["-keyout", &scratch.arg("key"), "-out", &scratch.arg("cert")]);
        assert_eq!(run(openssl).code, 0, "openssl makes a certificate");
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(scratch.path("cert")).expect("a certificate")).expect("a root");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.expect("versions").with_root_certificates(roots).with_no_client_auth();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        Setting { scratch, connector: Arc::new(config).into(), runtime: runtime.expect("a runtime") }
    })
}

/// What a server is started with.
pub fn args() -> [String; 4] {
    let scratch = &setting().scratch;
    ["--tls-cert".into(), scratch.arg("cert"), "--tls-key".into(), scratch.arg("key")]
}

/// A plain port in front of a TLS port.
#[derive(Clone, Copy)]
pub struct Door {
    pub port: u16,
    pub behind: u16,
}

impl Door {
    /// Opens it for as long as the tests run.
    pub fn open(behind: u16) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        listener.set_nonblocking(true).expect("non-blocking");
        // The test may have a runtime of its own, in which none may be waited for.
        setting().runtime.spawn(async move {
            let listener = TcpListener::from_std(listener).expect("a listener");
            while let Ok((plain, _)) = listener.accept().await {
                tokio::spawn(pass(plain, behind));
            }
        });
        Door { port, behind }
    }
}

async fn pass(mut plain: TcpStream, behind: u16) -> std::io::Result<()> {
    plain.set_nodelay(true)?;
    let tcp = TcpStream::connect(("127.0.0.1", behind)).await?;
    tcp.set_nodelay(true)?;
    // The server hears that a client is lost, though it heard the end of its input before.
    socket2::SockRef::from(&tcp).set_linger(Some(std::time::Duration::ZERO))?;
    let name = ServerName::try_from("localhost").expect("a name");
    let (mut answer, mut request) = tokio::io::split(setting().connector.connect(name, tcp).await?);
    let (mut from, mut to) = plain.split();
    let asking = async move {
        tokio::io::copy(&mut from, &mut request).await?;
        request.shutdown().await.map(|()| (from, request))
    };
    let answering = async move {
        tokio::io::copy(&mut answer, &mut to).await?;
        to.shutdown().await.map(|()| (to, answer))
    };
    tokio::pin!(asking, answering);
    tokio::select! {
        answered = &mut answering => {
            let _open = answered?;
            asking.await.map(drop)
        }
        asked = &mut asking => {
            let (from, _open) = asked?;
            // A client that has closed its sending side reads on, unless its connection is lost.
            tokio::select! {
                answered = &mut answering => answered.map(drop),
                lost = from.ready(Interest::ERROR) => lost.map(drop),
            }
        }
    }
}
