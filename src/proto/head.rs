//! Heads of HTTP/1 messages, where no HTTP server is needed: of a request, read and parsed without copies, and of an answer.

use super::wire::Wire;
use crate::inbound::Stream;
use bytes::{Bytes, BytesMut};
use hyper::{
    HeaderMap, Request, StatusCode, Uri, Version,
    header::{HeaderName, HeaderValue},
    http::{method::InvalidMethod, request::Parts},
};
use std::{fmt::Display, io, mem::MaybeUninit};
use tokio::io::AsyncReadExt;

/// What a request head may have, in bytes.
const MAX_HEAD: usize = 32 << 10;
/// Header fields at most.
const MAX_FIELDS: usize = 100;

/// A request whose head is whole.
pub struct Asked {
    /// What is asked.
    pub parts: Parts,
    /// All that was read.
    pub read: Bytes,
    /// How much of it is the head.
    pub len: usize,
}

/// Reads until the head is whole. `None` when the peer left before a byte.
///
/// # Errors
/// Those of [`parse_head`], `FileTooLarge`, and what is wrong with the connection.
pub async fn read_head(stream: &mut Stream) -> io::Result<Option<Asked>> {
    let mut buf = BytesMut::with_capacity(1024);
    loop {
        if stream.read_buf(&mut buf).await? == 0 {
            return if buf.is_empty() { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
        }
        let read = buf.freeze();
        if let Some((parts, len)) = parse_head(&read)? {
            return Ok(Some(Asked { parts, read, len }));
        }
        if read.len() > MAX_HEAD {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "the request head is too large"));
        }
        buf = read.into();
    }
}

/// Parses a request head (RFC 9112), and its length; `Ok(None)` when it is not whole yet. What is parsed are parts of
/// `bytes`, not copies.
///
/// # Errors
/// `InvalidData` with what is wrong.
pub fn parse_head(bytes: &Bytes) -> io::Result<Option<(Parts, usize)>> {
    let mut fields = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut request = httparse::Request::new(&mut []);
    let parsed = request.parse_with_uninit_headers(bytes, &mut fields).map_err(|error| match error {
        httparse::Error::TooManyHeaders => io::Error::new(io::ErrorKind::FileTooLarge, "too many header fields"),
        other => invalid(&other),
    });
    let len = match parsed? {
        httparse::Status::Partial => return Ok(None),
        httparse::Status::Complete(len) => len,
    };
    let mut parts = Request::new(()).into_parts().0;
    parts.version = if request.version == Some(0) { Version::HTTP_10 } else { Version::HTTP_11 };
    parts.method = request.method.unwrap_or("").parse().map_err(|error: InvalidMethod| invalid(&error))?;
    let path = bytes.slice_ref(request.path.unwrap_or("").as_bytes());
    parts.uri = Uri::from_maybe_shared(path).map_err(|error| invalid(&error))?;
    parts.headers.reserve(request.headers.len());
    for field in request.headers {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|error| invalid(&error))?;
        let value = HeaderValue::from_maybe_shared(bytes.slice_ref(field.value)).map_err(|error| invalid(&error))?;
        parts.headers.append(name, value);
    }
    Ok(Some((parts, len)))
}

fn invalid(error: &dyn Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error.to_string())
}

/// Header fields, a line each.
pub fn put_fields(fields: &HeaderMap, to: &mut BytesMut) {
    for (name, value) in fields {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            to.extend_from_slice(part);
        }
    }
}

/// The head of a stream's answer, with what frames its body.
pub fn answer(status: StatusCode, headers: &HeaderMap, chunked: bool, wire: Wire) -> BytesMut {
    let mut text = BytesMut::with_capacity(256);
    for part in ["HTTP/1.1 ", status.as_str(), " ", status.canonical_reason().unwrap_or(""), "\r\n"] {
        text.extend_from_slice(part.as_bytes());
    }
    put_fields(headers, &mut text);
    let framing: &[u8] = match (wire.is_websocket(), chunked) {
        (true, _) => b"",
        (false, true) => b"transfer-encoding: chunked\r\n",
        (false, false) => b"connection: close\r\n",
    };
    text.extend_from_slice(framing);
    text.extend_from_slice(b"\r\n");
    text
}
