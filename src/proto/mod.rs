//! How readers are served and upstreams are read.

pub mod admin;
pub mod auth;
pub mod bind;
pub mod body;
pub mod cloudevents;
pub mod dialog;
pub mod folder;
pub mod history;
pub mod http;
pub mod json;
pub mod line;
pub mod listen;
pub mod mqtt;
pub mod origin;
pub mod print;
pub mod proxied;
pub mod publish;
pub mod repeats;
pub mod secure;
pub mod shard;
pub mod sse;
pub mod stream;
pub mod subscribe;
pub mod wire;
pub mod ws;
