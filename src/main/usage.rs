//! A command line that cannot be understood.

use std::env;
use std::io::{self, Write as _};

use clap::error::{ContextKind, ContextValue};

/// Says what is wrong with the command line, or the help that was asked for, and ends.
pub(super) fn wrong_usage(error: &clap::Error) -> ! {
    // Nobody is left to tell if the output is gone.
    let _gone = error.print();
    let argument = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(argument)) if !argument.starts_with('-') => Some(argument),
        _ => None,
    };
    let command = env::args().nth(1);
    if let (Some(file), Some("run")) = (argument, command.as_deref()) {
        let _gone = writeln!(io::stderr(), "\n  tip: did you mean 'weir run -c {file}'?");
    }
    std::process::exit(error.exit_code())
}
