//! The upstreams of a plan: where each begins, and what its end means.

use super::{Exit, Running, StartError, balancing};
use crate::{
    id::{Id, Seq, Since},
    net::Dialer,
    source::{
        cursor::CursorFile,
        feed::Feed,
        place::{self, Place, Trail},
        upstream::{self, Outcome, Upstream},
    },
    tls, token,
};
use std::sync::Arc;
use tokio::{sync::watch, task::JoinSet};
use tracing::error;
use url::Url;

impl Running<'_> {
    pub(super) fn start_upstreams(
        &self,
        remembered: Option<Place>,
        trail: &Arc<Trail>,
        mut cursor: Option<CursorFile>,
    ) -> Result<JoinSet<Outcome>, StartError> {
        let (plan, mut tasks) = (self.plan, JoinSet::new());
        let dialer = Dialer {
            tls: tls::client_config(plan.consuming.ca.as_deref(), self.identity.clone())?,
            timeout: plan.rules.handshake_timeout,
            at: None,
        };
        if let Some(file) = &plan.consuming.credentials.token_file {
            // A typing error is said now, not when the upstream refuses us.
            token::first_line(file)?;
        }
        let marks = place::marks_of(&self.past.notes);
        let keeps = plan.keeps_ids();
        let sole = plan.consume.len() == 1 && plan.produce.is_none();
        let mut first_connections = Vec::new();
        first_connections.extend(balancing::start_following(self, &dialer));
        first_connections.extend(balancing::start_reading(self, &dialer));
        for (ordinal, url) in plan.consume.iter().enumerate() {
            let upstream = self.upstream(ordinal, url, &dialer);
            let mut feed = Feed::new(self.topic.clone(), keeps, sole, marks.clone(), self.start_of());
            if plan.serve.is_none() {
                feed.resume(remembered.clone(), trail.clone());
            }
            if let Some(file) = cursor.take() {
                feed.remember(file)?;
            }
            if self.topic.log.vitals().is_some() {
                let nth = plan.consume[..ordinal].iter().filter(|other| *other == url).count();
                feed.note_place(place::name(url.as_str(), nth), &self.past.notes, self.past.events);
            }
            self.site.inside.add_upstream(&self.topic.path, upstream.clone());
            let (connected, first) = watch::channel(false);
            first_connections.push(first);
            tasks.spawn(upstream::run(upstream, feed, connected));
        }
        let site = self.site.clone();
        tokio::spawn(async move {
            for mut first in first_connections {
                let _ = first.wait_for(|connected| *connected).await;
            }
            site.set_ready(true);
        });
        Ok(tasks)
    }

    /// A keeper that serves mirrors its upstream's window (LINKS 8, 27), from where its journal ends; a consumer begins
    /// where it was told.
    pub(super) fn start_of(&self) -> Option<Since> {
        let told = self.plan.consuming.since.clone();
        if !self.plan.keeps_ids() || self.plan.serve.is_none() {
            return told;
        }
        // Of an event that a stage split only some parts may be there: it comes again, and the rest of it is new.
        let whole = |last: Id| if last.seq.k > 0 { Id { seq: Seq::whole(last.seq.n).before(), ..last } } else { last };
        let kept = self.past.upstream.clone().map(|last| Since::After(whole(last)));
        kept.or(told).or(Some(Since::Oldest))
    }

    pub(super) fn upstream(&self, ordinal: usize, url: &Url, dialer: &Dialer) -> Upstream {
        let plan = self.plan;
        // The policy travels, but never to where peers may publish (LINKS 23).
        let adopts = plan.policy.is_none() && !plan.rules.accept_publish;
        Upstream {
            url: url.clone(),
            credentials: plan.consuming.credentials.clone(),
            dialer: dialer.clone(),
            instance: self.site.instance.clone(),
            ordinal,
            max_message: plan.rules.max_message,
            deflate: plan.rules.deflate,
            idle_timeout: plan.consuming.idle_timeout,
            retries: plan.consuming.retries,
            retry_max: plan.consuming.retry_max,
            echo: plan.consuming.echo,
            terminal: plan.serve.is_none(),
            adopt_block: adopts.then_some((plan.wait_readers.max(1), plan.pin_grace)),
            health: Arc::default(),
        }
    }

    pub(super) fn upstream_ended(&self, ended: Outcome, last: bool) -> Option<Exit> {
        match ended {
            Outcome::Ended => {
                if last {
                    self.topic.log.finish();
                }
                None
            }
            Outcome::Unreachable(reason) => {
                error!("gave up on {reason}");
                Some(Exit::Unreachable)
            }
            Outcome::NoStream(reason) => {
                error!("no stream at {reason}");
                Some(Exit::NoStream)
            }
            Outcome::Refused(reason) => {
                error!("refused by {reason}");
                Some(Exit::Refused)
            }
        }
    }
}
