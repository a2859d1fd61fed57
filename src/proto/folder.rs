//! `--static`: the files below a directory, where no topic and no route is.

use super::subscribe::Refusal;
use hyper::{
    HeaderMap, StatusCode,
    header::{self, HeaderName, HeaderValue},
    http::request::Parts,
};
use percent_encoding::percent_decode_str;
use std::{
    io,
    path::{Path, PathBuf},
    time::{Duration, UNIX_EPOCH},
};
use tokio::fs::{self, File};

/// What stands for a directory.
const INDEX: &str = "index.html";

/// What browsers are told that a file is, by the end of its name.
const KINDS: [(&str, &str); 22] = [
    ("html", "text/html; charset=utf-8"),
    ("htm", "text/html; charset=utf-8"),
    ("css", "text/css; charset=utf-8"),
    ("js", "text/javascript; charset=utf-8"),
    ("mjs", "text/javascript; charset=utf-8"),
    ("json", "application/json"),
    ("map", "application/json"),
    ("webmanifest", "application/manifest+json"),
    ("txt", "text/plain; charset=utf-8"),
    ("md", "text/markdown; charset=utf-8"),
    ("csv", "text/csv; charset=utf-8"),
    ("xml", "application/xml"),
    ("svg", "image/svg+xml"),
    ("png", "image/png"),
    ("jpg", "image/jpeg"),
    ("jpeg", "image/jpeg"),
    ("gif", "image/gif"),
    ("webp", "image/webp"),
    ("ico", "image/x-icon"),
    ("woff2", "font/woff2"),
    ("wasm", "application/wasm"),
    ("pdf", "application/pdf"),
];

/// A directory that is served.
#[derive(Debug)]
pub struct Folder {
    root: PathBuf,
}

/// An answer.
#[derive(Debug)]
pub struct Page {
    /// 200, 304, or 308 to the same path with a slash behind it.
    pub status: StatusCode,
    /// All of them.
    pub headers: HeaderMap,
    /// What is to be sent.
    pub file: Option<File>,
}

impl Folder {
    /// Serves what is there at each request.
    ///
    /// # Errors
    /// When it is no directory.
    pub fn open(dir: &Path) -> io::Result<Self> {
        let wrong = |error: io::Error| io::Error::new(error.kind(), format!("--static {}: {error}", dir.display()));
        let root = dir.canonicalize().map_err(wrong)?;
        if !root.is_dir() {
            return Err(wrong(io::ErrorKind::NotADirectory.into()));
        }
        Ok(Folder { root })
    }

    /// The file at the request's path, or a directory's `index.html`.
    ///
    /// # Errors
    /// 404, also for what is hidden and what a link leads to outside.
    pub async fn answer(&self, parts: &Parts) -> Result<Page, Refusal> {
        let path = parts.uri.path();
        let nothing = || Refusal::new(StatusCode::NOT_FOUND, format!("nothing at {path}"));
        let (file, known) = match self.find(path).await.ok_or_else(nothing)? {
            Found::Directory => return redirect(path).ok_or_else(nothing),
            Found::File(file) => (File::open(&file).await.map_err(|_| nothing())?, file),
        };
        let about = file.metadata().await.map_err(|_| nothing())?;
        let mut page = Page { status: StatusCode::OK, headers: HeaderMap::new(), file: Some(file) };
        let mut put = |name: HeaderName, value: &str| {
            HeaderValue::from_str(value).map(|value| drop(page.headers.insert(name, value))).unwrap_or_default();
        };
        put(header::CONTENT_TYPE, kind(&known));
        put(header::CONTENT_LENGTH, &about.len().to_string());
        put(header::CACHE_CONTROL, "no-cache");
        put(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
        // The form knows whole seconds.
        let since_epoch = about.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        let modified = since_epoch.map(|since| UNIX_EPOCH + Duration::from_secs(since.as_secs()));
        if let Some(modified) = modified {
            put(header::LAST_MODIFIED, &httpdate::fmt_http_date(modified));
            let held = parts.headers.get(header::IF_MODIFIED_SINCE).and_then(|value| value.to_str().ok());
            if held.and_then(|held| httpdate::parse_http_date(held).ok()).is_some_and(|held| held >= modified) {
                (page.status, page.file) = (StatusCode::NOT_MODIFIED, None);
                page.headers.remove(header::CONTENT_LENGTH);
            }
        }
        Ok(page)
    }

    async fn find(&self, path: &str) -> Option<Found> {
        let (below, is_directory) = relative(path)?;
        let mut file = fs::canonicalize(self.root.join(below)).await.ok()?;
        if !file.starts_with(&self.root) {
            return None;
        }
        match (fs::metadata(&file).await.ok()?.is_dir(), is_directory) {
            (true, false) => return Some(Found::Directory),
            (false, true) => return None,
            (true, true) => file = fs::canonicalize(file.join(INDEX)).await.ok()?,
            (false, false) => {}
        }
        let is_inside = file.starts_with(&self.root) && fs::metadata(&file).await.ok()?.is_file();
        is_inside.then_some(Found::File(file))
    }
}

enum Found {
    Directory,
    File(PathBuf),
}

/// A request's path below the root, and whether it ends in a slash; `None` for one that no file can have, and for what is
/// hidden.
fn relative(path: &str) -> Option<(PathBuf, bool)> {
    let path = path.strip_prefix('/')?;
    let (path, is_directory) = path.strip_suffix('/').map_or((path, path.is_empty()), |path| (path, true));
    let mut below = PathBuf::new();
    for segment in path.split('/').filter(|_| !path.is_empty()) {
        let name = percent_decode_str(segment).decode_utf8().ok()?;
        if name.is_empty() || name.starts_with('.') || name.contains(['/', '\\', '\0']) {
            return None;
        }
        below.push(&*name);
    }
    Some((below, is_directory))
}

/// Relative links in a directory's page need the slash.
fn redirect(path: &str) -> Option<Page> {
    let headers = HeaderMap::from_iter([(header::LOCATION, HeaderValue::from_str(&format!("{path}/")).ok()?)]);
    Some(Page { status: StatusCode::PERMANENT_REDIRECT, headers, file: None })
}

fn kind(file: &Path) -> &'static str {
    let ending = file.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
    let known = KINDS.iter().find(|(known, _)| known.eq_ignore_ascii_case(ending));
    known.map_or("application/octet-stream", |(_, kind)| kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_names_lead_below() {
        for (path, below) in [
            ("/", Some(("", true))),
            ("/a.html", Some(("a.html", false))),
            ("/a/b%20c/", Some(("a/b c", true))),
            ("/%C3%A9", Some(("é", false))),
            ("//evil.example", None),
            ("/a//b", None),
            ("/../etc/passwd", None),
            ("/a/%2e%2e/%2e%2e/etc", None),
            ("/a%2fb", None),
            ("/..%5cb", None),
            ("/.git/config", None),
            ("/a%00.html", None),
            ("/%ff", None),
        ] {
            let below = below.map(|(path, is_directory)| (PathBuf::from(path), is_directory));
            assert_eq!(relative(path), below, "{path}");
        }
    }

    #[test]
    fn kinds_go_by_the_name() {
        for (name, said) in [("a.HTML", "text/html; charset=utf-8"), ("a.b.js", "text/javascript; charset=utf-8")] {
            assert_eq!(kind(Path::new(name)), said);
        }
        assert_eq!(kind(Path::new("README")), "application/octet-stream");
    }
}
