//! The options about scripts.

use crate::units;
use clap::Args;
use std::{path::PathBuf, time::Duration};

/// Which scripts run, and what each may use.
#[derive(Args, Debug, Clone, Default)]
#[allow(missing_docs)]
pub struct Script {
    /// Run this JavaScript file, which names streams and routes, and sends (repeat)
    #[arg(long, value_name = "FILE")]
    pub script: Vec<PathBuf>,
    /// Serve the files below this directory where nothing else is
    #[arg(id = "static", long = "static", value_name = "DIR")]
    pub folder: Option<PathBuf>,
    /// How long one call of a script may take
    #[arg(long, value_name = "D", value_parser = units::duration, default_value = "2s")]
    pub script_timeout: Option<Duration>,
    /// What one script may hold in memory
    #[arg(long, value_name = "SIZE", value_parser = units::size, default_value = "64MiB")]
    pub script_memory: Option<usize>,
}
