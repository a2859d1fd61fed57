//! What keeps a topic supplied.

pub mod cursor;
pub mod exec;
pub mod feed;
pub mod http;
pub mod lines;
pub mod random;
pub mod upstream;
pub mod ws;
