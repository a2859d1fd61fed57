//! A back end as it is written: a URL, and what share it gets.

use crate::net::redacted;
use std::{fmt, net::IpAddr, str::FromStr};
use url::Url;

/// One back end as typed, or as a line of a file says it.
#[derive(Clone, Debug, PartialEq)]
pub struct Member {
    /// `http` or `https`. Without a path it is a whole server, else one topic.
    pub url: Url,
    /// Its share, compared to the others'.
    pub weight: f64,
    /// Which of its host's addresses this is; `None` where that is found out at each connection.
    pub at: Option<IpAddr>,
}

impl Member {
    /// Whether these are one and the same back end.
    pub fn is(&self, other: &Member) -> bool {
        (&self.url, self.at) == (&other.url, other.at)
    }

    /// The path of its topic; `None` for a whole server.
    pub fn topic(&self) -> Option<&str> {
        Some(self.url.path()).filter(|path| *path != "/")
    }
}

impl FromStr for Member {
    type Err = String;

    /// `URL`, or `URL weight=N`.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut words = text.split_whitespace();
        let url = address(words.next().unwrap_or(""))?;
        let mut weight = 1.0;
        for word in words {
            let number = word.strip_prefix("weight=").and_then(|number| number.parse().ok());
            weight = number.filter(|n| (0.001..=1000.0).contains(n)).ok_or_else(|| {
                format!("`{word}` means nothing behind a back end's URL: type for instance `{url} weight=2`")
            })?;
        }
        Ok(Member { url, weight, at: None })
    }
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(redacted(&self.url).trim_end_matches('/'))?;
        self.at.map_or(Ok(()), |at| write!(f, " ({at})"))
    }
}

fn address(text: &str) -> Result<Url, String> {
    let text = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
    let plain = match text.split_once("://") {
        Some(("ws", rest)) => format!("http://{rest}"),
        Some(("wss", rest)) => format!("https://{rest}"),
        Some(("http" | "https", _)) => text.clone(),
        _ => return Err(format!("cannot balance `{text}`: type http, https, ws or wss URLs")),
    };
    let url = Url::parse(&plain).map_err(|error| format!("`{text}` is not a URL: {error}"))?;
    if !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
        return Err(format!(
            "`{}` says more than where a back end is: type only its host, port and path",
            redacted(&url)
        ));
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_read_as_people_write_them() {
        for (text, url, weight, topic) in [
            ("localhost:8080", "http://localhost:8080/", 1.0, None),
            ("http://a", "http://a/", 1.0, None),
            ("ws://a:1/events weight=3", "http://a:1/events", 3.0, Some("/events")),
            ("wss://a/x", "https://a/x", 1.0, Some("/x")),
        ] {
            let member: Member = text.parse().expect(text);
            assert_eq!((member.url.as_str(), member.weight, member.topic()), (url, weight, topic));
        }
        for wrong in ["", "ftp://a", "http://u:p@a", "http://a?x=1", "http://a weight=0", "http://a weight=x", "a:b c"]
        {
            assert!(wrong.parse::<Member>().is_err(), "{wrong}");
        }
        assert_eq!("http://a:1".parse::<Member>().expect("a URL").to_string(), "http://a:1");
    }
}
