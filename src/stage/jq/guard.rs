//! Native filters that stand where a program may run away: they fail before the stack, or a value, is too deep.
//!
//! Their names cannot be typed; the rewriter puts them into programs.

use super::depth::{self, Extent, MAX_DEPTH};
use jaq_core::{
    Bind, Error, Exn, Native, ValR,
    box_iter::box_once,
    data::JustLut,
    native::{Fun, bome, v},
};
use jaq_json::{Num, Val};
use std::cell::Cell;

/// Lets its input through while there is stack.
pub(super) const GUARD: &str = "!guard";
/// Lets its input through unless it is found to be too deep; looks now and then.
pub(super) const SHALLOW: &str = "!shallow";
/// Lets its input through unless it is a text of JSON that is too deep.
pub(super) const PARSABLE: &str = "!parsable";
/// Multiplies its two arguments.
pub(super) const TIMES: &str = "!times";

/// Stack that is left for what recurses by itself between two checks: along a value, or along the program.
pub(super) const RESERVE: usize = 24 << 20;
/// Bytes of a string that is made by repetition.
const MAX_REPEATED: usize = 64 << 20;
/// How many values are made between two looks, at least and by chance more.
const LOOK_EVERY: u32 = 128;
/// A look at a large value is paid for by this many values per value visited, up to a bound.
const VISITS_PER_VALUE: usize = 32;
const MAX_REST: usize = 8192;

/// The filters.
pub(super) fn filters() -> Vec<Fun<JustLut<Val>>> {
    let guard = Native::new(|cv| bome(with_room(cv.1)))
        .with_paths(|cv| box_once(with_room(cv.1).map_err(Exn::from)))
        .with_update(|cv, update| with_room(cv.1).map_or_else(|error| box_once(Err(error.into())), update));
    let two: Box<[Bind]> = v(2);
    vec![
        (GUARD, v(0), guard),
        (SHALLOW, v(0), Native::new(|cv| bome(shallow(cv.1)))),
        (PARSABLE, v(0), Native::new(|cv| bome(parsable(cv.1)))),
        (
            TIMES,
            two,
            Native::new(|mut cv| {
                let right = cv.0.pop_var();
                let left = cv.0.pop_var();
                bome(product(left, right))
            }),
        ),
    ]
}

fn with_room<T>(value: T) -> Result<T, Error<Val>> {
    match stacker::remaining_stack() {
        Some(left) if left < RESERVE => Err(Error::str("the program calls itself too deeply")),
        _ => Ok(value),
    }
}

thread_local! {
    /// Values that may be made until the next look, and the state of the dice.
    static REST: Cell<u32> = const { Cell::new(LOOK_EVERY) };
    static DICE: Cell<u32> = const { Cell::new(1) };
}

/// Looks by chance, so that no program has a rhythm in which a growing value is never seen.
fn shallow(value: Val) -> ValR<Val> {
    if !depth::is_container(&value) {
        return Ok(value);
    }
    let rest = REST.get();
    if rest > 0 {
        REST.set(rest - 1);
        return Ok(value);
    }
    let look = depth::look_at(&value);
    let paid = u32::try_from((look.visited / VISITS_PER_VALUE).min(MAX_REST)).unwrap_or(0);
    DICE.set(DICE.get().wrapping_mul(747_796_405).wrapping_add(2_891_336_453));
    REST.set(LOOK_EVERY + (DICE.get() >> 24) + paid);
    if look.is_deep { Err(too_deep("a value")) } else { Ok(value) }
}

fn parsable(value: Val) -> ValR<Val> {
    match &value {
        Val::TStr(text) if depth::is_text_deep(text, Extent::Many) => Err(too_deep("the text")),
        _ => Ok(value),
    }
}

fn too_deep(what: &str) -> Error<Val> {
    Error::str(format!("{what} is nested deeper than {MAX_DEPTH} levels"))
}

fn product(left: Val, right: Val) -> ValR<Val> {
    let repeated = match (&left, &right) {
        (Val::TStr(text) | Val::BStr(text), Val::Num(times)) | (Val::Num(times), Val::TStr(text) | Val::BStr(text)) => {
            match times {
                Num::Int(times) => text.len().saturating_mul(usize::try_from(*times).unwrap_or(0)),
                Num::BigInt(_) if !text.is_empty() => usize::MAX,
                _ => 0,
            }
        }
        _ => 0,
    };
    if repeated > MAX_REPEATED {
        return Err(Error::str(format!("a repeated string has more than {MAX_REPEATED} bytes")));
    }
    left * right
}
