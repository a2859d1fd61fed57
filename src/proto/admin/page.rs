//! `/-/`: one page that draws the chain. Everything that it needs is in it.

use super::Answer;
use data_encoding::BASE64;
use hyper::header;

const PAGE: &str = include_str!("page.html");

/// The page. Its one script runs by a number used once, and nothing else does, whatever an event's payload says.
pub fn answer() -> Answer {
    let nonce = BASE64.encode(&rand::random::<[u8; 18]>());
    let policy = format!(
        "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; img-src data:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    Answer::text("text/html; charset=utf-8", PAGE.replace("NONCE", &nonce))
        .with(header::CONTENT_SECURITY_POLICY, &policy)
        .with(header::REFERRER_POLICY, "no-referrer")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_loads_nothing_from_elsewhere() {
        for foreign in ["http://", "https://", "src=", "@import", "url("] {
            let found =
                PAGE.lines().find(|line| line.contains(foreign) && !line.contains("http://www.w3.org/2000/svg"));
            assert_eq!(found, None, "{foreign}");
        }
        assert_eq!(PAGE.matches("nonce=\"NONCE\"").count(), 2, "a style and a script");
    }
}
