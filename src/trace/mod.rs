//! `wsevent trace URL`: the way up to the origin, hop by hop, as traceroute prints a route.
//!
//! The hops ask each other (`/-/status?chain=1`); this file asks the first one, a few times.

mod route;
mod table;

use crate::{
    net::Dialer,
    proto::admin::fetch::{self, Silence, Told},
    source::credentials::Credentials,
};
pub use route::{Hop, Route};
use std::time::Duration;
use url::Url;

/// Between two looks: the hops answer anew then.
const PACE: Duration = Duration::from_secs(1);

/// What is to be traced.
pub struct Trace {
    /// A topic's URL.
    pub url: Url,
    /// What its server is shown about us.
    pub credentials: Credentials,
    /// How it is reached.
    pub dialer: Dialer,
    /// How often to look.
    pub looks: u32,
}

/// Looks as often as asked.
///
/// # Errors
/// Why the first instance tells nothing, or why that cannot be laid out.
pub async fn run(trace: &Trace) -> Result<Route, Silence> {
    let mut looks = Vec::new();
    for look in 0..trace.looks.max(1) {
        if look > 0 {
            tokio::time::sleep(PACE).await;
        }
        looks.push(Route::read(&trace.url, &ask(trace).await?)?);
    }
    Ok(Route::merged(looks))
}

async fn ask(trace: &Trace) -> Result<Told, Silence> {
    // The hops must have answered before we give up.
    let wait = trace.dialer.timeout;
    let text = format!("{}ms", (wait * 9 / 10).as_millis());
    let no_url = || Silence::NoStatus("this URL cannot be asked for a status".into());
    let url = fetch::status_url(&trace.url, &[("chain", "1"), ("wait", &text)]).ok_or_else(no_url)?;
    let headers = trace.credentials.lines(&trace.url);
    let headers = headers.map_err(|error| Silence::Refused(error.to_string()))?;
    fetch::ask(&trace.dialer, &url, &headers, wait).await
}
