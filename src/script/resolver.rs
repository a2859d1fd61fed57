//! Who says the first value of a script's subscription: a function of whichever version of the script holds then.

use super::{Version, request};
use crate::{
    files::Watched,
    graphql::{Call, Resolve},
};
use futures_util::future::BoxFuture;
use serde_json::Value;
use std::sync::{Arc, OnceLock, Weak};

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
            let said = version.call("resolve", argument).await.map_err(|fault| {
                tracing::error!(script, resolver = name, %fault, "the resolver failed");
                format!("the resolver {name} failed")
            })?;
            Ok(serde_json::from_str::<Value>(&said).ok().filter(|value| !value.is_null()))
        })
    }
}
