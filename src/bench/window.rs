//! The closed loop: the event `i + W` is sent when every reader has event `i`.

use std::collections::VecDeque;

/// Which events are under way, and how many readers each of them has not reached.
#[derive(Debug)]
pub struct Window {
    size: usize,
    readers: usize,
    first: u64,
    missing: VecDeque<usize>,
}

impl Window {
    /// Of `size` events at once to `readers` readers.
    pub fn new(size: usize, readers: usize) -> Self {
        Window { size, readers, first: 0, missing: VecDeque::with_capacity(size) }
    }

    /// How many more events may be sent now.
    pub fn room(&self) -> usize {
        self.size - self.missing.len()
    }

    /// The next event was sent.
    pub fn sent(&mut self) {
        self.missing.push_back(self.readers);
    }

    /// A reader has this event; says whether that made room.
    pub fn arrived(&mut self, number: u64) -> bool {
        let at = number.checked_sub(self.first).and_then(|at| usize::try_from(at).ok());
        if let Some(missing) = at.and_then(|at| self.missing.get_mut(at)) {
            *missing = missing.saturating_sub(1);
        }
        let before = self.first;
        while self.missing.front() == Some(&0) {
            self.missing.pop_front();
            self.first += 1;
        }
        self.first > before
    }

    /// Waits no longer for what is under way: somebody lost it, or has gone.
    pub fn give_up(&mut self) {
        self.first += self.missing.len() as u64;
        self.missing.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slowest_reader_makes_room() {
        let mut window = Window::new(2, 2);
        window.sent();
        window.sent();
        assert_eq!(window.room(), 0);
        let arrivals = [(1, false), (0, false), (7, false), (0, true), (1, true)];
        let rooms = arrivals.map(|(number, _)| window.arrived(number));
        assert_eq!(rooms, arrivals.map(|(_, made_room)| made_room));
        assert_eq!(window.room(), 2);
        window.sent();
        window.give_up();
        assert_eq!(window.room(), 2);
        window.sent();
        assert!(!window.arrived(2) && !window.arrived(3) && window.arrived(3));
    }
}
