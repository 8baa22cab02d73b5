//! `weir check`: checks what `weir run` would serve with the same flags, environment and file.

use std::io::{self, Write as _};
use std::path::PathBuf;

use clap::Args;
use weir::config::{self, Config, Overrides, Problems};

use super::given::{self, Overriding};
use super::load::{check_all, read};
use super::print;

#[derive(Debug, Args)]
#[command(after_help = given::OF_CHECK)]
pub(super) struct Check {
    /// The configuration file [env: WEIR_CONFIG]
    file: Option<PathBuf>,
    /// The configuration file, as a flag like that of `weir run`
    #[arg(short, long, value_name = "FILE", conflicts_with = "file")]
    config: Option<PathBuf>,
    #[command(flatten)]
    overriding: Overriding,
    /// Print the configuration with every default and override filled in, and with its routes in
    /// order of precedence
    #[arg(long)]
    show: bool,
}

/// Prints the problems, or else a summary. Flags and variables of `run` that concern the process have no
/// effect here.
pub(super) fn check(flags: &Check) -> Result<(), String> {
    let path = given::file(flags.file.as_ref().or(flags.config.as_ref()));
    let file = path.as_deref();
    let overrides = flags.overriding.overrides();
    let text = file.map(read).transpose()?;
    let report = check_all(file, text.as_deref(), &overrides);
    if !report.warnings.is_empty() {
        let _closed = writeln!(
            io::stderr(),
            "{}",
            lines(report.warnings.iter().map(|warning| warning.line(file)))
        );
    }
    let complaint = |problems: Problems| lines(problems.iter().map(|problem| problem.line(file)));
    if flags.show {
        let shown = config::show(text.as_deref(), &overrides).map_err(complaint)?;
        print(shown.trim_end())?;
        return report.config.map(drop).map_err(complaint);
    }
    let config = report.config.map_err(complaint)?;
    let name = file.map_or_else(|| "weir".to_owned(), |file| file.display().to_string());
    print(&format!("{name}: ok: {}", summary(&config, &overrides)))
}

fn lines(lines: impl Iterator<Item = String>) -> String {
    lines.collect::<Vec<_>>().join("\n")
}

/// Numbers of listeners, routes, pools and backends, and the names of the overrides.
fn summary(config: &Config, overrides: &Overrides) -> String {
    let backends: usize = config.pools.iter().map(|pool| pool.backends.len()).sum();
    let (listeners, routes) = (config.listeners.len(), config.routes.len());
    let pools = config.pools.len();
    let counts = format!("listeners={listeners} routes={routes} pools={pools} backends={backends}");
    match overrides.names().as_str() {
        "" => counts,
        names => format!("{counts} overridden_by={names}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_counts_the_backends_of_all_pools_and_names_overrides() {
        let text = "pools: [{name: a, backends: [http://10.0.0.1:1, http://10.0.0.2:1]}, \
                    {name: b, backends: [http://10.0.0.3:1]}]\n\
                    routes: [{path: /a, pool: a}, {pool: b}]";
        let none = Overrides::default();
        let config = config::load(Some(text.as_bytes()), &none).unwrap();
        let counts = "listeners=1 routes=2 pools=2 backends=3";
        assert_eq!(summary(&config, &none), counts);
        let admin = Some(config::Override::flag("--admin", "127.0.0.1:1"));
        let overrides = Overrides { admin, ..none };
        assert_eq!(summary(&config, &overrides), format!("{counts} overridden_by=--admin"));
    }
}
