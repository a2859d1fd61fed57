//! A script that goes on after whatever goes wrong: where its engine is spent, it begins anew.

use super::{
    fault::{Fault, Host, Limits, Source},
    vm::Vm,
};
use crate::panics;
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};
use std::time::{Duration, Instant};
use tracing::{error, warn};

/// Between two looks at how much memory a script holds.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What a script has done, and what it holds.
#[derive(Debug, Default)]
pub struct Figures {
    /// Calls that began.
    pub calls: AtomicU64,
    /// Those of them that failed, in whatever way.
    pub errors: AtomicU64,
    /// Those of them that took too long.
    pub timeouts: AtomicU64,
    /// Bytes it held when somebody last looked.
    pub memory: AtomicU64,
}

impl Figures {
    fn count<T>(&self, result: &Result<T, Fault>) {
        self.calls.fetch_add(1, Relaxed);
        if let Err(fault) = result {
            self.errors.fetch_add(1, Relaxed);
            if matches!(fault, Fault::TimedOut(_)) {
                self.timeouts.fetch_add(1, Relaxed);
            }
        }
    }
}

/// See the module's text.
pub struct Runner {
    source: Source,
    limits: Limits,
    host: Arc<dyn Host>,
    figures: Arc<Figures>,
    vm: Option<Vm>,
    looked: Option<Instant>,
}

impl Runner {
    /// Loads the script.
    ///
    /// # Errors
    /// Why it does not load.
    pub fn load(source: Source, limits: Limits, host: Arc<dyn Host>, figures: Arc<Figures>) -> Result<Self, Fault> {
        let vm = Some(Vm::load(&source, limits, host.clone())?);
        let mut runner = Runner { source, limits, host, figures, vm, looked: None };
        runner.look();
        Ok(runner)
    }

    /// Calls one of the entries with JSON; see [`Vm::call`].
    ///
    /// # Errors
    /// What the script made of it.
    pub fn call(&mut self, entry: &str, argument: &str) -> Result<String, Fault> {
        if self.vm.is_none() {
            self.begin_anew();
        }
        let called = panics::contain(|| self.vm.as_ref().ok_or(Fault::Gone).and_then(|vm| vm.call(entry, argument)));
        let result = called.unwrap_or_else(|| {
            // Not even its end is safe.
            std::mem::forget(self.vm.take());
            Err(Fault::Gone)
        });
        self.figures.count(&result);
        if matches!(result, Err(Fault::TimedOut(_) | Fault::OutOfMemory(_)))
            && self.vm.as_ref().is_some_and(Vm::is_spent)
        {
            self.begin_anew();
        }
        if self.looked.is_none_or(|looked| looked.elapsed() >= LOOK_EVERY) {
            self.look();
        }
        result
    }

    /// The old engine goes first: there is no memory for two.
    fn begin_anew(&mut self) {
        self.vm = None;
        match Vm::load(&self.source, self.limits, self.host.clone()) {
            Ok(vm) => {
                warn!(script = %self.source.name, "begun anew: its variables are lost");
                self.vm = Some(vm);
            }
            Err(fault) => error!(script = %self.source.name, %fault, "cannot begin anew"),
        }
    }

    fn look(&mut self) {
        self.looked = Some(Instant::now());
        self.figures.memory.store(self.vm.as_ref().map_or(0, Vm::memory), Relaxed);
    }
}
