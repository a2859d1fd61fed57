//! The head of a back end's answer, judged before the client sees a byte of it.

use super::headers;
use crate::{link::VERSION_HEADER, net::Io};
use bytes::{Bytes, BytesMut};
use hyper::{
    HeaderMap,
    header::{self, HeaderName, HeaderValue},
};
use tokio::io::AsyncReadExt;

/// A head at most, in bytes.
const MAX_HEAD: usize = 64 << 10;
/// Header fields in it.
const MAX_FIELDS: usize = 200;

/// What a back end said, up to the blank line and a little more.
#[derive(Debug)]
pub struct Answer {
    /// Its status: 101, or 200 and above.
    pub status: u16,
    reason: String,
    fields: HeaderMap,
    /// What came behind the head already.
    pub rest: Bytes,
}

impl Answer {
    /// Reads it; whatever comes before the final one (100, 103) is passed over.
    ///
    /// # Errors
    /// Why it is no answer to a request that asked for an `upgrade`, or did not.
    pub async fn read(io: &mut dyn Io, upgrade: bool) -> Result<Self, String> {
        let mut buf = BytesMut::with_capacity(1024);
        loop {
            if let Some((answer, len)) = parse(&buf)? {
                let rest = buf.split_off(len);
                match answer.status {
                    101 if upgrade => return Ok(Answer { rest: rest.freeze(), ..answer }),
                    101 => return Err("it upgrades what nobody asked to upgrade".into()),
                    100..=199 => buf = rest,
                    _ => return Ok(Answer { rest: rest.freeze(), ..answer }),
                }
                continue;
            }
            if buf.len() > MAX_HEAD {
                return Err("its answer's head is too large".into());
            }
            match io.read_buf(&mut buf).await {
                Ok(0) if buf.is_empty() => return Err("it closed without an answer".into()),
                Ok(0) => return Err("it closed within its answer's head".into()),
                Ok(_) => {}
                Err(error) => return Err(error.to_string()),
            }
        }
    }

    /// Bytes of the body that are still to come, where the head says how many.
    pub fn body_left(&self) -> Option<u64> {
        let all: u64 = self.fields.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()?;
        Some(all.saturating_sub(self.rest.len() as u64))
    }

    /// Tells whether an instance of wsevent gives the answer; such a one goes on behind the end of its input.
    pub fn is_ours(&self) -> bool {
        self.fields.contains_key(VERSION_HEADER)
    }

    /// Gives the client one more cookie.
    pub fn set_cookie(&mut self, cookie: Option<HeaderValue>) {
        if let Some(cookie) = cookie {
            self.fields.append(header::SET_COOKIE, cookie);
        }
    }

    /// As the client gets it, with what came behind it.
    pub fn to_bytes(&self) -> Bytes {
        let mut fields = self.fields.clone();
        // The body's form passes as it is: its bytes are relayed unread.
        let coding = fields.get(header::TRANSFER_ENCODING).cloned();
        headers::strip(&mut fields);
        coding.and_then(|coding| fields.insert(header::TRANSFER_ENCODING, coding));
        if self.status == 101 {
            fields.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
            fields.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        } else {
            fields.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        let mut text = BytesMut::from(format!("HTTP/1.1 {} {}\r\n", self.status, self.reason).as_bytes());
        headers::write(&fields, &mut text);
        text.extend_from_slice(&self.rest);
        text.freeze()
    }
}

/// `None` when the head is not whole yet; else also its length.
///
/// # Errors
/// Why it is none.
pub fn parse(bytes: &[u8]) -> Result<Option<(Answer, usize)>, String> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut response = httparse::Response::new(&mut fields);
    let len = match response.parse(bytes) {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(error) => return Err(format!("its answer is not HTTP: {error}")),
    };
    let mut map = HeaderMap::new();
    for field in response.headers.iter() {
        let pair = (HeaderName::from_bytes(field.name.as_bytes()), HeaderValue::from_bytes(field.value));
        let (Ok(name), Ok(value)) = pair else { return Err("a header field of its answer is none".into()) };
        map.append(name, value);
    }
    check_length(&map)?;
    let (status, reason) = (response.code.unwrap_or(0), response.reason.unwrap_or("").to_owned());
    // RFC 9110 §15; the parser takes any three digits.
    if status < 100 {
        return Err(format!("its answer has the status {status:03}"));
    }
    Ok(Some((Answer { status, reason, fields: map, rest: Bytes::new() }, len)))
}

/// There must be one way to read how long the body is (RFC 9112 §6.3): else two readers would cut it differently.
fn check_length(fields: &HeaderMap) -> Result<(), String> {
    let lengths: Vec<_> = fields.get_all(header::CONTENT_LENGTH).iter().collect();
    let number = |value: &&HeaderValue| value.as_bytes().iter().all(u8::is_ascii_digit) && !value.is_empty();
    let coding = fields.get_all(header::TRANSFER_ENCODING);
    let chunked = coding.iter().all(|coding| coding.as_bytes().eq_ignore_ascii_case(b"chunked"));
    let clear = lengths.len() <= 1 && lengths.iter().all(number) && coding.iter().count() <= 1 && chunked;
    if clear && (lengths.is_empty() || coding.iter().next().is_none()) {
        Ok(())
    } else {
        Err("its answer does not say clearly how long it is".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{collection::vec, prelude::*, sample::select};

    async fn answered(bytes: &[u8], upgrade: bool) -> Result<Answer, String> {
        let (mut ours, theirs) = tokio::io::duplex(8);
        let bytes = bytes.to_vec();
        tokio::spawn(async move {
            let (_, mut writer) = tokio::io::split(theirs);
            let _ = tokio::io::AsyncWriteExt::write_all(&mut writer, &bytes).await;
        });
        Answer::read(&mut ours, upgrade).await
    }

    #[tokio::test]
    async fn a_head_comes_out_as_it_went_in_but_for_the_connection() {
        let answer = answered(
            b"HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\nHTTP/1.1 200 Fine\r\nKeep-Alive: 5\r\n\
              Connection: keep-alive, x-own\r\nX-Own: 1\r\nSet-Cookie: a=b\r\nTransfer-Encoding: chunked\r\n\r\n",
            false,
        );
        let answer = answer.await.expect("an answer");
        let text = String::from_utf8(answer.to_bytes().to_vec()).expect("text");
        assert!(text.starts_with("HTTP/1.1 200 Fine\r\n") && text.ends_with("\r\n\r\n"), "{text}");
        let lines: std::collections::BTreeSet<_> = text.lines().skip(1).filter(|line| !line.is_empty()).collect();
        let expected = ["connection: close", "set-cookie: a=b", "transfer-encoding: chunked"];
        assert_eq!(lines.into_iter().collect::<Vec<_>>(), expected);
    }

    proptest! {
        /// Whatever a back end says: as long as it means something, it means the same when it is passed on.
        #[test]
        fn what_is_passed_on_has_the_same_meaning(
            status in select(vec![101, 200, 204, 304, 404, 500]),
            fields in vec((select(NAMES.to_vec()), select(VALUES.to_vec())), 0..6),
        ) {
            let fields: String = fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
            let Ok(Some((answer, _))) = parse(format!("HTTP/1.1 {status} Fine\r\n{fields}\r\n").as_bytes()) else {
                return Ok(());
            };
            let passed = answer.to_bytes();
            let (again, end) = parse(&passed).expect("an answer").expect("a whole head");
            prop_assert_eq!((again.status, end), (status, passed.len()));
            prop_assert_eq!(again.body_left(), answer.body_left());
            let coding = |answer: &Answer| answer.fields.get(header::TRANSFER_ENCODING).cloned();
            prop_assert_eq!(coding(&again), coding(&answer));
        }
    }

    const NAMES: [&str; 7] =
        ["Connection", "Content-Length", "Transfer-Encoding", "Keep-Alive", "Upgrade", "Set-Cookie", "X-Own"];
    const VALUES: [&str; 10] = [
        "close",
        "3",
        "4",
        "chunked",
        "Chunked",
        "gzip, chunked",
        "content-length, x-own",
        "transfer-encoding",
        "",
        "a=b",
    ];

    #[tokio::test]
    async fn what_is_no_clear_answer_is_none() {
        for (bytes, upgrade) in [
            (&b"SSH-2.0-OpenSSH_9.2\r\n"[..], false),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n", false),
            (b"HTTP/1.1 200 OK\r\nContent-Length: +3\r\n\r\n", false),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", false),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", false),
            (b"HTTP/1.1 200 OK\r\nA: b\r\n folded\r\n\r\n", false),
            (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", false),
            (b"HTTP/1.1 000 Nothing\r\n\r\n", false),
            (b"HTTP/1.1 200 OK\r\nA: ", true),
            (b"", true),
        ] {
            let answer = answered(bytes, upgrade).await;
            assert!(answer.is_err(), "{:?}: {answer:?}", String::from_utf8_lossy(bytes));
        }
        assert_eq!(answered(b"HTTP/1.1 101 X\r\n\r\nframe", true).await.map(|answer| answer.status), Ok(101));
        let refused = answered(b"HTTP/1.1 404 X\r\nContent-Length: 9\r\n\r\nabc", true).await.expect("an answer");
        assert!(refused.body_left().is_some_and(|left| left >= 6), "{refused:?}");
    }
}
