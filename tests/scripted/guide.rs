//! Code blocks of a Markdown text, by the rules of CommonMark: a fence may be indented, and ends with one as long.

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
