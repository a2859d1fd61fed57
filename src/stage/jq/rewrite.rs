//! Puts the guards into a parsed program, where jq would recurse or build on and on.
//!
//! * A call of what the program itself defines, and each turn of `reduce` and `foreach`, checks the stack first. A call
//!   that hands filters on is no tail call: their chain grows with it.
//! * What makes a value deeper is looked at afterwards, now and then.
//! * `fromjson` checks its text; `*` checks how long a repeated string gets.

use super::{
    depth::MAX_DEPTH,
    guard::{GUARD, PARSABLE, SHALLOW, TIMES},
};
use jaq_core::{
    load::{
        lex::StrPart,
        parse::{BinaryOp, Def, Pattern, Term},
    },
    ops::Math,
    path::{Part, Path},
};

type Tree<'s> = Term<&'s str>;

/// A variable that no program can name.
const FACTOR: &str = "$!factor";
/// Native filters whose results lie deeper than their input.
const DEEPENING: [(&str, usize); 3] = [("group_by", 1), ("key_values", 0), ("path_value", 1)];

/// What a name in scope calls.
struct Known<'s> {
    name: &'s str,
    arity: usize,
    takes_filters: bool,
}

/// Rewrites one definition of the library, or a program.
pub(super) struct Rewriter<'s> {
    scope: Vec<Known<'s>>,
    /// Whether calls of filter arguments are guarded.
    guards_arguments: bool,
    depth: usize,
    is_too_deep: bool,
}

/// A definition of the library: it is known to be sound where it hands filters on.
pub(super) fn library<'s>(def: Def<&'static str>) -> Def<&'s str> {
    Rewriter { scope: Vec::new(), guards_arguments: false, depth: 0, is_too_deep: false }.def(def)
}

/// A program, as a definition of that name.
///
/// # Errors
/// When it is nested too deeply.
pub(super) fn program<'s>(name: &'s str, body: Tree<'s>) -> Result<Def<&'s str>, String> {
    let mut rewriter = Rewriter { scope: Vec::new(), guards_arguments: true, depth: 0, is_too_deep: false };
    let def = rewriter.def(Def { name, args: Vec::new(), body });
    if rewriter.is_too_deep { Err(format!("nested deeper than {MAX_DEPTH} levels")) } else { Ok(def) }
}

fn pipe<'s>(left: Tree<'s>, right: Tree<'s>) -> Tree<'s> {
    Term::BinOp(Box::new(left), BinaryOp::Pipe(None), Box::new(right))
}

fn call(name: &str) -> Tree<'_> {
    Term::Call(name, Vec::new())
}

fn guarded(term: Tree<'_>) -> Tree<'_> {
    pipe(call(GUARD), term)
}

fn looked_at(term: Tree<'_>) -> Tree<'_> {
    pipe(term, call(SHALLOW))
}

fn is_filter(arg: &str) -> bool {
    !arg.starts_with('$')
}

impl<'s> Rewriter<'s> {
    fn def(&mut self, def: Def<&'s str>) -> Def<&'s str> {
        let outside = self.scope.len();
        self.declare(&def);
        if self.guards_arguments {
            let filters = def.args.iter().filter(|arg| is_filter(arg));
            self.scope.extend(filters.map(|name| Known { name, arity: 0, takes_filters: false }));
        }
        let body = self.below(def.args.len(), |rewriter| rewriter.term(def.body));
        self.scope.truncate(outside);
        Def { name: def.name, args: def.args, body }
    }

    fn declare(&mut self, def: &Def<&'s str>) {
        let takes_filters = def.args.iter().any(|arg| is_filter(arg));
        self.scope.push(Known { name: def.name, arity: def.args.len(), takes_filters });
    }

    /// Rewrites what lies so many levels below.
    fn below<T>(&mut self, levels: usize, rewrite: impl FnOnce(&mut Self) -> T) -> T {
        self.depth += levels;
        self.is_too_deep |= self.depth > MAX_DEPTH;
        let rewritten = rewrite(self);
        self.depth -= levels;
        rewritten
    }

    fn terms(&mut self, terms: Vec<Tree<'s>>) -> Vec<Tree<'s>> {
        self.below(terms.len(), |rewriter| terms.into_iter().map(|term| rewriter.term(term)).collect())
    }

    fn boxed(&mut self, mut term: Box<Tree<'s>>) -> Box<Tree<'s>> {
        *term = self.term(std::mem::take(&mut *term));
        term
    }

    fn term(&mut self, term: Tree<'s>) -> Tree<'s> {
        self.below(1, |rewriter| if rewriter.is_too_deep { Term::Id } else { rewriter.rewritten(term) })
    }

    fn rewritten(&mut self, term: Tree<'s>) -> Tree<'s> {
        match term {
            Term::Id | Term::Recurse | Term::Num(_) | Term::Break(_) | Term::Var(_) | Term::Arr(None) => term,
            Term::Str(format, parts) => self.string(format, parts),
            Term::Arr(Some(items)) => looked_at(Term::Arr(Some(self.boxed(items)))),
            Term::Obj(members) => self.object(members),
            Term::Neg(term) => Term::Neg(self.boxed(term)),
            Term::BinOp(left, op, right) => self.operation(left, op, right),
            Term::Label(name, term) => Term::Label(name, self.boxed(term)),
            Term::Fold(name, items, pattern, args) => {
                let (items, pattern, mut args) = (self.boxed(items), self.pattern(pattern), self.terms(args));
                // The second is what is done each turn.
                if let Some(update) = args.get_mut(1) {
                    *update = guarded(std::mem::take(update));
                }
                Term::Fold(name, items, pattern, args)
            }
            Term::TryCatch(tried, caught) => Term::TryCatch(self.boxed(tried), caught.map(|caught| self.boxed(caught))),
            Term::IfThenElse(branches, otherwise) => self.below(branches.len(), |rewriter| {
                let branch = |(condition, then)| (rewriter.term(condition), rewriter.term(then));
                let branches = branches.into_iter().map(branch).collect();
                Term::IfThenElse(branches, otherwise.map(|otherwise| rewriter.boxed(otherwise)))
            }),
            Term::Def(defs, term) => self.local(defs, term),
            Term::Call(name, args) => self.call(name, args),
            Term::Path(term, path) => {
                let term = self.boxed(term);
                Term::Path(term, self.path(path))
            }
        }
    }

    fn local(&mut self, defs: Vec<Def<&'s str>>, term: Box<Tree<'s>>) -> Tree<'s> {
        let outside = self.scope.len();
        let mut rewritten = Vec::with_capacity(defs.len());
        for def in defs {
            let def = self.def(def);
            self.declare(&def);
            rewritten.push(def);
        }
        let term = self.boxed(term);
        self.scope.truncate(outside);
        Term::Def(rewritten, term)
    }

    fn known(&self, name: &str, arity: usize) -> Option<&Known<'s>> {
        self.scope.iter().rev().find(|known| known.name == name && known.arity == arity)
    }

    fn call(&mut self, name: &'s str, args: Vec<Tree<'s>>) -> Tree<'s> {
        let arity = args.len();
        let called = Term::Call(name, self.terms(args));
        match self.known(name, arity).map(|known| known.takes_filters) {
            Some(true) => guarded(pipe(called, Term::Id)),
            Some(false) => guarded(called),
            None if name == "fromjson" && arity == 0 => pipe(call(PARSABLE), called),
            None if DEEPENING.contains(&(name, arity)) => looked_at(called),
            None => called,
        }
    }

    fn string(&mut self, format: Option<&'s str>, parts: Vec<StrPart<&'s str, Tree<'s>>>) -> Tree<'s> {
        let is_own = format.is_some_and(|format| self.known(format, 0).is_some());
        let part = |rewriter: &mut Self, part| match part {
            StrPart::Term(term) if is_own => StrPart::Term(pipe(rewriter.term(term), call(GUARD))),
            StrPart::Term(term) => StrPart::Term(rewriter.term(term)),
            other => other,
        };
        let parts = self.below(parts.len(), |rewriter| parts.into_iter().map(|one| part(rewriter, one)).collect());
        Term::Str(format, parts)
    }

    fn object(&mut self, members: Vec<(Tree<'s>, Option<Tree<'s>>)>) -> Tree<'s> {
        if members.is_empty() {
            return Term::Obj(members);
        }
        let member = |rewriter: &mut Self, (key, value): (Tree<'s>, Option<Tree<'s>>)| {
            (rewriter.term(key), value.map(|value| rewriter.term(value)))
        };
        let levels = members.len();
        let rewrite = |rewriter: &mut Self| members.into_iter().map(|one| member(rewriter, one)).collect();
        looked_at(Term::Obj(self.below(levels, rewrite)))
    }

    fn operation(&mut self, left: Box<Tree<'s>>, op: BinaryOp<&'s str>, right: Box<Tree<'s>>) -> Tree<'s> {
        let (left, right) = (self.boxed(left), self.boxed(right));
        match op {
            BinaryOp::Math(Math::Mul) => Term::Call(TIMES, vec![*left, *right]),
            BinaryOp::UpdateMath(Math::Mul) => {
                let product = Term::Call(TIMES, vec![Term::Id, Term::Var(FACTOR)]);
                let update = Term::BinOp(left, BinaryOp::Update, Box::new(product));
                let factor = BinaryOp::Pipe(Some(Pattern::Var(FACTOR)));
                looked_at(Term::BinOp(right, factor, Box::new(update)))
            }
            BinaryOp::Assign | BinaryOp::Update | BinaryOp::UpdateMath(_) | BinaryOp::UpdateAlt => {
                looked_at(Term::BinOp(left, op, right))
            }
            BinaryOp::Pipe(Some(pattern)) => {
                let pattern = self.pattern(pattern);
                Term::BinOp(left, BinaryOp::Pipe(Some(pattern)), right)
            }
            _ => Term::BinOp(left, op, right),
        }
    }

    fn pattern(&mut self, pattern: Pattern<&'s str>) -> Pattern<&'s str> {
        let rewrite = |rewriter: &mut Self| match pattern {
            Pattern::Var(name) => Pattern::Var(name),
            _ if rewriter.is_too_deep => Pattern::Arr(Vec::new()),
            Pattern::Arr(items) => rewriter.below(items.len(), |rewriter| {
                Pattern::Arr(items.into_iter().map(|item| rewriter.pattern(item)).collect())
            }),
            Pattern::Obj(members) => rewriter.below(members.len(), |rewriter| {
                let member = |(key, inner)| (rewriter.term(key), rewriter.pattern(inner));
                Pattern::Obj(members.into_iter().map(member).collect())
            }),
        };
        self.below(1, rewrite)
    }

    fn path(&mut self, path: Path<Tree<'s>>) -> Path<Tree<'s>> {
        let part = |rewriter: &mut Self, part| match part {
            Part::Index(index) => Part::Index(rewriter.term(index)),
            Part::Range(from, to) => Part::Range(from.map(|from| rewriter.term(from)), to.map(|to| rewriter.term(to))),
        };
        let levels = path.0.len();
        let rewrite = |rewriter: &mut Self| path.0.into_iter().map(|(one, opt)| (part(rewriter, one), opt)).collect();
        Path(self.below(levels, rewrite))
    }
}
