//! What is taken back where the journal does not take a change.

use super::{HELD_FOR, Moment, Node, Nodes, State};
use serde_json::{Map, Value};
use std::{sync::Arc, time::Duration};

/// One change, as it is taken back.
#[derive(Debug)]
pub(super) enum Undo {
    /// The instance is new.
    Added(Arc<str>),
    /// It was taken out.
    Taken(Box<Node>),
    /// What is kept of it was this.
    Changed { id: Arc<str>, metadata: Map<String, Value>, ttl: Option<Duration>, maintenance: bool },
}

impl Undo {
    /// The instance is about to change.
    pub(super) fn change(node: &Node) -> Self {
        Undo::Changed {
            id: node.instance.node.clone(),
            metadata: node.metadata.clone(),
            ttl: node.ttl,
            maintenance: node.maintenance,
        }
    }
}

impl Nodes {
    /// What has changed so far stays.
    pub fn commit(&mut self) {
        self.undo.clear();
    }

    /// What is to be kept of instances is again as it was at the last [commit](Self::commit). That they were heard stays.
    pub fn roll_back(&mut self, now: Moment) {
        while let Some(undo) = self.undo.pop() {
            match undo {
                Undo::Added(id) => drop(self.remove(&id)),
                Undo::Taken(node) => self.put_back(*node, now),
                Undo::Changed { id, metadata, ttl, maintenance } => {
                    if let Some(node) = self.by_id.get_mut(&id) {
                        (node.metadata, node.ttl, node.maintenance) = (metadata, ttl, maintenance);
                    }
                    self.plan_check(&id, now.at);
                }
            }
        }
    }

    fn put_back(&mut self, mut node: Node, now: Moment) {
        let id = node.instance.node.clone();
        node.look = now.at + HELD_FOR;
        if let State::Open(until) = node.breaker.state() {
            self.reopenings.insert((until, id.clone()));
        }
        let is_checked = node.check.is_some();
        self.insert(node);
        if is_checked {
            self.check_at(&id, Some(now.at));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::World;
    use crate::registry::{memory, node::Node};
    use serde_json::Value;

    /// Everything that is kept, and who is found how.
    fn kept(world: &World) -> (Vec<Value>, usize, usize) {
        let nodes = world.nodes.of("a").into_iter().flatten();
        let note = |node: &Node| serde_json::from_slice(&memory::note_of_node(node).value).expect("JSON");
        (nodes.map(note).collect(), world.nodes.by_address.len(), world.nodes.len())
    }

    #[test]
    fn a_roll_back_takes_back_every_change_since_the_last_commit() {
        let mut world = World::new(100);
        for port in 1..=3 {
            world.register("a", port, None, 0);
        }
        world.nodes.commit();
        let before = kept(&world);
        world.register("a", 4, None, 1);
        world.register("a", 1, Some(500), 1);
        world.nodes.set_maintenance("h:2", true);
        world.nodes.deregister("h:3");
        assert_eq!(world.tick(502), ["service_unhealthy a:h:1"]);
        assert_eq!(world.nodes.len(), 2);
        world.nodes.roll_back(world.at(502));
        assert_eq!(kept(&world), before);
        assert_eq!(world.nodes.tick(world.at(40_000), false), [], "nobody may go");
        assert_eq!(world.nodes.due(), Some(world.at(41_000).at));
        assert_eq!(world.tick(41_001).len(), 3, "then all of them");
    }
}
