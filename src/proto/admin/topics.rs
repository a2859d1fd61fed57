//! A topic's part of the status.

use super::{
    rates::Rate,
    status::{rounded, unix_us},
};
use crate::{
    log::{Entry, Log},
    proto::{shard::Hop, wire::Wire},
    recorder::Vitals,
    site::Site,
    tally::{ENDINGS, FORMS, Sums},
    topic::Topic,
};
use serde_json::{Map, Value, json};
use std::{
    collections::BTreeSet,
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

/// Hops that are listed; beyond, only their number is told.
const MAX_HOPS: usize = 256;
/// Where types are looked for, and how many are told.
const LOOK_BACK: u64 = 256;
const LOOK_BACK_BYTES: usize = 256 << 10;
const MAX_TYPES: usize = 32;

/// Everything that is known of it.
pub fn describe(site: &Site, topic: &Arc<Topic>, hops: &[Hop]) -> Value {
    let (log, tally) = (&topic.log, &topic.tally);
    let (totals, window, limits) = (log.totals(), log.window(), log.limits());
    let (sums, rate) = (tally.all(), site.inside.rates.of(topic, Instant::now()));
    let hops: Vec<&Hop> = hops.iter().filter(|hop| hop.topic == topic.path).collect();
    let closed: Map<String, Value> =
        ENDINGS.iter().map(|(ending, name)| ((*name).to_owned(), tally.ended(*ending).into())).collect();
    json!({
        "path": topic.path,
        "policy": topic.policy().to_string(),
        "oldest": window.as_ref().map(|window| window.oldest.to_string()),
        "next": window.as_ref().map(|window| window.next.to_string()),
        "last_event": last_event(log),
        "recent_types": recent_types(log),
        "ended": log.ended(),
        "events": totals.events,
        "bytes": totals.bytes,
        "gaps": totals.gaps,
        "stage_errors": topic.stage_errors(),
        "matches": topic.wishes.count(),
        "matches_evaluated": topic.wishes.evaluated(),
        "held_events": totals.held_events,
        "held_bytes": totals.held_bytes,
        "max_events": limits.events,
        "max_bytes": limits.bytes,
        "journal": log.vitals().map(describe_journal),
        "rate": describe_rate(&rate),
        "recent": site.inside.rates.recent(topic).into_iter().map(rounded).collect::<Vec<_>>(),
        "readers": topic.reader_count(),
        "readers_by_wire": by_wire(topic, |form| form.readers),
        "readers_ever": sums.came,
        "delivered_events": sums.events,
        "delivered_bytes": sums.bytes,
        "gaps_told": tally.gaps_told(),
        "skipped_events": tally.skipped(),
        "closed": closed,
        "hops": hops.iter().take(MAX_HOPS).map(|hop| describe_hop(hop)).collect::<Vec<_>>(),
        "hop_count": hops.len(),
        "upstream_path": topic.provenance().split(',').filter(|hop| !hop.is_empty()).collect::<Vec<_>>(),
    })
}

fn describe_rate(rate: &Rate) -> Value {
    json!({ "events": rounded(rate.events), "bytes": rounded(rate.bytes), "delivered": rounded(rate.delivered) })
}

fn describe_journal(vitals: &Vitals) -> Value {
    let error = vitals.error();
    json!({
        "ok": error.is_none(),
        "error": error,
        "sync": vitals.mode,
        "bytes": vitals.bytes.load(Ordering::Relaxed),
        "failures": vitals.failures.load(Ordering::Relaxed),
        "missed_events": vitals.missed.load(Ordering::Relaxed),
        "set_aside": vitals.set_aside.load(Ordering::Relaxed),
    })
}

/// A number for each wire form, by its name.
fn by_wire(topic: &Topic, number: impl Fn(Sums) -> u64) -> Value {
    let pair = |(form, name): (usize, &&str)| ((*name).to_owned(), number(topic.tally.form(form)).into());
    Value::Object(FORM_NAMES.iter().enumerate().map(pair).collect())
}

/// What the forms of the tally are called here.
pub const FORM_NAMES: [&str; FORMS] = ["ws", "link", "sse", "ndjson", "mqtt"];

/// What a wire form is called here.
pub fn name(wire: Wire) -> &'static str {
    FORM_NAMES[wire.protocol().index()]
}

/// The newest event: when it happened by the origin's clock, when it arrived by ours.
fn last_event(log: &Log) -> Value {
    let mut items = Vec::new();
    let _ = log.read(log.end().saturating_sub(1), 1, &mut items);
    let Some(Entry::Batch(batch)) = items.pop().map(|item| item.entry) else { return Value::Null };
    let id = batch.id(batch.len() - 1);
    let arrived = log.arrived(&id).map(|at| unix_us(at) / 1000);
    json!({ "id": id.to_string(), "time": batch.time(), "arrived": arrived })
}

/// The types of the newest events: an `EventSource` hears only those that it asks for by name.
fn recent_types(log: &Log) -> Vec<String> {
    let mut items = Vec::new();
    let _ = log.read(log.end().saturating_sub(LOOK_BACK), LOOK_BACK_BYTES, &mut items);
    let mut types = BTreeSet::new();
    for item in items {
        let Entry::Batch(batch) = &item.entry else { continue };
        types.extend(batch.attrs().iter().filter_map(|(_, attrs)| attrs.kind.clone()).take(MAX_TYPES));
    }
    types.into_iter().take(MAX_TYPES).collect()
}

fn describe_hop(hop: &Hop) -> Value {
    json!({
        "instance": hop.instance,
        "wire": name(hop.wire),
        "address": hop.address.map(|address| address.to_string()),
        "place": hop.place,
        "pinned": hop.pinned,
        "lag_events": hop.lag_events,
        "lag_bytes": hop.lag_bytes,
    })
}
