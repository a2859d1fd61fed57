//! Topic filters: `+` is any one level, `#` at the end any number of them (MQTT 5 §4.7).

/// A filter that was checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Filter(String);

impl Filter {
    /// Levels are separated by `/`; a wildcard is a whole level, and `#` the last.
    pub fn parse(text: &str) -> Option<Self> {
        let mut levels = text.split('/').rev();
        let last = levels.next().unwrap_or_default();
        let is_sound = |level: &str| level == "+" || !level.contains(['+', '#']);
        let sound = !text.is_empty() && (last == "#" || is_sound(last)) && levels.all(is_sound);
        sound.then(|| Filter(text.to_owned()))
    }

    /// As typed.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name of a topic, if it can match no other.
    pub fn exact(&self) -> Option<&str> {
        (!self.0.contains(['+', '#'])).then_some(&self.0)
    }

    /// Whether a topic with this name is meant. Wildcards at the front do not mean names that begin with `$`.
    pub fn matches(&self, name: &str) -> bool {
        self.meets(name).is_some_and(|rest| matches!(rest, "" | "#"))
    }

    /// Whether some topic below (or at) this name may be meant.
    pub fn reaches(&self, base: &str) -> bool {
        self.meets(base).is_some()
    }

    /// What of the filter lies behind a name that it agrees with up to there; an empty level there is a `/`.
    fn meets(&self, name: &str) -> Option<&str> {
        if name.starts_with('$') && self.0.starts_with(['+', '#']) {
            return None;
        }
        let mut rest = Some(&*self.0);
        for level in name.split('/') {
            let (own, behind) = rest?.split_once('/').map_or((rest?, None), |(own, behind)| (own, Some(behind)));
            match own {
                "#" => return Some("#"),
                "+" => {}
                own if own == level => {}
                _ => return None,
            }
            rest = behind;
        }
        Some(rest.map_or("", |rest| if rest.is_empty() { "/" } else { rest }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_standards_examples_and_more() {
        for (filter, name, matches) in [
            ("sport/tennis/player1/#", "sport/tennis/player1", true),
            ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", true),
            ("sport/tennis/player1/#", "sport/tennis/player10", false),
            ("sport/#", "sport", true),
            ("#", "a/b", true),
            ("#", "/", true),
            ("sport/tennis/+", "sport/tennis/player1", true),
            ("sport/tennis/+", "sport/tennis/player1/ranking", false),
            ("sport/+", "sport", false),
            ("sport/+", "sport/", true),
            ("+/+", "/finance", true),
            ("/+", "/finance", true),
            ("+", "/finance", false),
            ("+/tennis/#", "sport/tennis/a", true),
            ("a/+/c", "a/b/c", true),
            ("a/+/c", "a/b/d", false),
            ("#", "$SYS/x", false),
            ("+/monitor", "$SYS/monitor", false),
            ("$SYS/#", "$SYS/x", true),
            ("a/b", "a/b", true),
            ("a/b", "a/b/", false),
            ("a/b/", "a/b", false),
            ("a/b", "A/b", false),
            ("a", "a/b", false),
        ] {
            assert_eq!(Filter::parse(filter).expect(filter).matches(name), matches, "{filter} {name}");
        }
        for wrong in ["", "a#", "#/a", "a/#/b", "a+", "+a/b", "a/b+/c", "##", "++"] {
            assert_eq!(Filter::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_filter_reaches_what_may_come() {
        for (filter, reaches) in [
            ("base/events/+", true),
            ("base/events/x", true),
            ("base/events/#", true),
            ("base/#", true),
            ("#", true),
            ("+/+/+", true),
            ("base/other/+", false),
            ("base", false),
        ] {
            assert_eq!(Filter::parse(filter).expect(filter).reaches("base/events"), reaches, "{filter}");
        }
    }
}
