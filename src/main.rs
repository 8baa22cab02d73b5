//! The command line.

#[path = "main/check.rs"]
mod check;
#[path = "main/given.rs"]
mod given;
#[path = "main/load.rs"]
mod load;
#[path = "main/logging.rs"]
mod logging;
#[path = "main/operator.rs"]
mod operator;
#[path = "main/usage.rs"]
mod usage;

use std::env;
use std::ffi::OsString;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use clap::{Args, CommandFactory as _, Parser, Subcommand};
use clap_complete::Shell;
use weir::config::{Overrides, parse_duration};
use weir::demo::{self, origin};
use weir::log::Log;
use weir::supervisor::control::{self, Reply, Request, SocketPath};
use weir::supervisor::{self, Options, Program};
use weir::worker;

use self::check::{Check, check};
use self::given::{HangTimeout, Overriding};
use self::load::{load, loader};
use self::logging::{LogRole, run_with_blocking_log, run_with_exit_code, run_with_queued_log};
use self::usage::wrong_usage;

/// The libc allocator costs about ten per cent more per request.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// An HTTP load balancer: one binary, one YAML file.
#[derive(Debug, Parser)]
#[command(version, propagate_version = true, arg_required_else_help = true)]
#[command(after_help = "Environment: WEIR_LOG (a filter such as `info` or `weir=debug`), \
                        WEIR_DEBUG=1 (the same as WEIR_LOG=debug)")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the load balancer, configured by a file or by flags
    Run(Run),
    /// Reload the configuration of the running load balancer and print the result
    Reload(Control),
    /// Print the state of the running load balancer; fail unless it serves
    Status(Control),
    /// Stop the running load balancer gracefully
    Stop(Stop),
    /// Print the backends: what is configured, what an operator has set, and what is seen
    Backends(operator::BackendsFlags),
    #[command(flatten)]
    Operator(operator::OperatorCommand),
    /// The process that `run` starts to serve requests
    #[command(hide = true)]
    Worker(Run),
    /// Check whether this binary can take over from a running supervisor
    #[command(hide = true)]
    UpgradeCheck(Run),
    /// Run test servers, a load balancer in front of them and the admin port
    Demo(Demo),
    /// Run one test server
    Origin(Origin),
    /// Validate the configuration that `run` would use, and print every problem
    Check(Check),
    /// Print shell completions for commands and flags
    Completions(Completions),
}

#[derive(Debug, Args)]
struct Completions {
    /// bash, zsh, fish, elvish or powershell
    shell: Shell,
}

#[derive(Debug, Args)]
#[command(after_help = given::OF_RUN)]
struct Run {
    /// The configuration file [env: WEIR_CONFIG]
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    overriding: Overriding,
    /// Reload when the file changes
    #[arg(long)]
    watch: bool,
    /// Replace a worker that makes no progress for this long, or `off`
    /// [default: 10s] [env: WEIR_HANG_TIMEOUT]
    #[arg(long, value_name = "DURATION", value_parser = given::hang_timeout)]
    hang_timeout: Option<HangTimeout>,
    /// How long a new worker may take until it is ready
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = parse_duration)]
    ready_timeout: Duration,
    #[command(flatten)]
    control: Control,
}

impl Run {
    fn file(&self) -> Option<PathBuf> {
        given::file(self.config.as_ref())
    }
}

#[derive(Debug, Args)]
struct Control {
    /// The control socket [env: WEIR_CONTROL]
    #[arg(long, value_name = "PATH")]
    control: Option<PathBuf>,
}

impl Control {
    fn place(&self) -> SocketPath {
        let given = self.control.clone().or_else(|| variable("WEIR_CONTROL").map(PathBuf::from));
        given.map_or_else(|| SocketPath::Default(control::default_path()), SocketPath::Explicit)
    }
}

#[derive(Debug, Args)]
struct Stop {
    #[command(flatten)]
    control: Control,
    /// Return when it has stopped; fail if connections had to be closed
    #[arg(long)]
    wait: bool,
}

impl Stop {
    const fn request(&self) -> Request {
        if self.wait { Request::StopAndWait } else { Request::Stop }
    }
}

#[derive(Debug, Args)]
struct Demo {
    /// The address that the load balancer listens on
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// The address of the admin port
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9090")]
    admin: SocketAddr,
    /// The number of test servers
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=64))]
    backends: u16,
    #[command(flatten)]
    control: Control,
}

#[derive(Debug, Args)]
struct Origin {
    /// The port to listen on
    #[arg(long)]
    port: u16,
    /// The address to listen on
    #[arg(long, value_name = "IP", default_value = "127.0.0.1")]
    address: std::net::IpAddr,
    /// The name of the server in its responses
    #[arg(long, default_value = "origin")]
    name: String,
    /// The delay of each response, such as 2s
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = parse_duration)]
    latency: Duration,
    /// Respond 500 to every request, including health checks
    #[arg(long)]
    fail: bool,
    /// The status of its responses
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u16).range(200..=599))]
    status: u16,
}

fn main() -> ExitCode {
    let cli = Cli::try_parse().unwrap_or_else(|error| wrong_usage(&error));
    match cli.command {
        Command::Run(flags) => supervise_with_log(|log| run(flags, log)),
        Command::Demo(flags) => supervise_with_log(|log| run_demo(&flags, log)),
        Command::Origin(flags) => run_with_queued_log(LogRole::Command, |_log| run_origin(flags)),
        Command::Worker(flags) => work_with_log(|log| work(&flags, log)),
        Command::UpgradeCheck(flags) => {
            run_with_queued_log(LogRole::CompatibilityCheck, |_log| check_upgrade(&flags))
        }
        Command::Reload(flags) => run_with_blocking_log(|| send_command(&flags, &Request::Reload)),
        Command::Status(flags) => run_with_blocking_log(|| send_command(&flags, &Request::Status)),
        Command::Stop(flags) => {
            run_with_blocking_log(|| send_command(&flags.control, &flags.request()))
        }
        Command::Backends(flags) => run_with_blocking_log(|| operator::backends(flags)),
        Command::Operator(command) => run_with_exit_code(|| command.run()),
        Command::Check(flags) => run_with_blocking_log(|| check(&flags)),
        Command::Completions(flags) => run_with_blocking_log(|| completions(&flags)),
    }
}

/// Blocks signals before the log starts its thread, because threads inherit the signal mask.
fn supervise_with_log(supervise: impl FnOnce(&Log) -> Result<(), String>) -> ExitCode {
    match supervisor::hold_signals() {
        Ok(()) => run_with_queued_log(LogRole::Command, supervise),
        Err(error) => logging::print_error(&no_signals(&error)),
    }
}

/// The same for a worker.
fn work_with_log(work: impl FnOnce(&Log) -> Result<(), String>) -> ExitCode {
    match supervisor::hold_worker_signals() {
        Ok(()) => run_with_queued_log(LogRole::Worker, work),
        Err(error) => logging::print_error(&no_signals(&error)),
    }
}

fn run(flags: Run, log: &Log) -> Result<(), String> {
    let (file, overrides) = (flags.file(), flags.overriding.overrides());
    given::warn_of_unread_variables();
    if flags.watch && file.is_none() {
        log::warn!(
            "--watch has no effect: no configuration file is given (help: pass it by `-c FILE`)"
        );
    }
    supervise(Options {
        // The worker gets the same flags and inherits the same environment.
        program: program(env::args_os().skip(2).collect())?,
        overridden_by: overrides.names(),
        load: loader(file.clone(), overrides),
        file,
        text: None,
        control: flags.control.place(),
        ready_timeout: flags.ready_timeout,
        hang_timeout: given::hang_timeout_of(flags.hang_timeout)?,
        watch: flags.watch,
        log: log.clone(),
        ready: None,
    })
}

fn no_signals(error: &io::Error) -> String {
    format!("weir: cannot handle signals: {error}")
}

fn check_upgrade(flags: &Run) -> Result<(), String> {
    // Both are read by the supervisor from standard output.
    match supervisor::is_compatible(
        io::stdin().lock(),
        &loader(flags.file(), flags.overriding.overrides()),
    ) {
        Ok(word) => print(word),
        Err(why) => print(&why).and(Err(String::new())),
    }
}

fn supervise(options: Options) -> Result<(), String> {
    supervisor::run(options).map_err(|error| error.to_string())
}

/// This binary, as a worker.
fn program(flags: Vec<OsString>) -> Result<Program, String> {
    let arguments = [OsString::from("worker")].into_iter().chain(flags).collect();
    Program::this(arguments).map_err(|error| format!("weir: cannot find its own binary: {error}"))
}

fn work(flags: &Run, log: &Log) -> Result<(), String> {
    worker::set_process_name();
    let (file, overrides) = (flags.file(), flags.overriding.overrides());
    // The worker has sent the error to the supervisor, which reports it.
    let load = |text: Option<&[u8]>| load(file.as_deref(), text, &overrides);
    worker::run(load, flags.ready_timeout, log).map_err(|_reported| String::new())
}

fn send_command(flags: &Control, request: &Request) -> Result<(), String> {
    let reply = ask(flags, request)?;
    if reply.done { print(&reply.text) } else { Err(reply.text) }
}

fn ask(flags: &Control, request: &Request) -> Result<Reply, String> {
    let place = flags.place();
    control::ask(place.path(), request).map_err(|error| {
        let at = place.path().display();
        let help = control::help_for(&error);
        format!("weir: no load balancer responds at {at}: {error} (help: {help})")
    })
}

/// Reads an environment variable. An empty one counts as not set.
fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

fn completions(flags: &Completions) -> Result<(), String> {
    let mut script = Vec::new();
    clap_complete::generate(flags.shell, &mut Cli::command(), "weir", &mut script);
    print(String::from_utf8_lossy(&script).trim_end())
}

fn print(line: &str) -> Result<(), String> {
    writeln!(io::stdout(), "{line}").map_err(|error| format!("weir: cannot print: {error}"))
}

fn run_demo(flags: &Demo, log: &Log) -> Result<(), String> {
    let origins = demo::start(usize::from(flags.backends))
        .map_err(|error| format!("weir: the test servers of the demo cannot start: {error}"))?;
    let urls = origins.addresses().iter().map(|address| format!("http://{address}"));
    let text = demo::configuration(flags.listen, flags.admin, &urls.collect::<Vec<_>>());
    let hint = demo_hint(flags);
    supervise(Options {
        program: program(Vec::new())?,
        file: None,
        load: loader(None, Overrides::default()),
        overridden_by: String::new(),
        text: Some(text),
        control: flags.control.place(),
        ready_timeout: Duration::from_secs(60),
        hang_timeout: given::hang_timeout_of(None)?,
        watch: false,
        log: log.clone(),
        ready: Some(Box::new(move || print_on_thread(hint))),
    })
}

/// Prints on a separate thread, because standard output may block and the supervisor must not.
fn print_on_thread(text: String) {
    let print_text = move || {
        let _closed = print(&text);
    };
    if let Err(error) = thread::Builder::new().name("hint".to_owned()).spawn(print_text) {
        log::warn!("the demo's hint cannot be printed: error=\"{error}\"");
    }
}

fn demo_hint(flags: &Demo) -> String {
    let (listen, admin) = (flags.listen, flags.admin);
    format!(
        "{} origins behind http://{listen} -- try:\n  curl http://{listen}/\n  \
         curl http://{admin}/status\n  curl http://{admin}/metrics\nCtrl-C stops it.",
        flags.backends
    )
}

fn run_origin(flags: Origin) -> Result<(), String> {
    let address = SocketAddr::new(flags.address, flags.port);
    let listener = origin::bind(address)
        .map_err(|error| format!("weir: cannot listen on {address}: {error}"))?;
    let options = origin::OriginOptions {
        name: flags.name,
        latency: flags.latency,
        fail: flags.fail,
        status: flags.status,
    };
    demo::run(listener, options).map_err(|error| format!("weir: the test server failed: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn check_takes_its_file_in_one_way_only() {
        for arguments in
            [["weir", "check", "a.yaml"].as_slice(), &["weir", "check", "-c", "a.yaml"]]
        {
            assert!(Cli::try_parse_from(arguments).is_ok(), "{arguments:?}");
        }
        assert!(Cli::try_parse_from(["weir", "check", "a.yaml", "-c", "b.yaml"]).is_err());
    }

    #[test]
    fn stop_waits_only_if_it_is_asked_to() {
        let request = |arguments: &[&str]| {
            let command = Cli::try_parse_from(arguments).unwrap().command;
            let Command::Stop(flags) = command else { panic!("{command:?}") };
            flags.request()
        };
        assert_eq!(request(&["weir", "stop"]), Request::Stop);
        assert_eq!(request(&["weir", "stop", "--wait"]), Request::StopAndWait);
    }
}
