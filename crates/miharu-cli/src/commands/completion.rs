//! `miharu completion`: scripts that complete commands in a shell.

use std::io::Write;

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use crate::args::Cli;
use crate::error::Failure;

/// For which shell.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  miharu completion bash > /etc/bash_completion.d/miharu
  miharu completion zsh > \"${fpath[1]}/_miharu\"
  miharu completion fish > ~/.config/fish/completions/miharu.fish")]
pub(crate) struct CompletionArgs {
    /// The shell
    shell: Shell,
}

/// Prints the script.
pub(crate) fn run(args: &CompletionArgs, out: &mut dyn Write) -> Result<(), Failure> {
    // Through memory: the generator panics when it cannot write, for example to a closed pipe.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "miharu", &mut script);
    Ok(out.write_all(&script)?)
}

#[cfg(test)]
mod tests {
    use crate::testing::Fake;

    #[test]
    fn scripts_know_the_commands() {
        let fake = Fake::start(vec![]);
        for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
            let (result, out) = fake.miharu(&["completion", shell]);
            result.unwrap();
            assert!(out.contains("add-certificate"), "{shell}");
        }
    }
}
