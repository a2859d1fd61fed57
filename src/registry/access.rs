//! Who may do what here, where access is controlled: tokens are judged, given to who signs in, and renewed.

use super::{
    Registry,
    http::{Answer, Asked},
    users::Users,
};
use crate::{files::Watched, token::Keys, units::now_ms};
use hyper::StatusCode;
use serde_json::{Map, Value, json};
use std::{sync::Arc, time::Duration};
use tokio::sync::Semaphore;

/// A password check takes much memory and time: others wait.
const CHECKS_AT_ONCE: usize = 2;
/// Events whose names begin so are for this role only.
pub const RESERVED: (&str, &str) = ("admin_", "admin");
/// What clients are told of a token's claims.
const SHOWN: [&str; 4] = ["username", "role", "iat", "exp"];

/// See the module's text.
pub struct Access {
    /// What tokens are judged by.
    pub keys: Arc<Watched<Keys>>,
    /// Who may sign in.
    pub users: Option<Arc<Watched<Users>>>,
    /// How long a token lasts that is given here.
    pub token_ttl: Duration,
    /// How long a client of the WebSocket may take to say who it is.
    pub deadline: Duration,
    /// Whether every change needs a token, not only that of configuration.
    pub protect_writes: bool,
    checks: Arc<Semaphore>,
}

/// Whose token was good.
#[derive(Clone, Debug, PartialEq)]
pub struct Member {
    claims: Map<String, Value>,
    roles: Vec<String>,
    /// In Unix milliseconds.
    pub ends: Option<u64>,
}

impl Member {
    /// Whether it has this role.
    pub fn has_role(&self, role: &str) -> bool {
        self.roles.iter().any(|own| own == role)
    }

    /// What it is told about itself.
    pub fn shown(&self) -> Value {
        let claim = |name: &&str| Some(((*name).to_owned(), self.claims.get(*name)?.clone()));
        Value::Object(SHOWN.iter().filter_map(claim).collect())
    }
}

impl Access {
    /// By these keys.
    pub fn new(keys: Arc<Watched<Keys>>, token_ttl: Duration, deadline: Duration) -> Self {
        let checks = Arc::new(Semaphore::new(CHECKS_AT_ONCE));
        Access { keys, users: None, token_ttl, deadline, protect_writes: false, checks }
    }

    /// Who may listen to this path with this token.
    pub fn admit(&self, token: &str, path: &str) -> Option<Member> {
        let keys = self.keys.get();
        let grant = keys.judge(token, now_ms()).ok().filter(|grant| grant.may_subscribe(path))?;
        let claims = match keys.describe(token, now_ms()).ok()? {
            // A line of the token file may do everything.
            _ if grant.is_static => Map::from_iter([("role".to_owned(), "admin".into())]),
            Value::Object(claims) => claims,
            _ => return None,
        };
        let roles = if grant.is_static { vec!["admin".to_owned()] } else { grant.roles };
        Some(Member { claims, roles, ends: grant.ends })
    }

    /// A new token for who has one that is still good; `None` where it is not, or where no token can be made.
    pub fn renew(&self, member: &Member) -> Option<String> {
        let named = member.claims.contains_key("exp") && member.ends.is_some_and(|ends| ends > now_ms());
        if named { self.issue(member.claims.clone()) } else { None }
    }

    /// `None` without a key to sign with.
    fn issue(&self, mut claims: Map<String, Value>) -> Option<String> {
        let now = now_ms() / 1000;
        claims.insert("iat".into(), now.into());
        claims.insert("exp".into(), (now + self.token_ttl.as_secs()).into());
        // Two tokens of one second differ.
        claims.insert("jti".into(), format!("{:016x}", rand::random::<u64>()).into());
        self.keys.get().sign(&claims)
    }

    async fn sign_in(&self, name: String, password: String) -> Option<String> {
        let users = self.users.as_ref()?.get();
        let turn = self.checks.clone().acquire_owned().await.ok()?;
        let checked = tokio::task::spawn_blocking(move || {
            let roles = users.check(&name, &password).map(<[String]>::to_vec);
            drop(turn);
            roles.map(|roles| (name, roles))
        });
        let (name, roles) = checked.await.ok()??;
        let claims = json!({ "username": name, "role": roles.first(), "roles": roles });
        self.issue(claims.as_object()?.clone())
    }
}

/// `POST /signin`: a token for a name and a password.
pub async fn sign_in(registry: &Registry, asked: &Asked) -> Answer {
    let text = |name: &str| asked.body.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    let Some((name, password)) = text("username").zip(text("password")) else {
        return Answer::bad("Missing username or password");
    };
    let token = match &registry.access {
        Some(access) => access.sign_in(name.to_owned(), password.to_owned()).await,
        None => None,
    };
    token.map_or_else(unauthorized, |token| Answer::ok(&json!({ "token": token })))
}

/// `POST /refresh-token`: a new token for one that is still good.
pub fn refresh(registry: &Registry, asked: &Asked) -> Result<Answer, Answer> {
    let token = asked.body.get("token").and_then(Value::as_str).filter(|token| !token.is_empty());
    let token = token.ok_or_else(|| Answer::bad("Missing token"))?;
    let renewed = registry.access.as_ref().and_then(|access| {
        let member = access.admit(token, &registry.topic.path)?;
        access.renew(&member)
    });
    renewed.map(|token| Answer::ok(&json!({ "token": token }))).ok_or_else(unauthorized)
}

fn unauthorized() -> Answer {
    Answer::error(StatusCode::UNAUTHORIZED, "Unauthorized")
}
