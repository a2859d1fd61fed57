//! A handler's result as an HTTP answer.

use bytes::Bytes;
use data_encoding::BASE64;
use hyper::{
    HeaderMap, StatusCode,
    header::{self, HeaderName, HeaderValue},
};
use serde_json::Value;

const TEXT: &str = "text/plain; charset=UTF-8";
const BYTES: &str = "application/octet-stream";

/// What the server says itself.
const FRAMING: [HeaderName; 6] = [
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// What is answered.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// All of them but those of framing.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl Answer {
    /// From what the host's prelude made of a result.
    ///
    /// # Errors
    /// What cannot be said in HTTP.
    pub fn read(json: &str) -> Result<Self, String> {
        let said: Value = serde_json::from_str(json).map_err(|error| format!("the result is not whole: {error}"))?;
        let status = status(&said["status"])?;
        let (body, kind) = match &said["bodyBase64"] {
            Value::Null => (said["body"].as_str().unwrap_or_default().to_owned().into_bytes(), TEXT),
            Value::String(text) => {
                (BASE64.decode(text.as_bytes()).map_err(|error| format!("bodyBase64 is no base64: {error}"))?, BYTES)
            }
            other => return Err(format!("bodyBase64 is {other}, not a string")),
        };
        let mut headers = headers(&said["headers"])?;
        if let Some(named) = said["contentType"].as_str() {
            headers.insert(header::CONTENT_TYPE, value("contentType", named)?);
        }
        headers.entry(header::CONTENT_TYPE).or_insert(HeaderValue::from_static(kind));
        let empty = matches!(status, StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::NOT_MODIFIED);
        Ok(Answer { status, headers, body: if empty { Bytes::new() } else { body.into() } })
    }
}

fn status(said: &Value) -> Result<StatusCode, String> {
    if said.is_null() {
        return Ok(StatusCode::OK);
    }
    // The engine knows one kind of number.
    let number = said.as_f64().filter(|number| (200.0..=599.0).contains(number) && number.fract() == 0.0);
    let code = number.and_then(|number| StatusCode::from_u16(number as u16).ok());
    code.ok_or_else(|| format!("the status is {said}, not a number from 200 to 599"))
}

fn headers(said: &Value) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    let said = match said {
        Value::Null => return Ok(headers),
        Value::Object(said) => said,
        other => return Err(format!("headers is {other}, not an object")),
    };
    for (name, values) in said {
        let known = name.parse::<HeaderName>().map_err(|_| format!("{name:?} is not a header's name"))?;
        let values = values.as_array().map_or(std::slice::from_ref(values), Vec::as_slice);
        for one in values.iter().filter(|_| !FRAMING.contains(&known)) {
            let text = one.as_str().map_or_else(|| one.to_string(), str::to_owned);
            headers.append(known.clone(), value(name, &text)?);
        }
    }
    Ok(headers)
}

fn value(name: &str, text: &str) -> Result<HeaderValue, String> {
    HeaderValue::from_str(text).map_err(|_| format!("{text:?} cannot be the value of {name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_become_answers() {
        for (json, status, kind, body) in [
            (r#"{"body":""}"#, 200, TEXT, ""),
            (r#"{"status":201,"body":"x"}"#, 201, TEXT, "x"),
            (r#"{"status":404.0,"body":"{}","contentType":"application/json"}"#, 404, "application/json", "{}"),
            (r#"{"bodyBase64":"AAE=","body":""}"#, 200, BYTES, "\0\x01"),
            (r#"{"body":"<p>","headers":{"Content-Type":"text/html","Content-Length":"9"}}"#, 200, "text/html", "<p>"),
            (r#"{"status":204,"body":"x"}"#, 204, TEXT, ""),
        ] {
            let answer = Answer::read(json).expect(json);
            assert_eq!((answer.status.as_u16(), &answer.headers["content-type"]), (status, &kind.parse().expect(kind)));
            assert_eq!((&answer.body[..], answer.headers.contains_key("content-length")), (body.as_bytes(), false));
        }
        let answer = Answer::read(r#"{"headers":{"Set-Cookie":["a=1","b=2"],"X-N":5}}"#).expect("an answer");
        assert_eq!(answer.headers.get_all("set-cookie").iter().count(), 2);
        assert_eq!(answer.headers["x-n"], "5");
    }

    #[test]
    fn what_http_cannot_say_is_an_error() {
        for json in [
            r#"{"status":99}"#,
            r#"{"status":200.5}"#,
            r#"{"status":"200"}"#,
            r#"{"headers":{"a b":"c"}}"#,
            r#"{"headers":{"a":"b\r\nc: d"}}"#,
            r#"{"headers":[]}"#,
            r#"{"contentType":"a\nb"}"#,
            r#"{"bodyBase64":"?"}"#,
            r#"{"bodyBase64":5}"#,
        ] {
            assert!(Answer::read(json).is_err(), "{json}");
        }
    }
}
