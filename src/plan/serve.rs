//! What is served: where, over TLS or not, to whom, kept where.

use super::{PATH, Planned, Producer, Refusal, SCRIPT_ADDRESS, SERVE_ADDRESS, ServePlan, refuse, script};
use crate::{
    cli::{Args, Keys},
    journal::SyncPolicy,
    tls::TlsFiles,
    token::KeyFiles,
    topics::{comparable, spelled},
};
use std::path::PathBuf;
use url::Url;

/// What the key options name.
pub fn key_files(args: &Keys) -> KeyFiles {
    KeyFiles {
        tokens: args.token_file.clone(),
        secret: args.jwt_secret_file.clone(),
        jwks: args.jwks.clone(),
        audience: args.jwt_audience.clone(),
    }
}

pub(super) fn tls_files(args: &Args, serves: bool, upstreams: &[Url]) -> Planned<Option<TlsFiles>> {
    let tls = &args.tls;
    let client_ca = tls.tls_client_ca.clone();
    match (tls.tls_cert.clone(), tls.tls_key.clone()) {
        (None, None) if client_ca.is_some() => {
            refuse("--tls-client-ca is about the readers of a TLS server: add --tls-cert and --tls-key")
        }
        (None, None) => Ok(None),
        (None, _) | (_, None) => refuse("--tls-cert and --tls-key belong together: type both"),
        (Some(_), Some(_)) if !serves && client_ca.is_some() => {
            refuse("--tls-client-ca is about readers: drop --no-serve")
        }
        (Some(_), Some(_)) if !serves && !upstreams.iter().any(is_tls) => {
            refuse("--tls-cert and --tls-key are about TLS: consume a wss or https URL, or drop --no-serve")
        }
        (Some(cert), Some(key)) => Ok(Some(TlsFiles { cert, key, client_ca })),
    }
}

pub(super) fn is_tls(url: &Url) -> bool {
    matches!(url.scheme(), "wss" | "https" | "sse+https" | "ndjson+https")
}

pub(super) fn serving(args: &Args) -> Planned<Option<ServePlan>> {
    let serve = &args.serve;
    let parts = serve.serve_address.is_some() || serve.serve_path.is_some();
    if serve.serve.is_some() && parts {
        return refuse(
            "--serve says in one piece what --serve-address and --serve-path say in two: type one or the other",
        );
    }
    if serve.no_serve == Some(true) {
        let contradicting = serve.serve.is_some() || parts || serve.ready_file.is_some();
        return if contradicting {
            refuse(
                "--no-serve serves nothing: drop it, or drop --serve, --serve-address, --serve-path and --ready-file",
            )
        } else {
            Ok(None)
        };
    }
    let (address, path) = match &serve.serve {
        Some(whole) => split_endpoint(whole),
        None => (serve.serve_address.clone(), serve.serve_path.clone()),
    };
    let alone = script::is_alone(args);
    let address = address.unwrap_or_else(|| if alone { SCRIPT_ADDRESS } else { SERVE_ADDRESS }.into());
    let (host, port) = split_address(&address)?;
    let path = if alone { "/".into() } else { topic_path(path.as_deref())? };
    Ok(Some(ServePlan { address, host, port, path, topic: !alone, ready_file: serve.ready_file.clone() }))
}

/// The hosts that `--allow-host` names, and the one that the server was told to listen as.
pub(super) fn allowed_hosts(args: &Args, serve: &Option<ServePlan>) -> Planned<Vec<String>> {
    let mut hosts = args.serve.allow_host.clone();
    if let Some(wrong) = hosts.iter().find(|host| host.is_empty() || host.contains(['/', '?', '#', '@', ' '])) {
        return refuse(format!(
            "--allow-host `{wrong}` is no host: type for instance events.example, or events.example:8080"
        ));
    }
    hosts.extend(serve.iter().map(|serve| serve.host.clone()).filter(|host| !host.is_empty()));
    Ok(hosts)
}

/// `H:P/path`, or the same behind `ws://` or `http://`.
pub(super) fn split_endpoint(text: &str) -> (Option<String>, Option<String>) {
    let bare = text.split_once("://").map_or(text, |(_, rest)| rest);
    match bare.split_once('/') {
        Some((address, path)) => (some(address), some(path)),
        None => (some(bare), None),
    }
}

pub(super) fn some(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

pub(super) fn split_address(address: &str) -> Planned<(String, u16)> {
    let wrong = || Refusal(format!("`{address}` is not a host and port: type for instance localhost:8080 or :8080"));
    let (host, port) = address.rsplit_once(':').ok_or_else(wrong)?;
    if host.contains(':') && !(host.starts_with('[') && host.ends_with(']')) {
        return refuse(format!("`{address}` is ambiguous: put an IPv6 host in brackets, as in [::1]:8080"));
    }
    Ok((host.to_owned(), port.parse().map_err(|_| wrong())?))
}

/// With a leading slash; the same with or without when typed.
pub(super) fn topic_path(path: Option<&str>) -> Planned<String> {
    let Some(path) = path else { return Ok(PATH.into()) };
    let path = format!("/{}", path.trim_start_matches('/'));
    let plain = comparable(&path);
    if plain.starts_with("/-/") || plain == "/-" {
        return refuse("paths under /-/ are wsevent's own: choose another --serve-path");
    }
    if path.contains(['?', '#', ' ']) || path.contains(char::is_control) {
        return refuse(format!("`{path}` cannot be a topic's path: leave out `?`, `#` and spaces"));
    }
    Ok(spelled(&path))
}

pub(super) fn journal(args: &Args, serves: bool) -> Planned<Option<(PathBuf, SyncPolicy)>> {
    match (&args.window.journal, args.window.journal_sync) {
        (None, Some(_)) => refuse("--journal-sync is about a journal: add --journal DIR"),
        (Some(_), _) if !serves => {
            refuse("--journal keeps what is served: drop --no-serve, or remember the place with --cursor-file")
        }
        (dir, sync) => Ok(dir.clone().map(|dir| (dir, sync.unwrap_or_default()))),
    }
}

/// A hub (nothing produced, nothing consumed) lives from what peers publish.
pub(super) fn accept_publish(
    args: &Args,
    serve: &Option<ServePlan>,
    produce: &Option<Producer>,
    consume: &[Url],
    supplied: bool,
) -> Planned<bool> {
    let idle = produce.is_none() && consume.is_empty() && !supplied;
    match (args.serve.accept_publish, serve) {
        (_, None) if idle => refuse("nothing to do: add --consume URL or --produce -, or drop --no-serve"),
        (Some(true), None) => refuse("--accept-publish needs a server: drop --no-serve"),
        (_, None) => Ok(false),
        (Some(false), _) if idle => {
            refuse("nothing would ever be published: add --consume, --produce, or --accept-publish")
        }
        (said, _) => Ok(said.unwrap_or(idle)),
    }
}
