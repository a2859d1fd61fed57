//! The guides that people have, and the code blocks of a Markdown text by the rules of CommonMark: a fence may be
//! indented, and ends with one as long.

use crate::common::root;
use std::path::PathBuf;

/// The blocks of the first and of the second guide.
///
/// The guides lie beside the project, in the directory that `WSEVENT_SEEDS` names.
pub struct Guides([Vec<Block>; 2]);

impl Guides {
    /// `None`, and a word about it, where the guides are not there.
    pub fn read() -> Option<Self> {
        let seeds = std::env::var_os("WSEVENT_SEEDS").map_or_else(|| root().join("../shared/seeds"), PathBuf::from);
        let read = |name: &str| std::fs::read_to_string(seeds.join(format!("streaming-guide-{name}.md"))).ok();
        let Some((first, second)) = read("first").zip(read("second")) else {
            eprintln!("SKIPPED: no guides in {}: set WSEVENT_SEEDS to test them", seeds.display());
            return None;
        };
        let guides = [first, second].map(|text| blocks(&text));
        assert_eq!(guides.each_ref().map(Vec::len), [28, 43]);
        Some(Guides(guides))
    }

    /// A block by its guide's letter and its number from 1; an `a` or `b` behind them is the part before or behind a fence
    /// that the author meant to end it.
    pub fn block(&self, name: &str) -> &str {
        let (letter, number) = name.split_at(1);
        let guide = &self.0[usize::from(letter == "B")];
        let digits = number.trim_end_matches(['a', 'b']);
        let text = &guide[digits.parse::<usize>().expect("a number") - 1].text;
        match &number[digits.len()..] {
            "a" => text.split("```").next().unwrap_or_default(),
            "b" => text.rsplit("```javascript\n").next().unwrap_or_default(),
            _ => text,
        }
    }
}

/// A fenced block.
#[derive(Debug, PartialEq)]
pub struct Block {
    /// The first word behind the fence.
    pub kind: String,
    pub text: String,
}

/// All blocks in order.
pub fn blocks(markdown: &str) -> Vec<Block> {
    let (mut found, mut lines) = (Vec::new(), markdown.lines());
    while let Some(line) = lines.next() {
        let indent = line.len() - line.trim_start().len();
        let fence = line.trim_start().chars().take_while(|&c| c == '`').count();
        if fence < 3 {
            continue;
        }
        let kind = line.trim_start()[fence..].split_whitespace().next().unwrap_or_default().to_owned();
        let closes = |line: &&str| {
            let line = line.trim();
            line.len() >= fence && line.chars().all(|c| c == '`')
        };
        let dedent = |line: &str| line[indent.min(line.len() - line.trim_start().len())..].to_owned() + "\n";
        let text = lines.by_ref().take_while(|line| !closes(line)).map(dedent).collect();
        found.push(Block { kind, text });
    }
    found
}
