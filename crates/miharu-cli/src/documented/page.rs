//! The reference page of the command line, from the definitions that `--help` and the man pages are made of.

use std::fmt::Write as _;

use clap::{Arg, Command};

const HEAD: &str = "\
# The command line

Every command of `miharu`, with all that it takes. `miharu help` and `--help` after any command say the same at the terminal. This page is made from the
program's own definitions by `make references`.
";

/// The whole page.
pub(super) fn markdown(mut program: Command) -> String {
    // Puts into each command what it inherits.
    program.build();
    let mut page = HEAD.to_owned();
    describe(&program, "miharu", &mut page);
    page
}

fn describe(command: &Command, name: &str, page: &mut String) {
    writeln!(page, "\n## {name}\n").unwrap();
    let about = command.get_long_about().or_else(|| command.get_about());
    let about = about.map(ToString::to_string).unwrap_or_default();
    let end = if about.ends_with(['.', '!', '?']) { "" } else { "." };
    writeln!(page, "{about}{end}\n").unwrap();
    let aliases: Vec<String> = command.get_visible_aliases().map(|alias| format!("`{alias}`")).collect();
    if !aliases.is_empty() {
        writeln!(page, "Also {}.\n", aliases.join(", ")).unwrap();
    }
    let usage = command.clone().render_usage().to_string();
    for line in usage.trim_start_matches("Usage:").lines() {
        writeln!(page, "    {}", line.trim()).unwrap();
    }
    let below: Vec<&Command> =
        command.get_subcommands().filter(|it| !it.is_hide_set() && it.get_name() != "help").collect();
    if !below.is_empty() {
        writeln!(page, "\n| command | |\n|---|---|").unwrap();
        for one in &below {
            let whole = format!("{name} {}", one.get_name());
            let about = one.get_about().map(ToString::to_string).unwrap_or_default();
            writeln!(page, "| [{whole}](#{}) | {} |", whole.replace(' ', "-"), cell(&about)).unwrap();
        }
    }
    // Those of every command stand once, with the program.
    let top = !name.contains(' ');
    let args: Vec<&Arg> = command
        .get_arguments()
        .filter(|arg| !arg.is_hide_set() && (top || !arg.is_global_set()))
        .filter(|arg| !matches!(arg.get_id().as_str(), "help" | "version"))
        .collect();
    if !args.is_empty() {
        let title = if top { "option of every command" } else { "takes" };
        writeln!(page, "\n| {title} | |\n|---|---|").unwrap();
        for arg in args {
            writeln!(page, "| {} | {} |", shape(arg), meaning(arg)).unwrap();
        }
    }
    if let Some(after) = command.get_after_long_help().or_else(|| command.get_after_help()) {
        writeln!(page, "\n```text\n{}\n```", after.to_string().trim_end()).unwrap();
    }
    for one in below {
        describe(one, &format!("{name} {}", one.get_name()), page);
    }
}

/// How an argument is typed.
fn shape(arg: &Arg) -> String {
    let value = if arg.get_action().takes_values() {
        let names = arg.get_value_names().unwrap_or_default();
        names.iter().map(|name| format!(" {name}")).collect()
    } else {
        String::new()
    };
    if arg.is_positional() {
        return format!("`{}`", value.trim());
    }
    let mut ways: Vec<String> = arg.get_short().iter().map(|short| format!("-{short}")).collect();
    ways.extend(arg.get_long().map(|long| format!("--{long}")));
    ways.extend(arg.get_visible_aliases().unwrap_or_default().iter().map(|alias| format!("--{alias}")));
    let last = ways.len().saturating_sub(1);
    let ways: Vec<String> = ways
        .iter()
        .enumerate()
        .map(|(at, way)| if at == last { format!("`{way}{value}`") } else { format!("`{way}`") })
        .collect();
    ways.join(", ")
}

/// What an argument is for, and what holds without it.
fn meaning(arg: &Arg) -> String {
    let help = arg.get_long_help().or_else(|| arg.get_help()).map(ToString::to_string).unwrap_or_default();
    let mut text = cell(&help);
    let possible: Vec<String> = arg
        .get_possible_values()
        .iter()
        .filter(|value| !value.is_hide_set())
        .map(|value| format!("`{}`", cell(value.get_name())))
        .collect();
    if !possible.is_empty() && arg.get_action().takes_values() {
        write!(text, "; one of {}", possible.join(", ")).unwrap();
    }
    let defaults: Vec<String> =
        arg.get_default_values().iter().map(|value| format!("`{}`", value.display())).collect();
    if !defaults.is_empty() && arg.get_action().takes_values() {
        write!(text, "; {} by default", defaults.join(" ")).unwrap();
    }
    if let Some(name) = arg.get_env() {
        write!(text, "; also from `{}` in the environment", name.display()).unwrap();
    }
    text
}

/// Text that a cell of a table can hold.
fn cell(text: &str) -> String {
    let line: Vec<&str> = text.split_whitespace().collect();
    line.join(" ").replace('|', "\\|").replace('<', "&lt;")
}
