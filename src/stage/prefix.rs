//! `--hop-prefix`: the older habit of putting `<hostname><- ` before each payload.

use crate::{event::Event, topic::Stage};

/// Prefixes every payload.
pub struct Prefix(String);

impl Prefix {
    /// With this machine's name.
    pub fn new() -> Self {
        let name = std::fs::read_to_string("/proc/sys/kernel/hostname");
        Prefix(format!("{}<- ", name.as_deref().map_or("localhost", str::trim)))
    }
}

impl Default for Prefix {
    fn default() -> Self {
        Prefix::new()
    }
}

impl Stage for Prefix {
    fn apply(&mut self, event: Event, out: &mut Vec<Event>) {
        let payload = [self.0.as_bytes(), &event.payload].concat();
        out.push(Event { payload: payload.into(), ..event });
    }
}
