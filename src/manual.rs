//! The manual page (roff, man(7)), from the same definitions as the help.

use crate::cli::{ENVIRONMENT, EXAMPLES, EXIT_CODES, UNITS};
use clap::Command;
use clap_mangen::Man;
use std::io::{self, Write};

/// Writes the page.
///
/// # Errors
/// The writer's own.
pub fn render(definitions: Command, out: &mut dyn Write) -> io::Result<()> {
    let commands: Vec<(String, String)> =
        definitions.get_subcommands().map(|command| (command.get_name().into(), about(command))).collect();
    let page = Man::new(definitions);
    page.render_title(out)?;
    page.render_name_section(out)?;
    page.render_synopsis_section(out)?;
    page.render_description_section(out)?;
    page.render_options_section(out)?;
    heading(out, "COMMANDS")?;
    for (name, about) in commands {
        writeln!(out, ".TP\n\\fBwsevent {}\\fR\n{}", escaped(&name), escaped(&about))?;
    }
    heading(out, "EXAMPLES")?;
    writeln!(out, ".nf\n{}\n.fi", escaped(EXAMPLES))?;
    paragraph(out, "ENVIRONMENT", ENVIRONMENT)?;
    paragraph(out, "EXIT STATUS", EXIT_CODES)?;
    paragraph(out, "UNITS", UNITS)?;
    page.render_version_section(out)
}

fn about(command: &Command) -> String {
    command.get_about().map(ToString::to_string).unwrap_or_default()
}

fn heading(out: &mut dyn Write, name: &str) -> io::Result<()> {
    writeln!(out, ".SH \"{name}\"")
}

fn paragraph(out: &mut dyn Write, name: &str, text: &str) -> io::Result<()> {
    heading(out, name)?;
    let (first, rest) = text.split_at(text.chars().next().map_or(0, char::len_utf8));
    writeln!(out, "{}{}", first.to_uppercase(), escaped(rest))
}

/// Text that no request or escape of roff hides in.
fn escaped(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    text.lines()
        .map(|line| if line.starts_with(['.', '\'']) { format!("\\&{line}") } else { line.into() })
        .collect::<Vec<_>>()
        .join("\n")
}
