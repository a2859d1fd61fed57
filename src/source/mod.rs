//! What keeps a topic supplied.

pub mod credentials;
pub mod cursor;
pub mod exec;
pub mod feed;
pub mod health;
pub mod http;
pub mod lines;
pub mod place;
pub mod random;
pub mod redirect;
pub mod upstream;
pub mod ws;
