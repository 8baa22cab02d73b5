//! Invalid command lines.

use std::env;
use std::io::{self, Write as _};

use clap::error::{ContextKind, ContextValue};

/// Prints what is wrong with the command line, or the requested help, and exits.
pub(super) fn wrong_usage(error: &clap::Error) -> ! {
    // If the output is closed, there is no way to report it.
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
