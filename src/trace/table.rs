//! A route as lines of text: one per hop, in columns.

use super::route::{Hop, Route};
use std::fmt;

impl Route {
    /// Whether every hop reads the next one.
    pub fn is_whole(&self) -> bool {
        self.hops.iter().all(|hop| hop.is_up)
    }

    /// The sum of the delays, where each is known and the way does not fork.
    pub(super) fn delay(&self) -> Option<f64> {
        let is_line = self.hops.iter().zip(1..).all(|(hop, number)| hop.number == number);
        let delays = self.hops.iter().skip(1).map(|hop| hop.delay);
        if is_line && self.hops.len() > 1 { delays.sum() } else { None }
    }
}

const HEAD: [&str; 8] = ["hop", "instance", "state", "events/s", "lag", "delay", "round trip", "url"];

impl Hop {
    fn cells(&self) -> [String; 8] {
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".into());
        let millis = |ms: Option<f64>| or_dash(ms.map(|ms| format!("{ms:.1} ms")));
        let note = if self.note.is_empty() { String::new() } else { format!("  ({})", self.note) };
        [
            self.number.to_string(),
            or_dash(self.instance.clone()),
            self.state.clone(),
            or_dash(self.rate.map(|rate| format!("{rate:.1}"))),
            or_dash(self.lag.map(|lag| lag.to_string())),
            millis(self.delay),
            millis(self.round_trip),
            format!("{}{note}", if self.url.is_empty() { "-" } else { &self.url }),
        ]
    }
}

impl fmt::Display for Route {
    /// One line per hop, in columns; numbers to the right.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows: Vec<[String; 8]> =
            std::iter::once(HEAD.map(String::from)).chain(self.hops.iter().map(Hop::cells)).collect();
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..HEAD.len()).map(width).collect();
        for row in &rows {
            for (column, cell) in row.iter().enumerate() {
                let width = widths[column];
                match column {
                    7 => writeln!(f, "{cell}")?,
                    1 | 2 => write!(f, "{cell:<width$}  ")?,
                    _ => write!(f, "{cell:>width$}  ")?,
                }
            }
        }
        self.delay().map_or(Ok(()), |delay| writeln!(f, "From the origin to hop 1 an event takes {delay:.1} ms."))
    }
}
