//! What is consumed: which upstreams, and what they are shown.

use super::{Consuming, PATH, Planned, Refusal, SERVE_ADDRESS, refuse, serve::topic_path};
use crate::{
    cli::{Args, Client, Trace},
    source::credentials::Credentials,
};
use std::time::Duration;
use url::Url;
/// What a request says about its connection, not about what is asked.
const HANDSHAKE: [&str; 6] =
    ["connection", "upgrade", "sec-websocket-key", "sec-websocket-version", "content-length", "transfer-encoding"];

pub(super) fn upstreams(args: &Args) -> Planned<Vec<Url>> {
    let consume = &args.consume;
    let parts = consume.consume_address.is_some() || consume.consume_path.is_some();
    if !consume.consume.is_empty() && parts {
        return refuse(
            "--consume says in one piece what --consume-address and --consume-path say in two: type one or the other",
        );
    }
    if parts {
        let address = consume.consume_address.as_deref().unwrap_or(SERVE_ADDRESS);
        let path = topic_path(consume.consume_path.as_deref())?;
        return Ok(vec![upstream(&format!("{address}{path}"))?]);
    }
    consume.consume.iter().filter(|url| !url.is_empty()).map(|url| upstream(url)).collect()
}

/// A URL, or `H:P/path` for `ws://H:P/path`; without a path it is `/events`.
///
/// # Errors
/// What cannot be consumed.
pub fn upstream(text: &str) -> Planned<Url> {
    let full = if text.contains("://") { text.to_owned() } else { format!("ws://{text}") };
    let full = if full.starts_with("ws://:") { full.replacen("ws://:", "ws://localhost:", 1) } else { full };
    let mut url = Url::parse(&full).map_err(|error| Refusal(format!("`{text}` is not a URL: {error}")))?;
    match url.scheme() {
        "ws" | "wss" | "http" | "https" | "sse+http" | "sse+https" | "ndjson+http" | "ndjson+https" => {}
        other => {
            return refuse(format!(
                "cannot consume `{other}`: type ws, wss, http, https, sse+http, sse+https, ndjson+http or ndjson+https"
            ));
        }
    }
    if url.host_str().is_none_or(str::is_empty) {
        return refuse(format!("`{text}` names no host: type for instance ws://localhost:8080/events"));
    }
    let rooted = full.splitn(4, '/').nth(3).is_some();
    if !rooted {
        url.set_path(PATH);
    }
    url.set_fragment(None);
    Ok(url)
}

pub(super) fn consuming(args: &Args, upstreams: &[Url]) -> Planned<Consuming> {
    let consume = &args.consume;
    let echo = consume.echo == Some(true);
    let dials = args.mqtt.mqtt_publish.is_some();
    let balances = !args.balance.balance.is_empty() || args.balance.balance_file.is_some();
    if upstreams.is_empty() {
        let asked = [
            ("--cursor-file", consume.cursor_file.is_some()),
            ("--since", consume.since.is_some()),
            ("--retries", consume.retries.is_some()),
            ("--ca", consume.ca.is_some() && !balances && !dials),
            ("--header", !consume.header.is_empty() && !balances),
            ("--consume-token-file", consume.consume_token_file.is_some() && !balances),
            ("--echo", echo),
        ];
        if let Some((option, _)) = asked.iter().find(|(_, asked)| *asked) {
            return refuse(format!("{option} is about an upstream: add --consume URL"));
        }
    }
    if consume.cursor_file.is_some() && upstreams.len() > 1 {
        return refuse("--cursor-file remembers one upstream: consume each in an instance of its own");
    }
    if echo && upstreams.iter().any(|url| !matches!(url.scheme(), "ws" | "wss")) {
        return refuse("--echo sends messages back over WebSocket: consume a ws or wss URL");
    }
    let token_file = consume.consume_token_file.clone();
    let headers = consume.header.iter().map(|header| split_header(header)).collect::<Planned<Vec<_>>>()?;
    let says_who = |(name, _): &(String, String)| name.eq_ignore_ascii_case("authorization");
    let by_url = |url: &Url| !url.username().is_empty() || url.password().is_some();
    if token_file.is_some() && (headers.iter().any(says_who) || upstreams.iter().any(by_url)) {
        return refuse(
            "--consume-token-file is one way to say who we are: drop the Authorization header or the URL's user",
        );
    }
    Ok(Consuming {
        since: consume.since.clone(),
        cursor_file: consume.cursor_file.clone(),
        ca: consume.ca.clone(),
        credentials: Credentials { headers, token_file },
        retries: consume.retries,
        retry_max: consume.retry_max.unwrap_or(Duration::from_secs(5)),
        idle_timeout: consume.idle_timeout.filter(|idle| !idle.is_zero()),
        echo,
    })
}

/// What `trace` asks, and what it shows about us.
///
/// # Errors
/// What cannot be asked.
pub fn tracing(args: &Trace) -> Planned<(Url, Credentials)> {
    Ok((upstream(&args.url)?, credentials(&args.client)?))
}

pub(super) fn credentials(client: &Client) -> Planned<Credentials> {
    let headers = client.header.iter().map(|header| split_header(header)).collect::<Planned<_>>()?;
    Ok(Credentials { headers, token_file: client.token_file.clone() })
}

/// `Name: value`.
///
/// # Errors
/// What is no header.
pub fn split_header(header: &str) -> Planned<(String, String)> {
    match header.split_once(':') {
        Some((name, _)) if HANDSHAKE.iter().any(|own| name.trim().eq_ignore_ascii_case(own)) => {
            refuse(format!("`{}` is the connection's own header: leave it out", name.trim()))
        }
        Some((name, value)) if !name.is_empty() && !header.contains(['\r', '\n']) => {
            Ok((name.trim().to_owned(), value.trim().to_owned()))
        }
        _ => refuse("a header is typed as -H 'Name: value'"),
    }
}
