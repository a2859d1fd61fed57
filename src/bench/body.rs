//! Takes the chunk headers (RFC 9112 §7.1) out of a response's bytes, in place.

/// Where in the body the bytes stand.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Body {
    /// Not chunked: it ends with the connection.
    #[default]
    Plain,
    /// In a chunk's head, which says so far that it has this many bytes; true behind the digits.
    Head(usize, bool),
    /// So many bytes of the chunk are still to come.
    Chunk(usize),
    /// Before the line end behind a chunk.
    Tail,
    /// Behind the last chunk.
    End,
}

impl Body {
    /// Of an answer with this `Transfer-Encoding`.
    pub fn of(coding: Option<&str>) -> Self {
        if coding.is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) {
            Body::Head(0, false)
        } else {
            Body::Plain
        }
    }

    /// Moves what is content to the front of `bytes`; says how much that is.
    ///
    /// # Errors
    /// When that is not chunked as it should be.
    pub fn strip(&mut self, bytes: &mut [u8]) -> Result<usize, String> {
        let (mut at, mut kept) = (0, 0);
        while at < bytes.len() {
            match *self {
                Body::Plain => return Ok(bytes.len()),
                Body::End => break,
                Body::Chunk(left) => {
                    let n = left.min(bytes.len() - at);
                    bytes.copy_within(at..at + n, kept);
                    (at, kept) = (at + n, kept + n);
                    *self = if n == left { Body::Tail } else { Body::Chunk(left - n) };
                }
                Body::Tail => {
                    *self = if bytes[at] == b'\n' { Body::Head(0, false) } else { Body::Tail };
                    at += 1;
                }
                Body::Head(size, past) => {
                    *self = head(size, past, bytes[at])?;
                    at += 1;
                }
            }
        }
        Ok(kept)
    }
}

fn head(size: usize, past: bool, byte: u8) -> Result<Body, String> {
    match (byte, char::from(byte).to_digit(16)) {
        (b'\n', _) if size == 0 => Ok(Body::End),
        (b'\n', _) => Ok(Body::Chunk(size)),
        (_, Some(digit)) if !past && size < 1 << 40 => Ok(Body::Head(size << 4 | digit as usize, false)),
        (b'\r' | b';' | b' ', _) => Ok(Body::Head(size, true)),
        _ if past => Ok(Body::Head(size, true)),
        _ => Err("a chunk without a size".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_survives_any_split() {
        let wire = b"5\r\nhello\r\n7;x=y\r\n, world\r\n10\r\n0123456789abcdef\r\n0\r\nTrailer: x\r\n\r\n";
        for step in 1..wire.len() {
            let (mut body, mut content) = (Body::of(Some("Chunked")), Vec::new());
            for piece in wire.chunks(step) {
                let mut piece = piece.to_vec();
                let n = body.strip(&mut piece).expect("well formed");
                content.extend_from_slice(&piece[..n]);
            }
            assert_eq!((content.as_slice(), body), (&b"hello, world0123456789abcdef"[..], Body::End), "{step}");
        }
        assert_eq!(Body::of(None).strip(&mut [1, 2]), Ok(2));
        assert!(Body::of(Some("chunked")).strip(&mut b"xyz\r\n".to_owned()).is_err());
    }
}
