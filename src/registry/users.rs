//! `--users`: who may sign in, as lines of `name:hash:role[,role]`.

use crate::files;
use argon2::{
    Argon2,
    password_hash::{PasswordHasher, PasswordVerifier, phc::PasswordHash},
};
use std::{collections::HashMap, io, path::Path};

const OPTION: &str = "--users";
/// A bcrypt hash is as long as this.
const BCRYPT: usize = 60;

/// Everybody who may sign in.
#[derive(Debug)]
pub struct Users {
    by_name: HashMap<String, User>,
    /// A hash that nobody has, for names that nobody has: both take as long.
    nobody: String,
}

#[derive(Debug)]
struct User {
    hash: String,
    roles: Vec<String>,
}

impl Users {
    /// Reads the file.
    ///
    /// # Errors
    /// Which line is wrong; what it says is not told.
    pub fn load(path: &Path) -> io::Result<Self> {
        let text = String::from_utf8(files::read(OPTION, path)?);
        let text = text.map_err(|_| files::wrong(OPTION, path, &"it is no text"))?;
        let users = Users::read(&text).map_err(|why| files::wrong(OPTION, path, &why))?;
        if users.by_name.is_empty() {
            tracing::warn!(file = %path.display(), "nobody may sign in: the file of users names none");
        }
        Ok(users)
    }

    fn read(text: &str) -> Result<Self, String> {
        let mut by_name = HashMap::new();
        let lines = text.lines().enumerate().map(|(i, line)| (i + 1, line.trim()));
        for (number, line) in lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#')) {
            let (name, user) =
                read_user(line).ok_or_else(|| format!("line {number} is not name:hash:role with a hash of ours"))?;
            if by_name.insert(name, user).is_some() {
                return Err(format!("line {number} names somebody who was named before"));
            }
        }
        let nobody = by_name.values().next().map(|user: &User| user.hash.clone()).unwrap_or_default();
        Ok(Users { by_name, nobody })
    }

    /// The roles of who has this name and this password. Slow on purpose.
    pub fn check(&self, name: &str, password: &str) -> Option<&[String]> {
        let user = self.by_name.get(name);
        let right = fits(password, user.map_or(&self.nobody, |user| &user.hash));
        user.filter(|_| right).map(|user| &user.roles[..])
    }
}

/// Neither kind of hash has a colon.
fn read_user(line: &str) -> Option<(String, User)> {
    let mut parts = line.split(':');
    let (name, hash, roles) = (parts.next()?, parts.next()?, parts.next()?);
    let roles: Vec<String> = roles.split(',').map(|role| role.trim().to_owned()).collect();
    let whole = parts.next().is_none() && !name.is_empty() && !roles.iter().any(String::is_empty);
    (whole && is_hash(hash)).then(|| (name.to_owned(), User { hash: hash.to_owned(), roles }))
}

fn is_bcrypt(hash: &str) -> bool {
    hash.len() == BCRYPT && ["$2a$", "$2b$", "$2y$"].iter().any(|kind| hash.starts_with(kind))
}

fn is_hash(hash: &str) -> bool {
    is_bcrypt(hash) || hash.starts_with("$argon2") && PasswordHash::new(hash).is_ok()
}

fn fits(password: &str, hash: &str) -> bool {
    if is_bcrypt(hash) {
        return bcrypt::verify(password, hash).unwrap_or(false);
    }
    let Ok(hash) = PasswordHash::new(hash) else { return false };
    Argon2::default().verify_password(password.as_bytes(), &hash).is_ok()
}

/// What stands for a password in the file: argon2id with a salt of its own.
///
/// # Errors
/// When the system gives no random salt, or the password cannot be hashed.
pub fn hash(password: &str) -> Result<String, String> {
    let hashed = Argon2::default().hash_password(password.as_bytes());
    hashed.map(|hash| hash.to_string()).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `secret`, as another program hashed it.
    const SECRET: &str = "$2b$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW";

    #[test]
    fn who_knows_the_password_has_the_roles() {
        let ada = hash("pass:word,").expect("a hash");
        let users = Users::read(&format!("# people\n\nada:{ada}:admin, operator\r\nbob:{SECRET}:viewer\n"));
        let users = users.expect("users");
        assert_eq!(users.check("ada", "pass:word,"), Some(&["admin".to_owned(), "operator".to_owned()][..]));
        for (name, password) in [("ada", "secret"), ("ada", ""), ("bob", "pass:word,"), ("eve", "secret"), ("", "")] {
            assert_eq!(users.check(name, password), None, "{name} {password}");
        }
        assert_ne!(hash("x"), hash("x"), "salted");
    }

    #[test]
    fn a_line_that_is_wrong_is_named_by_its_number() {
        for line in ["ada", "ada:x:admin", "ada:secret:", "", "ada:$argon2id$x:admin"] {
            let text = format!("#\n{line}\n");
            let read = Users::read(&text);
            match line {
                "" => assert!(read.expect("nobody").check("ada", "").is_none()),
                _ => assert!(read.expect_err(line).contains("line 2"), "{line}"),
            }
        }
        let twice = format!("bob:{SECRET}:viewer\nbob:{SECRET}:admin");
        assert!(Users::read(&twice).expect_err("twice").contains("line 2"));
    }
}
