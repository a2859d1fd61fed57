//! Which instances are to be asked whether they are well, and what they said.

use super::{Fact, Moment, Nodes, pop_due};
use crate::registry::check::{Check, Checked};
use std::{sync::Arc, time::Instant};

impl Nodes {
    /// What an instance says about itself has changed, and with it perhaps how it is asked.
    pub(super) fn plan_check(&mut self, id: &Arc<str>, now: Instant) {
        let Some(node) = self.by_id.get_mut(id) else { return };
        let check = Check::of(&node.metadata, &node.address);
        if check.as_ref() == node.check.as_deref() {
            return;
        }
        node.check = check.map(Arc::new);
        node.checked = None;
        let due = node.check.is_some().then_some(now);
        self.check_at(id, due);
    }

    pub(super) fn check_at(&mut self, id: &Arc<str>, due: Option<Instant>) {
        let Some(node) = self.by_id.get_mut(id) else { return };
        if let Some(before) = std::mem::replace(&mut node.next_check, due) {
            self.checks.remove(&(before, id.clone()));
        }
        self.checks.extend(due.map(|due| (due, id.clone())));
    }

    /// Who is to be asked now; when again, is known once it is [known](Self::checked) what came of it.
    pub fn due_checks(&mut self, now: Moment) -> Vec<(Arc<str>, Arc<Check>)> {
        let mut due = Vec::new();
        while let Some((_, id)) = pop_due(&mut self.checks, |due| due <= now.at) {
            let Some(node) = self.by_id.get_mut(&id) else { continue };
            node.next_check = None;
            due.extend(node.check.clone().map(|check| (id, check)));
        }
        due
    }

    /// What came of asking an instance, and the fact if its circuit changed.
    pub fn checked(&mut self, id: &Arc<str>, fault: Option<String>, now: Moment) -> Option<Fact> {
        let success = fault.is_none();
        let node = self.by_id.get_mut(id)?;
        let next = now.at + node.check.as_ref()?.interval;
        node.checked = Some(Checked { at: now.ms, fault });
        self.check_at(id, Some(next));
        self.report(id, success, now)?.1
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::World;
    use crate::registry::registration::Registration;
    use serde_json::{Value, json};

    fn register(world: &mut World, check: Value, ms: u64) {
        let body = json!({"serviceName": "a", "host": "h", "port": 1, "metadata": {"healthCheck": check}});
        let read = Registration::read(body.as_object().expect("an object")).expect("in order");
        world.nodes.register(read, world.at(ms));
    }

    fn asked(world: &mut World, ms: u64) -> usize {
        world.nodes.due_checks(world.at(ms)).len()
    }

    #[test]
    fn who_wants_it_is_asked_at_once_and_again_behind_each_answer() {
        let mut world = World::new(100);
        register(&mut world, json!({"interval": 1000}), 0);
        assert_eq!(world.nodes.due(), Some(world.at(0).at));
        assert_eq!((asked(&mut world, 0), asked(&mut world, 5000)), (1, 0), "no answer yet");
        let id = "a:h:1".into();
        assert_eq!(world.nodes.checked(&id, Some("refused".into()), world.at(6000)), None);
        register(&mut world, json!({"interval": 1000}), 6500);
        assert_eq!((asked(&mut world, 6999), asked(&mut world, 7000)), (0, 1));
        let failures = (0..4).filter_map(|n| world.nodes.checked(&id, Some("refused".into()), world.at(7000 + n)));
        assert_eq!(failures.map(|fact| fact.name()).collect::<Vec<_>>(), ["circuit_open"]);
        register(&mut world, json!({"url": "tcp://h:1"}), 7500);
        assert_eq!(asked(&mut world, 7500), 1, "in another way");
        register(&mut world, json!(null), 7600);
        assert_eq!((world.nodes.checked(&id, None, world.at(7700)), asked(&mut world, 900_000)), (None, 0));
        register(&mut world, json!({}), 7800);
        world.nodes.deregister("h:1");
        assert!(world.nodes.due().is_none());
    }
}
