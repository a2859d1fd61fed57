//! What is measured, by the names that Prometheus sees.

use super::{
    metrics::{Family, Labels},
    topics::FORM_NAMES,
};
use crate::{
    logging,
    net::redacted,
    panics,
    proto::shard::Hop,
    recorder::Vitals,
    script::runner::Figures,
    site::Site,
    source::health::{Known, State},
    tally::{ENDINGS, Sums},
    topic::Topic,
};
use prometheus_client::{metrics::MetricType, registry::Unit};
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// Builds the list, family by family.
#[derive(Default)]
struct Families(Vec<Family>);

impl Families {
    fn add(&mut self, kind: MetricType, unit: Option<Unit>, name: &'static str, help: &'static str) -> &mut Family {
        self.0.push(Family { name, help, kind, unit, samples: Vec::new() });
        let last = self.0.len() - 1;
        &mut self.0[last]
    }

    fn counter(&mut self, name: &'static str, help: &'static str) -> &mut Family {
        self.add(MetricType::Counter, None, name, help)
    }

    fn gauge(&mut self, name: &'static str, help: &'static str) -> &mut Family {
        self.add(MetricType::Gauge, None, name, help)
    }

    fn bytes(&mut self, kind: MetricType, name: &'static str, help: &'static str) -> &mut Family {
        self.add(kind, Some(Unit::Bytes), name, help)
    }
}

impl Family {
    fn put(&mut self, labels: Labels, value: u64) {
        self.samples.push((labels, value));
    }
}

/// The figures of a process.
pub async fn of(site: &Site) -> Vec<Family> {
    let mut all = Families::default();
    process(site, &mut all);
    let topics = site.topics();
    input(&topics, &mut all);
    journals(&topics, &mut all);
    readers(&topics, &mut all);
    lags(site, &mut all).await;
    upstreams(site, &mut all);
    broker(site, &mut all);
    scripts(site, &mut all);
    all.0
}

fn process(site: &Site, all: &mut Families) {
    let build = vec![("version", env!("CARGO_PKG_VERSION").into()), ("instance_id", site.instance.clone())];
    all.gauge("build_info", "What runs here").put(build, 1);
    all.add(MetricType::Gauge, Some(Unit::Seconds), "start_time", "When the process began, in Unix time")
        .put(Vec::new(), site.inside.started.1 / 1000);
    all.counter("panics", "Faults of this program that ended what they happened in").put(Vec::new(), panics::count());
    all.gauge(
        "ready",
        "Whether all listeners are bound, every upstream has connected once, and every journal can be written",
    )
    .put(Vec::new(), site.is_ready().into());
    all.gauge("connections", "Connections open now").put(Vec::new(), site.connections() as u64);
    all.gauge("connections_limit", "Connections at most").put(Vec::new(), site.rules.max_connections as u64);
    let help = "Log lines that standard error did not take";
    all.counter("log_dropped_lines", help).put(Vec::new(), logging::dropped_lines());
}

fn by_topic(topic: &Topic) -> Labels {
    vec![("topic", topic.path.clone())]
}

fn by_wire(topic: &Topic, wire: &str) -> Labels {
    vec![("topic", topic.path.clone()), ("wire", wire.into())]
}

type Topics = [Arc<Topic>];

fn input(topics: &Topics, all: &mut Families) {
    let each = |family: &mut Family, number: fn(&Topic) -> u64| {
        topics.iter().for_each(|topic| family.put(by_topic(topic), number(topic)));
    };
    each(all.counter("events", "Events that came in"), |topic| topic.log.totals().events);
    let help = "Bytes of the events that came in, with frame headers";
    each(all.bytes(MetricType::Counter, "event", help), |topic| topic.log.totals().bytes);
    each(all.counter("gaps", "Losses that entered the log"), |topic| topic.log.totals().gaps);
    each(all.counter("stage_errors", "Events on which a stage failed"), |topic| topic.stage_errors());
    let help = "Events held against readers' own matches";
    each(all.counter("matches_evaluated", help), |topic| topic.wishes.evaluated());
    each(all.gauge("window_events", "Events retained"), |topic| topic.log.totals().held_events);
    each(all.bytes(MetricType::Gauge, "window", "Bytes retained"), |topic| topic.log.totals().held_bytes);
    each(all.counter("gaps_told", "Times that a reader was told of a loss"), |topic| topic.tally.gaps_told());
    let help = "Events that slow readers skipped";
    each(all.counter("skipped_events", help), |topic| topic.tally.skipped());
}

fn journals(topics: &Topics, all: &mut Families) {
    let each = |family: &mut Family, number: fn(&Vitals) -> u64| {
        for (topic, vitals) in topics.iter().filter_map(|topic| Some((topic, topic.log.vitals()?))) {
            family.put(by_topic(topic), number(vitals));
        }
    };
    each(all.gauge("journal_ok", "Whether the journal keeps what comes in"), |it| it.error().is_none().into());
    each(all.bytes(MetricType::Gauge, "journal", "Bytes that the journal holds"), |it| {
        it.bytes.load(Ordering::Relaxed)
    });
    let help = "Times that the journal failed after it had worked";
    each(all.counter("journal_failures", help), |it| it.failures.load(Ordering::Relaxed));
    let help = "Events that were refused because the journal could not be written";
    each(all.counter("journal_missed_events", help), |it| it.missed.load(Ordering::Relaxed));
    let help = "Damaged pieces that were set aside";
    each(all.gauge("journal_set_aside", help), |it| it.set_aside.load(Ordering::Relaxed));
}

fn readers(topics: &Topics, all: &mut Families) {
    let each = |family: &mut Family, number: fn(Sums) -> u64| {
        let forms = |topic| FORM_NAMES.into_iter().enumerate().map(move |form| (topic, form));
        for (topic, (form, name)) in topics.iter().flat_map(forms) {
            family.put(by_wire(topic, name), number(topic.tally.form(form)));
        }
    };
    each(all.gauge("readers", "Readers connected now"), |form| form.readers);
    each(all.counter("readers_opened", "Readers that ever came"), |form| form.came);
    each(all.counter("delivered_events", "Events handed to readers' sockets"), |form| form.events);
    let help = "Bytes handed to readers' sockets, as encoded";
    each(all.bytes(MetricType::Counter, "delivered", help), |form| form.bytes);
    let family = all.counter("readers_closed", "How readers' connections ended");
    for (topic, (ending, reason)) in topics.iter().flat_map(|topic| ENDINGS.iter().map(move |one| (topic, one))) {
        let labels = vec![("topic", topic.path.clone()), ("reason", (*reason).to_owned())];
        family.put(labels, topic.tally.ended(*ending));
    }
}

/// Of the slowest hop: instances have a new name at each start, and make poor labels.
async fn lags(site: &Site, all: &mut Families) {
    let hops = site.hops().await;
    let topics = site.topics();
    let of_topic = |path: &str| hops.iter().filter(move |hop| hop.topic == path).collect::<Vec<_>>();
    let slowest = |path: &str, lag: fn(&Hop) -> u64| of_topic(path).into_iter().map(lag).max().unwrap_or(0);
    let family = all.gauge("hops", "Readers that are instances themselves");
    topics.iter().for_each(|topic| family.put(by_topic(topic), of_topic(&topic.path).len() as u64));
    let family = all.gauge("hop_lag_events", "Events that the slowest hop has not acknowledged");
    topics.iter().for_each(|topic| family.put(by_topic(topic), slowest(&topic.path, |hop| hop.lag_events)));
    let family = all.bytes(MetricType::Gauge, "hop_lag", "Bytes that the slowest hop has not acknowledged");
    topics.iter().for_each(|topic| family.put(by_topic(topic), slowest(&topic.path, |hop| hop.lag_bytes)));
}

fn upstreams(site: &Site, all: &mut Families) {
    let mut known: Vec<(Labels, Known)> = Vec::new();
    for (topic, upstream) in site.inside.upstreams() {
        let named = |url: String| vec![("topic", topic.clone()), ("upstream", url)];
        let url = redacted(&upstream.url);
        // URLs may differ only in what is not told.
        let names = std::iter::once(url.clone()).chain((2..).map(|n| format!("{url} #{n}"))).map(named);
        let free = |labels: &Labels| known.iter().all(|(taken, _)| taken != labels);
        known.extend(names.into_iter().find(free).map(|labels| (labels, upstream.health.get())));
    }
    let family = all.gauge("upstream_connected", "Whether the upstream is being read");
    known.iter().for_each(|(labels, known)| family.put(labels.clone(), (known.state == State::Connected).into()));
    let family = all.counter("upstream_connects", "Times that the upstream answered with a stream");
    known.iter().for_each(|(labels, known)| family.put(labels.clone(), known.connects));
    let family = all.counter("upstream_failures", "Attempts and connections that failed");
    known.iter().for_each(|(labels, known)| family.put(labels.clone(), known.failures));
}

fn scripts(site: &Site, all: &mut Families) {
    let files = site.scripts.files().iter().map(|script| (&script.name, &script.figures));
    let stages = site.scripts.stages().iter().map(|stage| (&stage.name, &stage.figures));
    let known: Vec<(&String, &Arc<Figures>)> = files.chain(stages).collect();
    let each = |family: &mut Family, number: fn(&Figures) -> &AtomicU64| {
        for (name, figures) in &known {
            family.put(vec![("script", (*name).clone())], number(figures).load(Ordering::Relaxed));
        }
    };
    each(all.counter("script_calls", "Calls of a script's functions"), |figures| &figures.calls);
    each(all.counter("script_errors", "Those of them that failed"), |figures| &figures.errors);
    each(all.counter("script_timeouts", "Those of them that took too long"), |figures| &figures.timeouts);
    let help = "Bytes that the script held a moment ago";
    each(all.bytes(MetricType::Gauge, "script_memory", help), |figures| &figures.memory);
}

fn broker(site: &Site, all: &mut Families) {
    all.gauge("mqtt_clients", "MQTT clients connected now").put(Vec::new(), site.mqtt.clients() as u64);
    let Some(publisher) = &site.mqtt.publisher else { return };
    let connected = publisher.health.get().state == State::Connected;
    all.gauge("mqtt_publisher_connected", "Whether the broker is there").put(Vec::new(), connected.into());
    let help = "Events that the broker has acknowledged";
    all.counter("mqtt_published_events", help).put(Vec::new(), publisher.published());
    let help = "Events that the broker was away for too long to get";
    all.counter("mqtt_lost_events", help).put(Vec::new(), publisher.lost());
    all.gauge("mqtt_behind_events", "Events that wait for the broker").put(Vec::new(), publisher.behind());
}
