//! A plain GET: the retained events as one JSON array, and the long poll.

use super::{
    cloudevents, json, origin,
    subscribe::{self, Refusal, query_pairs},
};
use crate::{
    audience::Viewer,
    event::Event,
    id::{Id, Since},
    link::POSITION_HEADER,
    log::{Entry, Gap, Item, Start},
    site::Site,
    topic::{Manner, Topic},
    units::{self, now_ms},
};
use bytes::{BufMut, BytesMut};
use hyper::{
    HeaderMap, StatusCode,
    header::{HeaderName, HeaderValue},
    http::request::Parts,
};
use std::{collections::VecDeque, time::Duration};
use tokio::time::{Instant, timeout_at};

/// Events per page, unless asked otherwise.
const DEFAULT_LIMIT: usize = 100;
/// How long a long poll waits, unless asked otherwise, and at most.
const DEFAULT_WAIT: Duration = Duration::from_secs(30);
const MAX_WAIT: Duration = Duration::from_secs(600);

struct Ask {
    viewer: Viewer,
    /// Each element is a CloudEvent.
    envelope: bool,
    since: Option<Since>,
    /// A page that starts by id is oldest-first, any other newest (LINKS 9).
    forward: bool,
    limit: usize,
    poll: bool,
    wait: Duration,
}

/// The answer: a JSON array and the headers that carry positions.
pub struct Page {
    /// `[…]`.
    pub body: BytesMut,
    /// `Wsevent-Position`, `Wsevent-Oldest`, `Wsevent-More`, `Wsevent-Gap`.
    pub headers: HeaderMap,
}

/// Reads a page.
///
/// # Errors
/// 404 for an unknown topic, 400 with the name of a parameter that cannot be read.
pub async fn page(site: &Site, parts: &Parts) -> Result<Page, Refusal> {
    let topic = subscribe::find_topic(site, parts)?;
    origin::check_page(&site.rules, &topic, &parts.headers)?;
    let mut ask = Ask {
        viewer: subscribe::viewer(site, &topic, parts, false, topic.manner == Manner::Asked)?,
        envelope: site.rules.envelope,
        ..read_ask(parts)?
    };
    if ask.since.is_some() {
        subscribe::wait_for_window(site, &topic).await?;
    }
    let found = if ask.poll { poll(&topic, &mut ask).await } else { collect(&topic, &ask) };
    let mut page = found.render(&topic, &ask);
    origin::allow_page(&site.rules, &topic, &parts.headers, &mut page.headers);
    Ok(page)
}

/// What there is, or the first that comes within the time.
async fn poll(topic: &Topic, ask: &mut Ask) -> Found {
    let mut changes = topic.log.watch();
    // Whatever was asked for, what comes behind this is news.
    let newest = topic.log.last().map_or(Since::Oldest, Since::After);
    let mut found = collect(topic, ask);
    if !ask.forward {
        (ask.since, ask.forward) = (Some(newest), true);
    }
    let deadline = Instant::now() + ask.wait;
    while found.is_empty() {
        match timeout_at(deadline, changes.changed()).await {
            Ok(Ok(())) => found = collect(topic, ask),
            Ok(Err(_)) | Err(_) => break,
        }
    }
    found
}

fn read_ask(parts: &Parts) -> Result<Ask, Refusal> {
    let invalid = |name: &str| Refusal::new(StatusCode::BAD_REQUEST, format!("Invalid {name}"));
    let viewer = Viewer::default();
    let mut ask = Ask {
        viewer,
        envelope: false,
        since: None,
        forward: false,
        limit: DEFAULT_LIMIT,
        poll: false,
        wait: DEFAULT_WAIT,
    };
    ask.since = subscribe::wanted_start(parts)?;
    for (name, value) in query_pairs(parts) {
        match name.as_str() {
            "after" => ask.since = Some(Id::parse(&value).map(Since::After).ok_or_else(|| invalid("after"))?),
            "limit" => ask.limit = value.parse().map_err(|_| invalid("limit"))?,
            "poll" => ask.poll = matches!(value.as_str(), "1" | "true"),
            "wait" => ask.wait = units::duration(&value).map_err(|_| invalid("wait"))?.min(MAX_WAIT),
            _ => {}
        }
    }
    ask.forward = matches!(ask.since, Some(Since::After(_)));
    Ok(ask)
}

#[derive(Default)]
struct Found {
    /// With the time of its batch.
    events: VecDeque<(Id, u64, Event)>,
    gap: Option<Gap>,
    more: bool,
}

impl Found {
    fn is_empty(&self) -> bool {
        self.events.is_empty() && self.gap.is_none()
    }

    /// Where to go on from: behind the last event; else where one stood; else the newest.
    fn position(&self, topic: &Topic, ask: &Ask) -> Option<Id> {
        let asked = match &ask.since {
            Some(Since::After(id)) if self.gap.is_none() => Some(id.clone()),
            _ => None,
        };
        self.events.back().map(|(id, ..)| id.clone()).or(asked).or_else(|| topic.log.last())
    }

    fn render(self, topic: &Topic, ask: &Ask) -> Page {
        let mut body = BytesMut::from(&b"["[..]);
        for (i, (id, time, event)) in self.events.iter().enumerate() {
            if i > 0 {
                body.put_u8(b',');
            }
            match ask.envelope {
                true => cloudevents::put(&mut body, id, *time, event),
                false => json::put_element(&mut body, event),
            }
        }
        body.put_u8(b']');
        let mut headers = HeaderMap::new();
        let mut put = |name: &'static str, value: Option<String>| {
            if let Some(value) = value.and_then(|value| HeaderValue::from_str(&value).ok()) {
                headers.insert(HeaderName::from_static(name), value);
            }
        };
        put(POSITION_HEADER, self.position(topic, ask).map(|id| id.to_string()));
        put("wsevent-oldest", topic.log.window().map(|window| window.oldest.to_string()));
        put("wsevent-more", Some(u8::from(self.more).to_string()));
        put("wsevent-gap", self.gap.map(|gap| json::gap_object(&gap).to_string()));
        Page { body, headers }
    }
}

fn collect(topic: &Topic, ask: &Ask) -> Found {
    let mut found = Found::default();
    let since = ask.since.clone().unwrap_or(if ask.poll { Since::Now } else { Since::Oldest });
    let mut cursor = match topic.log.seek(Some(&since), now_ms()) {
        Start::At(offset) => offset,
        Start::Gap(gap, offset) => {
            found.gap = Some(gap);
            offset
        }
        Start::Ahead(_) => return found,
        Start::Unknown => topic.log.base(),
    };
    let mut items = Vec::new();
    loop {
        items.clear();
        match topic.log.read(cursor, 1 << 20, &mut items) {
            Ok(read) if read.next > cursor => {
                for item in &items {
                    found.take(item, cursor, ask);
                }
                cursor = read.next;
            }
            Ok(_) => return found,
            // Evicted while we read: the next page tells.
            Err(_) if ask.forward && !found.is_empty() => {
                found.more = true;
                return found;
            }
            Err(_) => return collect(topic, ask),
        }
        if ask.forward && found.more {
            return found;
        }
    }
}

impl Found {
    fn take(&mut self, item: &Item, cursor: u64, ask: &Ask) {
        let batch = match &item.entry {
            Entry::Batch(batch) => batch,
            Entry::Gap(gap) => {
                self.gap.get_or_insert_with(|| (**gap).clone());
                return;
            }
            Entry::End => return,
        };
        let from = cursor.saturating_sub(item.offset) as usize;
        let seen = ask.viewer.of(batch, from);
        for (i, event) in batch.events().skip(from).filter(|(i, _)| seen.has(*i)) {
            if self.events.len() == ask.limit {
                self.more = true;
                if ask.forward || ask.limit == 0 {
                    return;
                }
                self.events.pop_front();
            }
            self.events.push_back((batch.id(i), batch.time(), event));
        }
    }
}
