//! WebSocket (RFC 6455): frames, and what a link adds to them.

pub mod assemble;
pub mod deflate;
pub mod encode;
pub mod frame;
