//! The back ends that a file lists, one per line, read again when it changes.

use super::member::Member;
use crate::files::{self, Check, Watched};
use std::{io, path::Path};
use tokio::sync::watch;

/// A line that begins with this says nothing.
const COMMENT: char = '#';

/// Follows the file.
pub struct Members {
    file: Watched<Vec<Member>>,
    listed: watch::Sender<Vec<Member>>,
}

impl Members {
    /// Those of the file are `listed` from now on; all of them must be of the same kind as `like`.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub fn follow(path: &Path, like: Member, listed: watch::Sender<Vec<Member>>) -> io::Result<Self> {
        let paths = vec![path.to_owned()];
        let file = Watched::open(paths.clone(), move || {
            let members = read(&paths[0])?;
            let other = members.iter().find(|member| member.topic().is_some() != like.topic().is_some());
            match other {
                Some(other) => {
                    Err(files::wrong(OPTION, &paths[0], &format!("{other} is not of the same kind as {like}")))
                }
                None => Ok(members),
            }
        })?;
        Ok(Members { file, listed })
    }
}

impl Check for Members {
    fn check(&self, asked: bool) {
        self.file.check(asked);
        let members = self.file.get();
        self.listed.send_if_modified(|listed| {
            let differs = *listed != *members;
            listed.clone_from(&members);
            differs
        });
    }
}

const OPTION: &str = "--balance-file";

/// The members that it lists: at least one.
///
/// # Errors
/// Which line, and what is wrong with it.
pub fn read(path: &Path) -> io::Result<Vec<Member>> {
    let text = String::from_utf8(files::read(OPTION, path)?);
    parse(&text.map_err(|error| files::wrong(OPTION, path, &error))?).map_err(|why| files::wrong(OPTION, path, &why))
}

fn parse(text: &str) -> Result<Vec<Member>, String> {
    let lines = text.lines().map(str::trim).enumerate();
    let said = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with(COMMENT));
    let members = said.map(|(i, line)| line.parse().map_err(|why| format!("line {}: {why}", i + 1)));
    let members = members.collect::<Result<Vec<Member>, String>>()?;
    if members.is_empty() { Err("it lists no back end".into()) } else { Ok(members) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_member() {
        let members = parse("# ours\na:1\n\n  http://b:1 weight=2  \n").expect("two members");
        assert_eq!(members.iter().map(|member| member.weight).collect::<Vec<_>>(), [1.0, 2.0]);
        assert_eq!(parse("a:1\nb:1 heavy").expect_err("no weight").split(':').next(), Some("line 2"));
        assert!(parse("# none\n").is_err());
    }
}
