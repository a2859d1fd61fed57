//! What a script's calls of the host do: streams and routes are named, values are sent, lines are logged.

use super::{
    CONSOLE,
    claims::Claims,
    fault::Host,
    resolver::{Current, Resolver},
    routes::Routes,
};
use crate::{
    graphql::{Resolve, Subscriptions},
    streams::{Filter, Streams},
    units::printable,
};
use bytes::Bytes;
use std::sync::{
    Arc, RwLock,
    atomic::{AtomicBool, Ordering},
};
use tracing::{debug, error, info, warn};

/// Characters of a line in the log; the rest is left out.
const MAX_LINE: usize = 16 << 10;

/// What one version of a script has named.
pub struct Registered {
    /// Its routes.
    pub routes: RwLock<Routes>,
    /// Its streams and subscriptions.
    pub streams: Claims,
}

/// See the module's text.
pub struct Outside {
    /// The script, as it is named in the log.
    pub name: String,
    /// Where it sends.
    pub streams: Arc<Streams>,
    /// Where it sends by name.
    pub subscriptions: Arc<Subscriptions>,
    /// Who says first values.
    pub current: Current,
    /// What it names.
    pub registered: Arc<Registered>,
    /// Bytes that one event may have.
    pub max_message: usize,
    /// Whether it was told about a filter that leaves nobody out.
    pub warned: AtomicBool,
}

type Said = Result<Option<String>, String>;

impl Host for Outside {
    fn ask(&self, what: &str, args: &[String]) -> Said {
        let arg = |i: usize| args.get(i).map(String::as_str).unwrap_or_default();
        match what {
            "is_host" => Ok(Some("yes".into())),
            "log" => say(&self.name, arg(0), arg(1)),
            "register_stream" => self.register_stream(arg(0)),
            "register_route" => self.register_route(arg(0), arg(1), arg(2)),
            "send" => self.send(arg(0), arg(1), &Filter::default()),
            "send_filtered" => self.send(arg(0), arg(1), &self.filter(arg(0), arg(2))?),
            "send_all" => self.send_all(arg(0)),
            "register_subscription" => self.register_subscription(arg(0), arg(1), arg(2)),
            "send_subscription" => self.send_subscription(arg(0), arg(1), &Filter::default()),
            "send_subscription_filtered" => self.send_subscription(arg(0), arg(1), &self.filter(arg(0), arg(2))?),
            _ => Err(format!("{what} is not known here")),
        }
    }
}

impl Outside {
    fn register_stream(&self, path: &str) -> Said {
        self.registered.streams.stream(path)?;
        Ok(Some(format!("Stream '{path}' registered")))
    }

    fn register_route(&self, path: &str, handler: &str, method: &str) -> Said {
        self.registered.routes.write().unwrap_or_else(|p| p.into_inner()).add(path, method, handler)?;
        Ok(Some(format!("Route {method} '{path}' registered to {handler}")))
    }

    fn send(&self, path: &str, payload: &str, filter: &Filter) -> Said {
        let counts = self.streams.send(path, self.checked(payload)?, filter);
        Ok(Some(counts.told(path)))
    }

    fn send_all(&self, payload: &str) -> Said {
        self.streams.send_all(&self.checked(payload)?);
        Ok(None)
    }

    fn register_subscription(&self, name: &str, sdl: &str, resolver: &str) -> Said {
        let resolver = Resolver { current: self.current.clone(), script: self.name.clone(), name: resolver.into() };
        let resolver = (!resolver.name.is_empty()).then(|| Arc::new(resolver) as Arc<dyn Resolve>);
        self.registered.streams.subscription(name, sdl, resolver)?;
        Ok(Some(format!("Subscription '{name}' registered")))
    }

    fn send_subscription(&self, name: &str, payload: &str, filter: &Filter) -> Said {
        let counts = self.subscriptions.send(name, self.checked(payload)?, filter);
        Ok(Some(counts.told(name)))
    }

    /// A filter that is made of a value which is not there is empty, and empty is everybody: worth a word.
    fn filter(&self, whom: &str, text: &str) -> Result<Filter, String> {
        let filter = Filter::parse(Some(text)).map_err(|bad| bad.to_string())?;
        if filter.is_everybody() && !self.warned.swap(true, Ordering::Relaxed) {
            warn!(script = %self.name, whom, "a filtered send has an empty filter: everybody gets it (said once)");
        }
        Ok(filter)
    }

    fn checked(&self, payload: &str) -> Result<Bytes, String> {
        match payload.len() {
            len if len > self.max_message => {
                Err(format!("an event of {len} bytes is larger than {}: see --max-message", self.max_message))
            }
            _ => Ok(Bytes::copy_from_slice(payload.as_bytes())),
        }
    }
}

/// One line of a script's own in the log.
///
/// # Errors
/// None.
pub fn say(script: &str, level: &str, message: &str) -> Said {
    let end = message.char_indices().map(|(at, _)| at).nth(MAX_LINE).unwrap_or(message.len());
    let message = printable(&message[..end]);
    match level {
        "error" => error!(target: CONSOLE, script, "{message}"),
        "warn" => warn!(target: CONSOLE, script, "{message}"),
        "debug" => debug!(target: CONSOLE, script, "{message}"),
        _ => info!(target: CONSOLE, script, "{message}"),
    }
    Ok(None)
}
