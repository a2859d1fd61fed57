//! `/-/metrics`: the same figures for Prometheus, as text 0.0.4 or, by `Accept`, as OpenMetrics 1.0.
//!
//! Nothing is kept for it: each scrape reads the sums that are there anyway.

use super::{Answer, figures};
use crate::site::Site;
use hyper::{header, http::request::Parts};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet, text},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::{Registry, Unit},
};
use std::fmt;

const PLAIN: &str = "text/plain; version=0.0.4; charset=utf-8";
const OPEN: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The answer to a scrape.
pub async fn answer(site: &Site, parts: &Parts) -> Answer {
    let accept = parts.headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or("");
    let open = accept.contains("application/openmetrics-text");
    let mut registry = Registry::with_prefix("wsevent");
    registry.register_collector(Box::new(Scrape(figures::of(site).await)));
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = text::encode(&mut text, &registry);
    if open { Answer::text(OPEN, text) } else { Answer::text(PLAIN, plain(&text)) }
}

/// One metric with all its label sets.
#[derive(Debug)]
pub struct Family {
    /// Without prefix, unit and suffix.
    pub name: &'static str,
    /// One line.
    pub help: &'static str,
    /// Counter or gauge.
    pub kind: MetricType,
    /// A part of the name.
    pub unit: Option<Unit>,
    /// Values by labels.
    pub samples: Vec<(Labels, u64)>,
}

/// Names and values.
pub type Labels = Vec<(&'static str, String)>;

#[derive(Debug)]
struct Scrape(Vec<Family>);

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for family in self.0.iter().filter(|family| !family.samples.is_empty()) {
            let mut metric = encoder.encode_descriptor(family.name, family.help, family.unit.as_ref(), family.kind)?;
            for (labels, value) in &family.samples {
                match (family.kind, labels.is_empty()) {
                    (MetricType::Counter, true) => metric.encode_counter::<NoLabelSet, _, u64>(value, None)?,
                    (MetricType::Counter, false) => ConstCounter::new(*value).encode(metric.encode_family(labels)?)?,
                    (_, false) => ConstGauge::new(*value).encode(metric.encode_family(labels)?)?,
                    (_, true) => metric.encode_gauge(value)?,
                }
            }
        }
        Ok(())
    }
}

/// From OpenMetrics to text 0.0.4, where a counter is named as its sample is, and units and the end are not said.
fn plain(open: &str) -> String {
    let is_counter = |name: &str| open.contains(&format!("# TYPE {name} counter\n"));
    let line = |line: &str| {
        let words: Vec<&str> = line.splitn(4, ' ').collect();
        match words[..] {
            ["#", "EOF"] | ["#", "UNIT", ..] => None,
            ["#", what, name, rest] if is_counter(name) => Some(format!("# {what} {name}_total {rest}\n")),
            _ => Some(format!("{line}\n")),
        }
    };
    open.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_say_the_same() {
        let path = || vec![("topic", "/a\"b\\c\n".to_owned())];
        let family =
            |name, kind, unit, value| Family { name, help: "Help", kind, unit, samples: vec![(path(), value)] };
        let families = vec![
            family("events", MetricType::Counter, None, 7),
            family("event", MetricType::Counter, Some(Unit::Bytes), 8),
            family("window", MetricType::Gauge, Some(Unit::Bytes), 9),
        ];
        let mut registry = Registry::with_prefix("wsevent");
        registry.register_collector(Box::new(Scrape(families)));
        let mut open = String::new();
        text::encode(&mut open, &registry).expect("a string");
        let labels = r#"{topic="/a\"b\\c\n"}"#;
        let samples = format!(
            "wsevent_events_total{labels} 7\nwsevent_event_bytes_total{labels} 8\nwsevent_window_bytes{labels} 9\n"
        );
        let without_comments = |text: &str| -> String {
            text.lines().filter(|line| !line.starts_with('#')).map(|line| format!("{line}\n")).collect()
        };
        assert_eq!(without_comments(&open), samples);
        let plain = plain(&open);
        assert_eq!(without_comments(&plain), samples);
        assert!(open.ends_with("# EOF\n") && open.contains("# TYPE wsevent_events counter\n"), "{open}");
        assert!(!plain.contains("EOF") && !plain.contains("UNIT"), "{plain}");
        assert!(
            plain.contains("# HELP wsevent_event_bytes_total ") && plain.contains("# TYPE wsevent_window_bytes gauge")
        );
    }
}
