//! Refusals on connections that no HTTP server has: how they are written, and what their JSON says.

use super::{head, subscribe::Refusal, wire::Wire};
use crate::inbound::Stream;
use hyper::StatusCode;
use std::{io, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

/// Answers with a refusal, and closes.
///
/// # Errors
/// When the peer does not take it.
pub async fn refuse(stream: &mut Stream, refusal: &Refusal, old: bool) -> io::Result<()> {
    let body = refusal_body(refusal);
    let mut text = head::answer(refusal.status, &refusal.headers, false, Wire::Sse);
    text.truncate(text.len() - 2);
    let version = if old { "HTTP/1.0" } else { "HTTP/1.1" };
    text[..8].copy_from_slice(version.as_bytes());
    if refusal.status != StatusCode::NO_CONTENT {
        let length = format!("content-type: application/json\r\ncontent-length: {}\r\n", body.len());
        text.extend_from_slice(length.as_bytes());
    }
    text.extend_from_slice(b"\r\n");
    text.extend_from_slice(body.as_bytes());
    stream.write_all(&text).await?;
    stream.shutdown().await?;
    // Closing with unread input would reset the connection and take the answer with it. What is read stands elsewhere, for
    // every connection that could be refused has room for this future.
    let mut rest = vec![0u8; 1024];
    let drain = async { while stream.read(&mut rest).await.is_ok_and(|n| n > 0) {} };
    let _ = timeout(Duration::from_millis(500), drain).await;
    Ok(())
}

/// `{"error": …}`, or nothing for 204.
pub fn refusal_body(refusal: &Refusal) -> String {
    if refusal.status == StatusCode::NO_CONTENT {
        return String::new();
    }
    serde_json::json!({ "error": refusal.error }).to_string()
}
