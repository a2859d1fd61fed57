//! Event streaming without a broker: *an event URL is a topic*.
//!
//! A topic is a bounded log of events with stages in front. Sources publish into it, cursors read from it, and
//! everything else is edges. Instances chain because the reader of one topic is the source of the next.
//!
//! The modules in reading order; each may use those before it, never the other way round (`tests/layers.rs`):
//!
//! | layer | modules |
//! |---|---|
//! | words | [`id`] positions · [`units`] durations and sizes · [`panics`] faults of our own |
//! | core: no sockets, no flags, no protocol names | [`event`] events, batches · [`pins`] who may hold whom · [`log`] the window · [`recorder`] who keeps it · [`tally`] what became of readers · [`topic`] stages + log · [`topics`] them by path · [`matcher`] field equality · [`wanted`] shared matches · [`audience`] who may see what · [`roll`] who reads now · [`streams`] topics that are named while we run |
//! | edges | [`link`] what instances say to each other · [`journal`] windows on disk · [`net`], [`tls`], [`sys`] connections · [`stdio`] standard input and output · [`logging`] standard error · [`files`] what may change · [`token`] who may do what · [`stage`] · [`source`] what supplies a topic · [`proto`] how readers are served · [`balance`] back ends behind one URL · [`registry`] services as events · [`graphql`] subscriptions by name · [`script`] streams and routes that scripts name · [`bench`] what measures streams · [`site`] what a process serves |
//! | meaning | [`cli`] what was typed · [`plan`] what was meant · [`manual`] the page about it |
//! | run | [`app`] a plan · [`trace`] a look at a chain |
//!
//! Invariants: only the log gives positions; an entry never changes after append, its encodings only fill; a stage
//! never waits; a publisher never waits for a reader unless the cursor is pinned; nothing is encoded twice for two
//! readers of one wire; what a reader costs in memory does not depend on the event rate; a remote peer cannot create a
//! topic; bad input ends that connection only.

pub mod app;
pub mod audience;
pub mod balance;
pub mod bench;
pub mod cli;
pub mod event;
pub mod files;
pub mod graphql;
pub mod id;
pub mod inbound;
pub mod journal;
pub mod link;
pub mod log;
pub mod logging;
pub mod manual;
pub mod matcher;
pub mod net;
pub mod panics;
pub mod pins;
pub mod plan;
pub mod proto;
pub mod recorder;
pub mod registry;
pub mod roll;
pub mod script;
pub mod site;
pub mod source;
pub mod stage;
pub mod stdio;
pub mod streams;
pub mod sys;
pub mod tally;
pub mod tls;
pub mod token;
pub mod topic;
pub mod topics;
pub mod trace;
pub mod units;
pub mod wanted;
