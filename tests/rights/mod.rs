//! The table of rights: which right each request needs, on every combination of services, and requests that try it.

use crate::{
    common::{Running, Scratch, Wsevent, raw::Raw},
    tokens::Keys,
};

/// A page and handlers of a script, on paths that other services have as well.
const PAGES: &str = "
registerWebStream('/named');
const page = (req) => 'a page of the script';
register('/', 'page'); register('/mqtt', 'page'); register('/route', 'page'); register('/route', 'page', 'POST');
register('/route', 'page', 'OPTIONS'); register('/config/set', 'page', 'PUT');
";
/// The same with a subscription, and a route on GraphQL's path.
const SUBSCRIPTION: &str = "
graphQLRegistry.registerSubscription('live', 'type Subscription { live: String }', 'first');
function first() { return 'now'; }
register('/graphql', 'page', 'POST');
";

pub const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
pub const PATHS: [&str; 14] = [
    "/",
    "/mqtt",
    "/graphql",
    "/graphql/sse",
    "/-/status",
    "/-/healthz",
    "/-/nothing",
    "/events",
    "/named",
    "/route",
    "/register",
    "/config/set",
    "/proxy/web/x",
    "/elsewhere",
];

/// How a request begins.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Way {
    Plain,
    /// Nothing of a handshake but `Upgrade: websocket`.
    BareUpgrade,
    WebSocket,
    /// A WebSocket that offers MQTT.
    Mqtt,
}

pub const WAYS: [Way; 4] = [Way::Plain, Way::BareUpgrade, Way::WebSocket, Way::Mqtt];

impl Way {
    fn headers(self) -> &'static str {
        match self {
            Way::Plain => "",
            Way::BareUpgrade => "Upgrade: websocket\r\n",
            Way::WebSocket => {
                "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                 Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            }
            Way::Mqtt => {
                "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                 Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: mqtt\r\n"
            }
        }
    }
}

/// What a request needs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Need {
    Nothing,
    /// Nothing for the handshake: nothing is told before a token came on the connection.
    Later,
    Read,
    Publish,
    Change,
}

/// Services that run in one process.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Services {
    pub registry: bool,
    /// With `--protect-writes`.
    pub protected: bool,
    /// With scripts GraphQL is served as well.
    pub script: bool,
    /// Whether a route stands on GraphQL's path.
    pub graphql: bool,
    pub files: bool,
    /// In front of whole servers, or of one topic.
    pub balance: Option<Balance>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Balance {
    Servers,
    Topic,
}

/// Every combination that the command line allows.
pub fn combinations() -> Vec<Services> {
    let plain =
        Services { registry: false, protected: false, script: false, graphql: false, files: false, balance: None };
    let mut all = vec![
        Services { balance: Some(Balance::Servers), ..plain },
        Services { balance: Some(Balance::Topic), ..plain },
    ];
    for (registry, protected) in [(false, false), (true, false), (true, true)] {
        for (script, graphql) in [(false, false), (true, false), (true, true)] {
            for files in [false, true] {
                all.push(Services { registry, protected, script, graphql, files, balance: None });
            }
        }
    }
    all
}

impl Services {
    /// The right that a request needs, as docs/access.md, docs/registry.md, docs/script.md and docs/mqtt.md have it.
    pub fn need(&self, method: &str, path: &str, way: Way) -> Need {
        let (reads, options) = (matches!(method, "GET" | "HEAD"), method == "OPTIONS");
        let upgrade = method == "GET" && way != Way::Plain;
        if path.starts_with("/-/") {
            return if options || path == "/-/healthz" { Need::Nothing } else { Need::Read };
        }
        match self.balance {
            Some(Balance::Servers) => return if reads { Need::Read } else { Need::Publish },
            Some(Balance::Topic) if path == "/events" => return if reads { Need::Read } else { Need::Publish },
            _ => {}
        }
        if method == "GET" && way == Way::Mqtt && self.balance.is_none() {
            return Need::Later;
        }
        if self.has_route(method, path) {
            return if reads { Need::Read } else { Need::Publish };
        }
        if self.script && path.starts_with("/graphql") {
            return if options { Need::Nothing } else { Need::Read };
        }
        if self.registry && path == "/" && upgrade {
            return Need::Later;
        }
        let is_topic = path == "/events" || (path == "/named" && self.script);
        if self.registry && !is_topic && (!options || path.starts_with("/proxy/")) {
            let changes = !reads && (self.protected || path == "/config/set");
            return if changes { Need::Change } else { Need::Nothing };
        }
        match method {
            "OPTIONS" => Need::Nothing,
            "POST" => Need::Publish,
            _ => Need::Read,
        }
    }

    /// A path of a route is the script's with every method, but OPTIONS only where it names it.
    fn has_route(&self, method: &str, path: &str) -> bool {
        let named = match path {
            "/" | "/mqtt" | "/config/set" => method != "OPTIONS",
            "/route" => true,
            "/graphql" => self.graphql && method != "OPTIONS",
            _ => false,
        };
        self.script && named
    }

    /// Starts it behind tokens; `back_end` is what a balancer stands in front of.
    pub fn serve(&self, keys: &Keys, back_end: &Running, scratch: &Scratch) -> Running {
        let mut line = Wsevent::line("--mqtt-listen off").args(keys.args());
        if let Some(balance) = self.balance {
            let path = if balance == Balance::Topic { "/events" } else { "" };
            line = Wsevent::line("--balance-mode relay").args(keys.args());
            return line.args(["--balance", &format!("http://{}{path}", back_end.address())]).serve();
        }
        line = match (self.registry, self.script) {
            (true, _) => line.arg("--registry"),
            (false, true) => line.args(["--serve-path", "/events", "--accept-publish"]),
            (false, false) => line.arg("--no-produce"),
        };
        if self.protected {
            line = line.arg("--protect-writes");
        }
        if self.script {
            let source = format!("{PAGES}{}", if self.graphql { SUBSCRIPTION } else { "" });
            line = line.args(["--script", &scratch.file("app.js", source)]);
        }
        if self.files {
            scratch.file("index.html", "a page of the folder");
            let folder = scratch.path("").to_string_lossy().into_owned();
            line = line.args(["--static", &folder]);
        }
        line.serve()
    }
}

/// The status of a request, sent first on its connection, or behind another one.
pub fn ask(server: &Running, request: (&str, &str, Way), token: &str, kept: bool) -> (u16, String) {
    let (method, path, way) = request;
    let address = server.address();
    let mut raw = Raw::connect("localhost", server.port());
    if kept {
        raw.send(format!("GET /-/healthz HTTP/1.1\r\nHost: {address}\r\n\r\n"));
        assert_eq!(raw.read_head().status, 200);
        raw.read_until("}");
    }
    let headers = way.headers();
    raw.send(format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\nContent-Length: 0\r\n{headers}{token}\r\n"));
    let answer = raw.read_head();
    // Streams go on: their bodies are not waited for.
    let length = answer.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let body = if method == "HEAD" { Vec::new() } else { raw.read_exactly(length) };
    (answer.status, String::from_utf8_lossy(&body).into_owned())
}
