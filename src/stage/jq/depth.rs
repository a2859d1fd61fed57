//! How deeply JSON is nested, found without recursion.

use jaq_json::Val;
use memchr::{memchr, memchr2, memchr2_iter};

/// Arrays and objects that may lie in one another: in what programs read, in what they make, and in programs.
pub const MAX_DEPTH: usize = 1000;
/// Values that one look at a value visits at most: a value that holds itself many times over is soon larger than memory.
const MAX_VISITED: usize = 1 << 20;

/// How much of a text a parser reads.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Extent {
    /// One value.
    One,
    /// Values, one after another.
    Many,
}

/// Whether a parser that reads this text meets more than [`MAX_DEPTH`] levels before the end, or before what is no JSON.
pub(super) fn is_text_deep(text: &[u8], extent: Extent) -> bool {
    memchr2_iter(b'[', b'{', text).nth(MAX_DEPTH).is_some() && depth_is_over(text, extent)
}

fn depth_is_over(text: &[u8], extent: Extent) -> bool {
    let (mut rest, mut depth, mut value_may_begin) = (text, 0_usize, true);
    while let Some((&byte, behind)) = rest.split_first() {
        rest = behind;
        match byte {
            b' ' | b'\t' | b'\r' | b'\n' => continue,
            b'#' => {
                rest = memchr(b'\n', rest).map_or(&[], |end| rest.get(end..).unwrap_or_default());
                continue;
            }
            b',' | b':' => value_may_begin = true,
            b'[' | b'{' if value_may_begin || depth == 0 => {
                depth += 1;
                value_may_begin = true;
            }
            b'[' | b'{' => return false,
            b']' | b'}' if depth == 0 => return false,
            b']' | b'}' => {
                depth -= 1;
                value_may_begin = false;
            }
            b'"' => {
                rest = behind_string(rest);
                value_may_begin = false;
            }
            _ => value_may_begin = false,
        }
        if depth > MAX_DEPTH {
            return true;
        }
        if depth == 0 && extent == Extent::One {
            return false;
        }
    }
    false
}

/// The text behind the string whose opening quote has been read.
fn behind_string(mut rest: &[u8]) -> &[u8] {
    while let Some(at) = memchr2(b'"', b'\\', rest) {
        let (is_end, skipped) = (rest.get(at) == Some(&b'"'), at + 1);
        rest = rest.get(skipped + usize::from(!is_end)..).unwrap_or_default();
        if is_end {
            return rest;
        }
    }
    &[]
}

/// One look at a value.
pub(super) struct Look {
    /// Whether there are more than [`MAX_DEPTH`] levels.
    pub is_deep: bool,
    /// Values that were visited.
    pub visited: usize,
}

/// Looks at all of a value, up to a bound.
pub(super) fn look_at(value: &Val) -> Look {
    let (mut open, mut visited) = (vec![(value, 1)], 0);
    while let Some((value, depth)) = open.pop() {
        if depth > MAX_DEPTH {
            return Look { is_deep: true, visited };
        }
        match value {
            Val::Arr(items) => {
                visited += items.len();
                open.extend(items.iter().filter(|item| is_container(item)).map(|item| (item, depth + 1)));
            }
            Val::Obj(members) => {
                visited += members.len();
                let inner = members.iter().flat_map(|(key, value)| [key, value]);
                open.extend(inner.filter(|inner| is_container(inner)).map(|inner| (inner, depth + 1)));
            }
            _ => {}
        }
        if visited > MAX_VISITED {
            break;
        }
    }
    Look { is_deep: false, visited }
}

/// Whether other values lie in it.
pub(super) fn is_container(value: &Val) -> bool {
    matches!(value, Val::Arr(_) | Val::Obj(_))
}

#[cfg(test)]
mod tests {
    use super::*;
    use jaq_json::read::parse_single;

    fn nested(levels: usize) -> String {
        format!("{}{}", "[".repeat(levels), "]".repeat(levels))
    }

    #[test]
    fn a_text_is_deep_from_the_first_level_over_the_bound() {
        let members = |levels: usize| format!("{}1{}", r#"{"a":"#.repeat(levels), "}".repeat(levels));
        for (text, is_deep) in [
            (nested(1000), false),
            (nested(1001), true),
            (members(1000), false),
            (members(1001), true),
            (format!("[1,\"]\\\"]\",{}]", nested(1000)), true),
            (format!("[\"{}\"]", nested(5000)), false),
            (format!("[1, 2] {}", nested(5000)), false),
            (format!(" # \"\n {}", nested(1001)), true),
            (format!("[{}]", "[],".repeat(5000)), false),
            ("[31mred ".repeat(5000), false),
            ("[1 ".repeat(5000), false),
            ("[".repeat(1001), true),
            ("]".repeat(5000), false),
        ] {
            assert_eq!(is_text_deep(text.as_bytes(), Extent::One), is_deep, "{}", &text[..text.len().min(60)]);
        }
        assert!(is_text_deep(format!("1 {}", nested(1001)).as_bytes(), Extent::Many));
        assert!(!is_text_deep("[1] ".repeat(5000).as_bytes(), Extent::Many));
    }

    #[test]
    fn a_value_is_deep_from_the_first_level_over_the_bound() {
        let value = |text: String| parse_single(text.as_bytes()).expect("JSON");
        assert!(!look_at(&value(nested(1000))).is_deep);
        assert!(look_at(&value(nested(1001))).is_deep);
        assert!(look_at(&value(format!("{{{}: 1}}", nested(1000)))).is_deep, "keys may be anything");
        assert_eq!(look_at(&value("[1, [2, 3], {\"a\": 4}]".into())).visited, 6);
    }
}
