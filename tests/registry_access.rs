//! A registry whose access is controlled: who signs in, who may listen, who may change what.

mod common;
mod services;

use common::{
    Running, Scratch, Wsevent, eventually,
    raw::{self, Raw},
    reader::Reader,
};
use data_encoding::BASE64URL_NOPAD;
use serde_json::{Value, json};
use services::{BCRYPT, SECRET, ask, at, get, listener, next, post, register, registry, timeless, told};

/// A registry with the users ada (admin) and bob (viewer), whose passwords are `secret`.
struct Guarded {
    registry: Running,
    /// Its files.
    _scratch: Scratch,
}

fn guarded(secret: &str, options: &str) -> Guarded {
    let scratch = Scratch::new();
    let hashed = Wsevent::line("hash-password").input("secret\n").run();
    assert_eq!(hashed.code, 0, "{}", hashed.stderr);
    let users = format!("# people\nada:{}:admin,operator\nbob:{BCRYPT}:viewer\n", hashed.stdout.trim());
    let (users, secret) = (scratch.file("users", users), scratch.file("secret", secret));
    let registry = registry(&format!("--users {users} --jwt-secret-file {secret} {options}"));
    Guarded { registry, _scratch: scratch }
}

fn token(registry: &Running, name: &str) -> String {
    let (status, answer) = post(registry, "/signin", &json!({"username": name, "password": "secret"}));
    assert_eq!(status, 200, "{answer}");
    answer["token"].as_str().expect("a token").to_owned()
}

fn claims(token: &str) -> Value {
    let part = token.split('.').nth(1).expect("three parts");
    serde_json::from_slice(&BASE64URL_NOPAD.decode(part.as_bytes()).expect("base64url")).expect("JSON")
}

fn with_token(registry: &Running, method: &str, path: &str, token: &str, body: &Value) -> u16 {
    let header = format!("Authorization: Bearer {token}\r\n");
    raw::request(method, &at(registry, path), &header, body.to_string().as_bytes()).status
}

#[test]
fn who_knows_the_password_gets_a_token_that_can_be_renewed() {
    let guarded = guarded(SECRET, "");
    let registry = &guarded.registry;
    let first = token(registry, "ada");
    let said = claims(&first);
    assert_eq!(
        (&said["username"], &said["role"], &said["roles"]),
        (&json!("ada"), &json!("admin"), &json!(["admin", "operator"]))
    );
    assert_eq!(said["exp"].as_u64(), said["iat"].as_u64().map(|at| at + 3600));
    assert_eq!(claims(&token(registry, "bob"))["role"], "viewer");
    let (status, renewed) = post(registry, "/refresh-token", &json!({"token": first}));
    assert_eq!((status, &claims(renewed["token"].as_str().expect("a token"))["username"]), (200, &json!("ada")));
    assert_ne!(renewed["token"], json!(first));
    let unauthorized = (401, json!({"error": "Unauthorized"}));
    for (name, password) in [("ada", "wrong"), ("eve", "secret")] {
        assert_eq!(post(registry, "/signin", &json!({"username": name, "password": password})), unauthorized);
    }
    assert_eq!(post(registry, "/refresh-token", &json!({"token": "nonsense"})), unauthorized);
    assert_eq!(post(registry, "/signin", &json!({"username": "ada"})).1["error"], "Missing username or password");
    assert_eq!(post(registry, "/signin", &json!({"username": 1, "password": []})).0, 400);
    assert_eq!(post(registry, "/refresh-token", &json!({})), (400, json!({"error": "Missing token"})));
}

#[test]
fn only_some_changes_need_a_token() {
    let open = guarded(SECRET, "");
    let registry = &open.registry;
    register(registry, "web", 1);
    let body = json!({"serviceName": "web", "key": "k", "value": 1});
    assert_eq!(post(registry, "/config/set", &body).0, 401);
    let escaped = raw::request("POST", &at(registry, "/c%6Fnfig/set"), "", body.to_string().as_bytes());
    assert_eq!(escaped.status, 401);
    let (ada, bob) = (token(registry, "ada"), token(registry, "bob"));
    assert_eq!(with_token(registry, "POST", "/config/set", &bob, &body), 403);
    assert_eq!(with_token(registry, "POST", "/config/set", &ada, &body), 200);
    assert_eq!(get(registry, "/config/get?serviceName=web&key=k").0, 200);
    assert_eq!(raw::get(&at(registry, "/events")).status, 401);
    assert_eq!(with_token(registry, "GET", "/events", &bob, &json!({})), 200);
    assert_eq!(with_token(registry, "POST", "/events", &ada, &body), 403, "nobody says what the registry says");

    let closed = guarded(SECRET, "--protect-writes");
    let body = json!({"serviceName": "web", "host": "h", "port": 1});
    assert_eq!(post(&closed.registry, "/register", &body).0, 401);
    assert_eq!(with_token(&closed.registry, "POST", "/register", &token(&closed.registry, "ada"), &body), 200);
    assert_eq!(get(&closed.registry, "/discover?serviceName=web").0, 200);
}

#[tokio::test]
async fn nothing_is_heard_before_a_good_token() {
    let guarded = guarded(SECRET, "");
    let stranger = guarded_token("another secret that is long enough for this").await;
    let registry = &guarded.registry;
    let good = token(registry, "bob");
    let none = format!(
        "{}.{}.",
        BASE64URL_NOPAD.encode(br#"{"alg":"none","typ":"JWT"}"#),
        good.split('.').nth(1).expect("claims")
    );
    let says = [
        ("garbage".to_owned(), "auth_required"),
        (json!({"subscribe": true}).to_string(), "auth_required"),
        (json!({"auth": 5}).to_string(), "auth_failed"),
        (json!({"auth": none}).to_string(), "auth_failed"),
        (json!({"auth": stranger, "subscribe": true}).to_string(), "auth_failed"),
    ];
    let mut readers = Vec::new();
    for _ in &says {
        readers.push(listener(registry).await);
    }
    let mut member = listener(registry).await;
    register(registry, "web", 1);
    for (mut reader, (message, answer)) in readers.into_iter().zip(says) {
        reader.send(message.clone()).await;
        let (heard, goodbye) = reader.rest().await;
        assert_eq!(heard, [json!({ "type": answer }).to_string()], "{message}");
        assert_eq!(goodbye.map(|(code, _)| code), Some(1008), "{message}");
    }
    let welcome = ask(&mut member, json!({ "auth": good })).await;
    assert_eq!((&welcome["type"], &welcome["user"]["username"]), (&json!("authenticated"), &json!("bob")));
    assert_eq!(welcome["user"]["exp"], claims(&good)["exp"]);
    register(registry, "web", 2);
    assert_eq!(timeless(&next(&mut member).await), told("service_registered", "web", 2));
    let refused = ask(&mut member, json!({"subscribe": {"event": "admin_event"}})).await;
    assert_eq!(refused, json!({"type": "error", "message": "Insufficient permissions"}));
    let renewed = ask(&mut member, json!({"refresh_token": true})).await;
    assert_eq!((&renewed["type"], &renewed["event"]), (&json!("token_refreshed"), &json!("token_refreshed")));
    assert_eq!(claims(renewed["token"].as_str().expect("a token"))["username"], "bob");
    let mut admin = listener(registry).await;
    let both = json!({"auth": token(registry, "ada"), "subscribe": {"event": "admin_event"}});
    assert_eq!(ask(&mut admin, both).await["type"], "authenticated");
    assert_eq!(next(&mut admin).await["type"], "subscribed");
}

/// A token of another registry.
async fn guarded_token(secret: &str) -> String {
    let other = guarded(secret, "");
    token(&other.registry, "ada")
}

#[tokio::test]
async fn a_token_in_the_request_is_as_good_as_the_first_message() {
    let guarded = guarded(SECRET, "");
    let registry = &guarded.registry;
    let bearer = format!("Bearer {}", token(registry, "bob"));
    let (mut reader, _) = Reader::open_with(&at(registry, "/"), &[("authorization", &bearer)]).await;
    assert_eq!(next(&mut reader).await["user"]["username"], "bob");
    register(registry, "web", 1);
    assert_eq!(timeless(&next(&mut reader).await), told("service_registered", "web", 1));
    let (_, refused) = Raw::ask_websocket(&at(registry, "/"), "Authorization: Bearer nonsense\r\n");
    assert_eq!(refused.status, 401);
}

#[tokio::test]
async fn who_says_nothing_and_whose_token_ends_must_go() {
    let guarded = guarded(SECRET, "--auth-deadline 100ms --token-ttl 2s");
    let registry = &guarded.registry;
    let mut silent = listener(registry).await;
    let (heard, goodbye) = silent.rest().await;
    assert_eq!((heard.len(), goodbye.map(|(code, _)| code)), (0, Some(1008)));
    let mut member = listener(registry).await;
    let short = token(registry, "bob");
    assert_eq!(ask(&mut member, json!({ "auth": short })).await["type"], "authenticated");
    let (_, goodbye) = member.rest().await;
    assert_eq!(goodbye, Some((1008, "token expired".into())));
    assert_eq!(post(registry, "/refresh-token", &json!({ "token": short })).0, 401);
}

#[test]
fn a_user_who_is_added_may_sign_in() {
    let scratch = Scratch::new();
    let (users, secret) = (scratch.file("users", "# nobody yet\n"), scratch.file("secret", SECRET));
    let registry = registry(&format!("--users {users} --jwt-secret-file {secret}"));
    let sign_in = || post(&registry, "/signin", &json!({"username": "bob", "password": "secret"})).0;
    assert_eq!(sign_in(), 401);
    scratch.file("users", format!("bob:{BCRYPT}:viewer\n"));
    eventually("the new user", || (sign_in() == 200).then_some(()));
}

#[test]
fn users_that_cannot_be_read_are_said_at_the_start() {
    let scratch = Scratch::new();
    let (users, secret) = (scratch.file("users", "ada:plain text:admin\n"), scratch.file("secret", SECRET));
    let line = format!("--registry --serve-address localhost:0 --users {users} --jwt-secret-file {secret}");
    let done = Wsevent::line(&line).run();
    assert!(done.code != 0 && done.stderr.contains("line 1") && !done.stderr.contains("plain text"), "{done:?}");
    let done = Wsevent::line("hash-password").input("").run();
    assert_eq!(done.code, 2);
}
