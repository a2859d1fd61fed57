//! The fields of a form: urlencoded, or the text fields of a multipart body (RFC 7578).

use hyper::{HeaderMap, header};
use memchr::memmem;
use serde_json::{Map, Value};
use url::form_urlencoded;

/// Header fields that one part may have.
const MAX_FIELDS: usize = 16;

/// The last value of each field; empty for a body that is no form.
///
/// # Errors
/// What is wrong with a multipart body.
pub fn fields(headers: &HeaderMap, body: &[u8]) -> Result<Map<String, Value>, &'static str> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match media.as_str() {
        "application/x-www-form-urlencoded" => Ok(pairs(body)),
        "multipart/form-data" => {
            multipart(body, &parameter(kind, "boundary").ok_or("the multipart body names no boundary")?)
        }
        _ => Ok(Map::new()),
    }
}

/// Form-decoded pairs; of a repeated name the last counts, and empty pairs do not.
pub fn pairs(text: &[u8]) -> Map<String, Value> {
    let pairs = form_urlencoded::parse(text).filter(|(name, value)| !name.is_empty() || !value.is_empty());
    pairs.map(|(name, value)| (name.into_owned(), value.into_owned().into())).collect()
}

/// A header value's parameter, with or without quotes.
fn parameter(value: &str, name: &str) -> Option<String> {
    let mut rest = value.split_once(';')?.1;
    loop {
        let (key, after) = rest.split_once('=')?;
        let (found, next) = match after.strip_prefix('"') {
            Some(quoted) => unquoted(quoted),
            None => {
                after.split_once(';').map_or((after.trim().to_owned(), ""), |(v, next)| (v.trim().to_owned(), next))
            }
        };
        if key.trim().trim_start_matches(';').trim().eq_ignore_ascii_case(name) {
            return Some(found);
        }
        rest = next;
    }
}

/// Up to the closing quote, and what stands behind it.
fn unquoted(text: &str) -> (String, &str) {
    let (mut found, mut chars) = (String::new(), text.char_indices());
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (found, &text[at + 1..]),
            '\\' => found.extend(chars.next().map(|(_, c)| c)),
            c => found.push(c),
        }
    }
    (found, "")
}

fn multipart(body: &[u8], boundary: &str) -> Result<Map<String, Value>, &'static str> {
    let unfinished = "the multipart body is not whole";
    let delimiter = format!("--{boundary}");
    let mut rest = body.strip_prefix(delimiter.as_bytes());
    let between = format!("\r\n{delimiter}");
    if rest.is_none() {
        rest = memmem::find(body, between.as_bytes()).map(|at| &body[at + between.len()..]);
    }
    let mut rest = rest.ok_or("the multipart body has no part")?;
    let mut fields = Map::new();
    while !rest.starts_with(b"--") {
        let line = memmem::find(rest, b"\r\n").ok_or(unfinished)?;
        let part = &rest[line + 2..];
        let end = memmem::find(part, between.as_bytes()).ok_or(unfinished)?;
        if let Some((name, value)) = field(&part[..end])? {
            fields.insert(name, value.into());
        }
        rest = &part[end + between.len()..];
    }
    Ok(fields)
}

/// Name and text of a part; `None` for a file.
fn field(part: &[u8]) -> Result<Option<(String, String)>, &'static str> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let broken = "a part of the multipart body has broken headers";
    let httparse::Status::Complete((len, known)) = httparse::parse_headers(part, &mut fields).map_err(|_| broken)?
    else {
        return Err(broken);
    };
    let disposition = known.iter().find(|field| field.name.eq_ignore_ascii_case("content-disposition"));
    let disposition = disposition.map(|field| String::from_utf8_lossy(field.value)).ok_or(broken)?;
    let name = parameter(&disposition, "name").ok_or("a part of the multipart body has no name")?;
    let is_file = parameter(&disposition, "filename").is_some() || parameter(&disposition, "filename*").is_some();
    Ok((!is_file).then(|| (name, String::from_utf8_lossy(&part[len..]).into_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::HeaderValue;
    use serde_json::json;

    fn read(kind: &'static str, body: &str) -> Result<Value, &'static str> {
        let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(kind))]);
        fields(&headers, body.as_bytes()).map(Value::from)
    }

    #[test]
    fn urlencoded_forms_are_decoded_as_the_web_does() {
        let kind = "application/x-www-form-urlencoded; charset=UTF-8";
        for (body, fields) in [
            ("a=1&b=x+y%2B&a=2", json!({"a": "2", "b": "x y+"})),
            ("k=&k2&&", json!({"k": "", "k2": ""})),
            ("__proto__=x&%=%zz", json!({"__proto__": "x", "%": "%zz"})),
            ("", json!({})),
        ] {
            assert_eq!(read(kind, body), Ok(fields), "{body}");
        }
        assert_eq!(read("application/json", "{\"a\":1}"), Ok(json!({})));
    }

    #[test]
    fn multipart_forms_give_their_text_fields() {
        let part = |disposition: &str, text: &str| {
            format!("--x y\r\nContent-Disposition: form-data; {disposition}\r\nX: y\r\n\r\n{text}\r\n")
        };
        let body = [
            "preamble\r\n".to_owned(),
            part("name=\"a\"", "one\r\ntwo"),
            part("name=b", ""),
            part("name=\"f\"; filename=\"a;name=z.txt\"", "file"),
            part(r#"name="q\"q;""#, "é"),
            "--x y--\r\nepilogue".to_owned(),
        ]
        .concat();
        let fields = json!({"a": "one\r\ntwo", "b": "", "q\"q;": "é"});
        assert_eq!(read("multipart/form-data; charset=utf-8; boundary=\"x y\"", &body), Ok(fields));
    }

    #[test]
    fn broken_multipart_bodies_are_refused() {
        let kind = "multipart/form-data; boundary=b";
        for body in [
            "",
            "--b",
            "--b\r\n",
            "--b\r\nContent-Disposition: form-data; name=a\r\n\r\nno end",
            "--b\r\n\r\nno header\r\n--b--",
            "--b\r\nContent-Disposition: form-data\r\n\r\nno name\r\n--b--",
            "--b\r\n: \r\n\r\nx\r\n--b--",
        ] {
            assert!(read(kind, body).is_err(), "{body:?}");
        }
        assert!(read("multipart/form-data", "--b--").is_err());
        assert_eq!(read(kind, "--b--"), Ok(json!({})));
    }
}
