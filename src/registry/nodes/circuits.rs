//! Which instances are left alone, and what is passed on to the others.

use super::{Fact, Moment, Node, Nodes, State, pop_due};
use crate::registry::node::Passing;

impl Nodes {
    /// How many are left alone.
    pub fn open_circuits(&self) -> usize {
        self.reopenings.len()
    }

    /// A request is passed on to this instance; `None` when it is unknown.
    pub fn hold(&mut self, id: &str) -> Option<Passing> {
        self.by_id.get_mut(id).map(Node::hold)
    }

    /// What came of asking an instance: the instance, and the fact if its circuit changed. While it is open nobody is
    /// sent there, and what is said about it changes nothing.
    pub fn report(&mut self, name: &str, success: bool, now: Moment) -> Option<(&Node, Option<Fact>)> {
        let node = self.get_mut(name)?;
        let id = node.instance.node.clone();
        if !success {
            node.last_failure = now.ms;
        }
        let changed = match (success, node.breaker.state()) {
            (true, State::Open(_)) => None,
            (true, _) => node.breaker.succeeded(),
            (false, _) => node.breaker.failed(now.at),
        };
        node.traffic.end_trial();
        let fact = match changed {
            Some(State::Open(until)) => {
                node.next_try = now.ms + (until - now.at).as_millis() as u64;
                let fact = Fact::CircuitOpen(node.instance.clone(), node.breaker.failures());
                self.reopenings.insert((until, id.clone()));
                Some(fact)
            }
            Some(State::Closed) => Some(Fact::CircuitClosed(node.instance.clone())),
            _ => None,
        };
        self.by_id.get(&id).map(|node| (node, fact))
    }

    /// Whose time alone is over is tried again.
    pub(super) fn half_open(&mut self, now: Moment) -> Vec<Fact> {
        let mut facts = Vec::new();
        while let Some((_, id)) = pop_due(&mut self.reopenings, |due| due <= now.at) {
            let Some(node) = self.by_id.get_mut(&id) else { continue };
            if node.breaker.tick(now.at) == Some(State::HalfOpen) {
                node.next_try = 0;
                facts.push(Fact::CircuitHalfOpen(node.instance.clone()));
            }
        }
        facts
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::World;

    #[test]
    fn a_circuit_opens_half_opens_by_time_and_closes() {
        let mut world = World::new(100);
        world.register("a", 1, Some(3_600_000), 0);
        let report = |world: &mut World, success, ms| {
            let now = world.at(ms);
            let (_, fact) = world.nodes.report("h:1", success, now).expect("known");
            fact.map(|fact| fact.name())
        };
        assert_eq!((0..4).find_map(|_| report(&mut world, false, 0)), None);
        assert_eq!(report(&mut world, false, 0), Some("circuit_open"));
        assert_eq!((report(&mut world, false, 1), report(&mut world, true, 2)), (None, None), "open is open");
        assert_eq!(world.nodes.get("h:1").map(|node| (node.next_try, node.is_available())), Some((16_000, false)));
        assert_eq!(world.tick(15_999), Vec::<String>::new());
        assert_eq!(world.tick(16_000), ["circuit_half_open a:h:1"]);
        assert_eq!(report(&mut world, false, 16_001), Some("circuit_open"));
        assert_eq!(world.tick(46_001), ["circuit_half_open a:h:1"]);
        assert_eq!(report(&mut world, true, 46_002), Some("circuit_closed"));
        assert_eq!(report(&mut world, true, 46_003), None);
        assert_eq!(world.nodes.open_circuits(), 0);
    }

    #[test]
    fn a_half_open_one_is_free_for_one_trial_at_a_time() {
        let mut world = World::new(100);
        world.register("a", 1, Some(3_600_000), 0);
        let is_free = |world: &World| world.nodes.get("h:1").is_some_and(|node| node.is_free());
        let before = world.nodes.hold("a:h:1");
        (0..5).for_each(|_| drop(world.nodes.report("h:1", false, world.at(0))));
        assert!(!is_free(&world), "open");
        world.tick(16_000);
        assert!(is_free(&world), "who held on from before is no trial");
        let trial = world.nodes.hold("a:h:1");
        assert!(!is_free(&world) && world.nodes.get("h:1").is_some_and(|node| node.is_available()));
        drop((before, trial));
        assert!(is_free(&world), "given up");
        let trial = world.nodes.hold("a:h:1");
        world.nodes.report("h:1", true, world.at(16_001));
        assert!(is_free(&world) && trial.is_some(), "it is well again");
        assert_eq!(world.nodes.get("h:1").map(|node| node.traffic.count()), Some(1));
    }
}
