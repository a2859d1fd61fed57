//! In the engine's place where this program was built without one: nothing loads.

use super::fault::{Fault, Host, Limits, Source};
use std::{convert::Infallible, sync::Arc};

/// A script that cannot be.
pub struct Vm(Infallible);

impl Vm {
    /// Loads nothing.
    ///
    /// # Errors
    /// Always.
    pub fn load(_: &Source, _: Limits, _: Arc<dyn Host>) -> Result<Self, Fault> {
        Err(Fault::Gone)
    }

    /// See the engine.
    ///
    /// # Errors
    /// Never asked.
    pub fn call(&self, _: &str, _: &str) -> Result<String, Fault> {
        match self.0 {}
    }

    /// See the engine.
    pub fn memory(&self) -> u64 {
        match self.0 {}
    }

    /// See the engine.
    pub fn is_spent(&self) -> bool {
        match self.0 {}
    }
}
