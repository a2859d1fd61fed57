//! `--filter` and `--map`: jq programs over payloads.
//!
//! The input is the payload's JSON value; a payload that is not JSON is a string. A result that is a string becomes the
//! payload as it is, anything else compact JSON. jq has no bound in time or memory: operators' programs only.
//!
//! jq recurses on the stack, along the program and along values, and Rust ends a process whose stack is used up. So a
//! program has a large stack, nothing that it reads or gives is nested deeper than [`MAX_DEPTH`], and [`rewrite`] puts
//! checks where it may recurse or build without end. A panic of the library is one more error of that event.

mod depth;
mod guard;
mod rewrite;

pub use depth::MAX_DEPTH;

use self::depth::Extent;
use super::failures::Failures;
use crate::{event::Event, panics, topic::Stage};
use jaq_core::{
    Compiler, Ctx, Filter, ValX, Vars, data,
    load::{
        Arena, File, Loader,
        lex::{Lexer, StrPart, Tok, Token},
        parse::{Parser, Term},
    },
};
use jaq_json::{Val, read};
use std::{
    slice,
    sync::{Arc, atomic::AtomicU64},
};

/// Stack that a thread should have on which programs run; with much less, each run pays for a new one.
pub const STACK: usize = 64 << 20;
/// Stack that a run begins with at least.
const NEEDED: usize = 48 << 20;
/// Bytes of a program, and levels that its parser may go down.
const MAX_TEXT: usize = 32 << 10;
const MAX_PARSED: usize = 4 * MAX_DEPTH;
/// Words at which the parser goes down a level, beside brackets.
const DESCENTS: [&str; 12] =
    ["-", "try", "catch", "if", "then", "elif", "else", "reduce", "foreach", "label", "def", "as"];
/// Definitions and functions of the library that would end the process.
const LEFT_OUT: [&str; 2] = ["halt", "halt_error"];
/// The program's own name.
const PROGRAM: &str = "program__";

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
        if text.len() > MAX_TEXT {
            return Err(format!("a program has at most {MAX_TEXT} bytes, and this one {}", text.len()));
        }
        let compile = || stacker::maybe_grow(NEEDED, STACK, || compiled(text));
        let filter = panics::contain(compile).unwrap_or_else(|| Err("the jq library cannot compile it".into()));
        let filter = filter.map_err(|why| format!("`{text}`: {why}"))?;
        Ok(Program { filter, text: text.into() })
    }

    /// Every result for one payload.
    fn run<T>(&self, payload: &[u8], mut take: impl FnMut(Val) -> Result<T, String>) -> Result<Vec<T>, String> {
        let run = || stacker::maybe_grow(NEEDED, STACK, || self.evaluate(payload, &mut take));
        panics::contain(run).unwrap_or_else(|| Err("the jq library panicked".into()))
    }

    fn evaluate<T>(&self, payload: &[u8], take: &mut impl FnMut(Val) -> Result<T, String>) -> Result<Vec<T>, String> {
        if depth::is_text_deep(payload, Extent::One) {
            return Err(too_deep("the payload"));
        }
        let input =
            read::parse_single(payload).unwrap_or_else(|_| Val::from(String::from_utf8_lossy(payload).into_owned()));
        let context = Ctx::<data::JustLut<Val>>::new(&self.filter.lut, Vars::new([]));
        self.filter.id.run((context, input)).map(|result| take(value_of(result)?)).collect()
    }

    /// Whether any result is neither false nor null.
    ///
    /// # Errors
    /// The program's own.
    pub fn matches(&self, payload: &[u8]) -> Result<bool, String> {
        let truths = self.run(payload, |value| Ok(!matches!(value, Val::Null | Val::Bool(false))))?;
        Ok(truths.contains(&true))
    }
}

/// A result, or what the program failed with.
fn value_of(result: ValX<'_, Val>) -> Result<Val, String> {
    result.map_err(|thrown| match thrown.get_err() {
        Ok(error) => error.to_string(),
        Err(_) => "the program broke out of itself".into(),
    })
}

fn too_deep(what: &str) -> String {
    format!("{what} is nested deeper than {MAX_DEPTH} levels")
}

fn compiled(text: &str) -> Result<Filter<data::JustLut<Val>>, String> {
    let program = rewrite::program(PROGRAM, parsed(text)?)?;
    let library = jaq_core::defs().chain(jaq_std::defs()).chain(jaq_json::defs());
    let library = library.filter(|def| !LEFT_OUT.contains(&def.name)).map(rewrite::library);
    let functions = jaq_core::funs().chain(jaq_std::funs()).chain(jaq_json::funs());
    let functions = functions.filter(|(name, ..)| !LEFT_OUT.contains(name)).chain(guard::filters());
    let arena = Arena::default();
    let modules = Loader::new(library.chain([program])).load(&arena, File { code: PROGRAM, path: () });
    let modules = modules.map_err(|_| "the jq library cannot load it".to_owned())?;
    Compiler::default().with_funs(functions).compile(modules).map_err(|errors| {
        let unknown = errors.iter().flat_map(|(_, errors)| errors);
        let unknown = unknown.map(|(name, what)| format!("unknown {} `{name}`", what.as_str()));
        unknown.collect::<Vec<_>>().join(", ")
    })
}

/// The program's tree. A module head is refused: nothing can be loaded here.
fn parsed(text: &str) -> Result<Term<&str>, String> {
    let expected = |what: &str, at: &str| format!("expected {what} at `{at}`");
    let tokens = Lexer::new(text)
        .lex()
        .map_err(|errors| errors.iter().map(|(what, at)| expected(what.as_str(), at)).collect::<Vec<_>>().join(", "))?;
    if let Some(Token(word @ ("import" | "include" | "module"), Tok::Word)) = tokens.first() {
        return Err(format!("`{word}`: there are no modules here"));
    }
    if levels(&tokens) > MAX_PARSED {
        return Err(too_deep("the program"));
    }
    Parser::new(&tokens).parse(|parser| parser.term()).map_err(|errors| {
        let errors = errors.iter().map(|(what, at)| expected(what.as_str(), Token::opt_as_str(*at, text)));
        errors.collect::<Vec<_>>().join(", ")
    })
}

/// How many levels the parser goes down at most.
fn levels(tokens: &[Token<&str>]) -> usize {
    let words =
        tokens.iter().filter(|Token(text, kind)| matches!(kind, Tok::Word | Tok::Sym) && DESCENTS.contains(text));
    let below = tokens.iter().map(|Token(_, kind)| match kind {
        Tok::Block(inner) => 2 + levels(inner),
        Tok::Str(parts) => {
            let terms = parts.iter().filter_map(|part| match part {
                StrPart::Term(term) => Some(2 + levels(slice::from_ref(term))),
                _ => None,
            });
            terms.max().unwrap_or(0)
        }
        _ => 0,
    });
    words.count() + below.max().unwrap_or(0)
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

/// `--until`: knows the last event.
pub struct Until {
    program: Program,
    failures: Failures,
}

impl Until {
    /// From a compiled program.
    pub fn new(program: Program) -> Self {
        Until { program, failures: Failures::default() }
    }

    /// Whether this is the last one; it is not where the program fails.
    pub fn is_reached(&mut self, payload: &[u8]) -> bool {
        self.program.matches(payload).unwrap_or_else(|error| {
            self.failures.count("jq failed: not the last", &self.program.text, &error);
            false
        })
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
            Val::TStr(text) | Val::BStr(text) => Ok(text.to_vec()),
            other if depth::look_at(other).is_deep => Err(too_deep("a result")),
            other => Ok(other.to_string().into_bytes()),
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
mod tests;
