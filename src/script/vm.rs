//! One script in an engine of its own: QuickJS, with a bound on time, memory and stack for everything that it does.

use super::fault::{Fault, Host, Limits, Source};
use rquickjs::{
    Coerced, Context, Ctx, Error, Exception, Function, Object, Runtime, Value, context::EvalOptions, function::Rest,
    promise::PromiseState,
};
use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

/// Where the engine gives up recursion; every thread has this and more.
const STACK: usize = 512 << 10;
/// So many failures that nobody waited for are told of one call.
const MAX_LOST: usize = 8;
/// What makes the host's names (see there).
const PRELUDE: &str = include_str!("host.js");
/// Where calls go in, in the script's global object.
const ENTRY: &str = "__wsevent";

/// See the module's text.
pub struct Vm {
    context: Context,
    runtime: Runtime,
    clock: Arc<Clock>,
    limits: Limits,
    file: String,
    host: Arc<dyn Host>,
    lost: Arc<Lost>,
}

/// Promises that were rejected and that nobody waits for, with why, by what tells one from another.
type Lost = Mutex<Vec<(u64, String)>>;

/// When the call that runs now must end, and whether anything was broken off since it began.
#[derive(Default)]
struct Clock {
    deadline: Mutex<Option<Instant>>,
    broke_off: AtomicBool,
}

impl Clock {
    fn set(&self, deadline: Option<Instant>) {
        *self.deadline.lock().unwrap_or_else(|p| p.into_inner()) = deadline;
        self.broke_off.store(false, Ordering::Relaxed);
    }

    fn is_over(&self) -> bool {
        let deadline = *self.deadline.lock().unwrap_or_else(|p| p.into_inner());
        deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }

    /// What the engine asks now and then.
    fn breaks_off(&self) -> bool {
        let is_over = self.is_over();
        self.broke_off.fetch_or(is_over, Ordering::Relaxed);
        is_over
    }
}

impl Vm {
    /// Evaluates a script, and calls its `init`, if it has one.
    ///
    /// # Errors
    /// Why it does not load: where, as far as that is known.
    pub fn load(source: &Source, limits: Limits, host: Arc<dyn Host>) -> Result<Self, Fault> {
        let (clock, lost) = (Arc::<Clock>::default(), Arc::<Lost>::default());
        let (context, runtime) = engine(limits, clock.clone(), lost.clone())?;
        let vm = Vm { context, runtime, clock, limits, file: source.name.clone(), host: host.clone(), lost };
        vm.within(|ctx| {
            install(ctx, host)?;
            ctx.eval_with_options::<Value, _>(source.text.as_str(), options(&source.name))?;
            Ok(String::new())
        })?;
        let argument = serde_json::json!({ "kind": "init", "scriptUri": source.name, "handlerName": "init" });
        vm.call("init", &argument.to_string())?;
        Ok(vm)
    }

    /// Calls one of the prelude's entries with JSON; what it comes to is JSON, too. Promises are waited for.
    ///
    /// # Errors
    /// What the script made of it.
    pub fn call(&self, entry: &str, argument: &str) -> Result<String, Fault> {
        self.within(|ctx| {
            let enter: Function = ctx.globals().get(ENTRY)?;
            let result: Value = enter.call((entry, argument))?;
            let Some(promise) = result.as_promise() else { return result.get() };
            while promise.state() == PromiseState::Pending && !self.clock.is_over() && ctx.execute_pending_job() {}
            // This one we do wait for.
            self.lost().retain(|(known, _)| *known != key_of(&result));
            promise.result().unwrap_or(Err(Error::WouldBlock))
        })
    }

    /// Bytes that the script holds.
    pub fn memory(&self) -> u64 {
        u64::try_from(self.runtime.memory_usage().malloc_size).unwrap_or(0)
    }

    /// Whether nothing good will come of it any more: what it left undone never ends, or it holds nearly all the memory
    /// that it may have.
    pub fn is_spent(&self) -> bool {
        if self.runtime.is_job_pending() {
            return true;
        }
        self.runtime.run_gc();
        self.memory() > self.limits.memory as u64 / 4 * 3
    }

    /// Runs something under the limits, and whatever jobs it leaves.
    fn within(&self, run: impl FnOnce(&Ctx<'_>) -> Result<String, Error>) -> Result<String, Fault> {
        self.clock.set(Some(Instant::now() + self.limits.time));
        let done = self.context.with(|ctx| {
            let done = run(&ctx).map_err(|error| self.fault(&ctx, error));
            while !self.clock.is_over() && ctx.execute_pending_job() {}
            done
        });
        for (_, why) in std::mem::take(&mut *self.lost()) {
            let _ = self.host.ask("log", &["error".into(), format!("nobody waited for what failed: {why}")]);
        }
        let late = self.clock.is_over();
        // A result that came late, but whole, is one all the same.
        let is_whole = !self.clock.broke_off.load(Ordering::Relaxed) && !self.runtime.is_job_pending();
        self.clock.set(None);
        if late && !(is_whole && done.is_ok()) { Err(Fault::TimedOut(self.limits.time)) } else { done }
    }

    fn lost(&self) -> MutexGuard<'_, Vec<(u64, String)>> {
        self.lost.lock().unwrap_or_else(|p| p.into_inner())
    }

    fn fault(&self, ctx: &Ctx<'_>, error: Error) -> Fault {
        let out_of_memory = Fault::OutOfMemory(self.limits.memory);
        match error {
            Error::Exception => {}
            Error::Allocation => return out_of_memory,
            Error::WouldBlock => return Fault::NeverSettled,
            other => return Fault::Threw(other.to_string()),
        }
        let thrown = ctx.catch();
        match thrown.as_exception() {
            Some(exception) => {
                let (message, stack) = (exception.message().unwrap_or_default(), exception.stack().unwrap_or_default());
                let name: String = exception.get("name").unwrap_or_default();
                match (name.as_str(), message.as_str()) {
                    ("InternalError", "out of memory") => out_of_memory,
                    _ => Fault::Threw(placed(&stack, &self.file, &format!("{name}: {message}"))),
                }
            }
            // The engine had no memory left for an exception, either.
            None if thrown.is_null() => out_of_memory,
            None => Fault::Threw(format!("{}: {}", self.file, described(&thrown))),
        }
    }
}

fn engine(limits: Limits, clock: Arc<Clock>, lost: Arc<Lost>) -> Result<(Context, Runtime), Fault> {
    let out_of_memory = |_| Fault::OutOfMemory(limits.memory);
    let runtime = Runtime::new().map_err(out_of_memory)?;
    runtime.set_memory_limit(limits.memory);
    runtime.set_max_stack_size(STACK);
    runtime.set_interrupt_handler(Some(Box::new(move || clock.breaks_off())));
    runtime.set_host_promise_rejection_tracker(Some(Box::new(move |_, promise, reason, is_handled| {
        let key = key_of(&promise);
        // Before the lock: to describe something may reject something else.
        let why = (!is_handled).then(|| described(&reason));
        let mut lost = lost.lock().unwrap_or_else(|p| p.into_inner());
        match why {
            None => lost.retain(|(known, _)| *known != key),
            Some(why) if lost.len() < MAX_LOST => lost.push((key, why)),
            Some(_) => {}
        }
    })));
    let context = Context::full(&runtime).map_err(out_of_memory)?;
    Ok((context, runtime))
}

/// Gives the script its names, and us a way in that it cannot take away.
fn install(ctx: &Ctx<'_>, host: Arc<dyn Host>) -> Result<(), Error> {
    let prelude: Function = ctx.eval_with_options(PRELUDE, options("host.js"))?;
    let entry: Value = prelude.call((native(ctx, host)?,))?;
    let define: Function = ctx.globals().get::<_, Object>("Object")?.get("defineProperty")?;
    let hidden = Object::new(ctx.clone())?;
    hidden.set("value", entry)?;
    define.call((ctx.globals(), ENTRY, hidden))
}

fn options(file: &str) -> EvalOptions {
    let mut options = EvalOptions::default();
    (options.strict, options.filename) = (false, Some(file.to_owned()));
    options
}

/// The one function that the prelude has: a name and texts in, a text or nothing out.
fn native<'js>(ctx: &Ctx<'js>, host: Arc<dyn Host>) -> Result<Function<'js>, Error> {
    Function::new(ctx.clone(), move |ctx: Ctx<'js>, what: String, args: Rest<String>| {
        host.ask(&what, &args).map_err(|why| Exception::throw_message(&ctx, &why))
    })
}

fn key_of(value: &Value<'_>) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// A thrown value as text.
fn described(thrown: &Value<'_>) -> String {
    thrown.get::<Coerced<String>>().map_or_else(|_| "something without a text".into(), |text| text.0)
}

/// With the first place in the script that the stack names in front: `FILE:LINE:COLUMN: what`.
fn placed(stack: &str, file: &str, what: &str) -> String {
    let place = stack.match_indices(file).find_map(|(at, _)| {
        let rest = stack[at + file.len()..].strip_prefix(':')?;
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != ':').unwrap_or(rest.len());
        Some(rest[..end].trim_end_matches(':')).filter(|place| !place.is_empty())
    });
    match place {
        Some(place) => format!("{file}:{place}: {what}"),
        None => format!("{file}: {what}"),
    }
}
