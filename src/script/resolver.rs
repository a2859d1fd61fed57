//! Who says the first value of a script's subscription: a function of whichever version of the script holds then.

use super::{Version, fault::Fault, request};
use crate::{
    files::Watched,
    graphql::{Call, Resolve},
};
use futures_util::future::BoxFuture;
use serde_json::Value;
use std::{
    sync::{Arc, OnceLock, Weak},
    time::Duration,
};

/// Between two attempts to stand in a script's line.
const PAUSE: Duration = Duration::from_millis(50);
/// So many are made: subscribers come back in crowds, and one that is refused does not try again.
const ATTEMPTS: usize = 200;

/// A script's version, once there is one: what is named while it loads is asked later.
pub type Current = Arc<OnceLock<Weak<Watched<Version>>>>;

/// A function, by its name.
pub struct Resolver {
    /// Whose.
    pub current: Current,
    /// The script, as it is named everywhere.
    pub script: String,
    /// The function.
    pub name: String,
}

impl Resolve for Resolver {
    fn resolve(&self, call: Call) -> BoxFuture<'static, Result<Option<Value>, String>> {
        let version = self.current.get().and_then(Weak::upgrade).map(|version| version.get());
        let argument = request::subscription_call(&call, &self.script, &self.name);
        let (script, name) = (self.script.clone(), self.name.clone());
        Box::pin(async move {
            let Some(version) = version else { return Ok(None) };
            let said = in_line(&version, argument).await.map_err(|fault| {
                tracing::error!(script, resolver = name, %fault, "the resolver failed");
                format!("the resolver {name} failed")
            })?;
            Ok(serde_json::from_str::<Value>(&said).ok().filter(|value| !value.is_null()))
        })
    }
}

async fn in_line(version: &Version, argument: String) -> Result<String, Fault> {
    for _ in 1..ATTEMPTS {
        match version.call("resolve", argument.clone()).await {
            Err(Fault::Busy) => tokio::time::sleep(PAUSE).await,
            done => return done,
        }
    }
    version.call("resolve", argument).await
}
