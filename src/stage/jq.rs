//! `--filter` and `--map`: jq programs over payloads.
//!
//! The input is the payload's JSON value; a payload that is not JSON is a string. A result that is a string becomes the
//! payload as it is, anything else compact JSON. jq has no bound in time or memory: operators' programs only.

use super::failures::Failures;
use crate::{event::Event, topic::Stage};
use jaq_core::{
    Compiler, Ctx, Filter, Vars, data,
    load::{Arena, File, Loader},
    unwrap_valr,
};
use jaq_json::{Val, read};
use std::sync::{Arc, atomic::AtomicU64};

/// A compiled program.
pub struct Program {
    filter: Filter<data::JustLut<Val>>,
    text: String,
}

impl Program {
    /// Compiles.
    ///
    /// # Errors
    /// What is wrong, where.
    pub fn compile(text: &str) -> Result<Self, String> {
        let definitions = jaq_core::defs().chain(jaq_std::defs()).chain(jaq_json::defs());
        let functions = jaq_core::funs().chain(jaq_std::funs()).chain(jaq_json::funs());
        let arena = Arena::default();
        let file = File { code: text, path: () };
        let modules = Loader::new(definitions).load(&arena, file).map_err(|errors| explain(text, &errors))?;
        let filter = Compiler::default().with_funs(functions).compile(modules);
        let filter = filter.map_err(|errors| {
            let unknown = errors
                .iter()
                .flat_map(|(_, errors)| errors)
                .map(|(name, what)| format!("unknown {} `{name}`", what.as_str()));
            format!("`{text}`: {}", unknown.collect::<Vec<_>>().join(", "))
        })?;
        Ok(Program { filter, text: text.into() })
    }

    /// Every result for one payload.
    fn run<T>(&self, payload: &[u8], mut take: impl FnMut(Val) -> T) -> Result<Vec<T>, String> {
        let input =
            read::parse_single(payload).unwrap_or_else(|_| Val::from(String::from_utf8_lossy(payload).into_owned()));
        let context = Ctx::<data::JustLut<Val>>::new(&self.filter.lut, Vars::new([]));
        let results = self.filter.id.run((context, input)).map(unwrap_valr);
        results.map(|result| result.map(&mut take).map_err(|error| error.to_string())).collect()
    }

    /// Whether any result is neither false nor null.
    ///
    /// # Errors
    /// The program's own.
    pub fn matches(&self, payload: &[u8]) -> Result<bool, String> {
        let truths = self.run(payload, |value| !matches!(value, Val::Null | Val::Bool(false)))?;
        Ok(truths.contains(&true))
    }
}

/// The first error, with what stands at its place.
fn explain<P>(text: &str, errors: &[(File<&str, P>, jaq_core::load::Error<&str>)]) -> String {
    use jaq_core::load::Error;
    let what = errors.iter().map(|(_, error)| match error {
        Error::Io(errors) => errors.iter().map(|(path, error)| format!("{path}: {error}")).collect::<Vec<_>>(),
        Error::Lex(errors) => {
            errors.iter().map(|(expected, at)| format!("expected {} at `{at}`", expected.as_str())).collect()
        }
        Error::Parse(errors) => {
            errors.iter().map(|(expected, at)| format!("expected {} at `{at}`", expected.as_str())).collect()
        }
    });
    format!("`{text}`: {}", what.flatten().collect::<Vec<_>>().join(", "))
}

/// `--filter`: lets events through.
pub struct Keep {
    program: Program,
    failures: Failures,
}

/// `--map`: turns one event into as many as the program has results.
pub struct Map {
    program: Program,
    failures: Failures,
}

impl Keep {
    /// From a compiled program.
    pub fn new(program: Program) -> Self {
        Keep { program, failures: Failures::default() }
    }
}

impl Map {
    /// From a compiled program.
    pub fn new(program: Program) -> Self {
        Map { program, failures: Failures::default() }
    }
}

impl Stage for Keep {
    fn apply(&mut self, event: Event, out: &mut Vec<Event>) {
        match self.program.matches(&event.payload) {
            Ok(true) => out.push(event),
            Ok(false) => {}
            Err(error) => self.failures.count("jq failed: dropped", &self.program.text, &error),
        }
    }

    fn errors(&self) -> Option<Arc<AtomicU64>> {
        Some(self.failures.all.clone())
    }
}

impl Stage for Map {
    fn apply(&mut self, event: Event, out: &mut Vec<Event>) {
        let payload = |value: Val| match &value {
            Val::TStr(text) | Val::BStr(text) => text.to_vec(),
            other => other.to_string().into_bytes(),
        };
        match self.program.run(&event.payload, payload) {
            Ok(payloads) => {
                out.extend(
                    payloads.into_iter().map(|payload| Event { attrs: event.attrs.clone(), ..Event::new(payload) }),
                );
            }
            Err(error) => self.failures.count("jq failed: dropped", &self.program.text, &error),
        }
    }

    fn errors(&self) -> Option<Arc<AtomicU64>> {
        Some(self.failures.all.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn through(mut stage: impl Stage, payloads: &[&str]) -> Vec<String> {
        let mut out = Vec::new();
        for payload in payloads {
            stage.apply(Event::new(payload.as_bytes().to_vec()), &mut out);
        }
        out.iter().map(|event| String::from_utf8_lossy(&event.payload).into_owned()).collect()
    }

    fn compile(text: &str) -> Program {
        Program::compile(text).expect("compiles")
    }

    #[test]
    fn filters_let_through_unchanged() {
        let payloads = [r#"{"a": 1}"#, r#"{"a":2}"#, "not json", r#"{"a":"1"}"#];
        assert_eq!(through(Keep::new(compile(".a == 1")), &payloads), [r#"{"a": 1}"#]);
        assert_eq!(through(Keep::new(compile(r#"test("not")"#)), &payloads), ["not json"]);
    }

    #[test]
    fn maps_give_strings_raw_and_the_rest_compact() {
        assert_eq!(through(Map::new(compile(".a, .b")), &[r#"{"a": "x", "b": {"c": 1}}"#]), ["x", r#"{"c":1}"#]);
        assert_eq!(through(Map::new(compile("empty")), &["1"]), [""; 0]);
        assert_eq!(through(Map::new(compile(".a")), &["[1]", r#"{"a":5}"#]), ["5"], "a failure drops that event only");
    }

    #[test]
    fn errors_name_the_program() {
        for bad in [".a |", "frobnicate", "$x", "{"] {
            let error = Program::compile(bad).err().expect("refused");
            assert!(error.starts_with(&format!("`{bad}`: ")) && error.len() > bad.len() + 5, "{error}");
        }
    }
}
