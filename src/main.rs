//! The command line.

#[path = "main/check.rs"]
mod check;
#[path = "main/given.rs"]
mod given;
#[path = "main/load.rs"]
mod load;
#[path = "main/logging.rs"]
mod logging;
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
use weir::config::Overrides;
use weir::demo::{self, origin};
use weir::log::Log;
use weir::supervisor::control::{self, Place, Request};
use weir::supervisor::{self, Options, Program};
use weir::worker;

use self::check::{Check, check};
use self::given::{HangTimeout, Overriding};
use self::load::{load, loader};
use self::logging::{Logging, with_log};
use self::usage::wrong_usage;

/// The libc allocator costs some ten per cent more per request.
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
    /// Balances requests over backends, by a file or by flags
    Run(Run),
    /// Makes the running balancer read its file anew, and says what has come of it
    Reload(Control),
    /// Says how the running balancer is; fails unless it serves
    Status(Control),
    /// Stops the running balancer gracefully
    Stop(Stop),
    /// What `run` starts to serve requests
    #[command(hide = true)]
    Worker(Run),
    /// Says whether it could go on in a supervisor's place
    #[command(hide = true)]
    UpgradeCheck(Run),
    /// Shows the main job with nothing else installed: origins, a balancer, the admin port
    Demo(Demo),
    /// Runs one test origin
    Origin(Origin),
    /// Reads what `run` would serve and reports every problem with it
    Check(Check),
    /// Prints what a shell needs to complete commands and flags
    Completions(Completions),
}

#[derive(Debug, Args)]
struct Completions {
    /// Whose: bash, zsh, fish, elvish or powershell
    shell: Shell,
}

#[derive(Debug, Args)]
#[command(after_help = given::ENVIRONMENT)]
struct Run {
    /// The configuration file [env: WEIR_CONFIG]
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    overriding: Overriding,
    /// Reload when the file changes
    #[arg(long)]
    watch: bool,
    /// How long a worker may make no progress before it is replaced, or `off`
    /// [default: 10s] [env: WEIR_HANG_TIMEOUT]
    #[arg(long, value_name = "DURATION", value_parser = given::hang_timeout)]
    hang_timeout: Option<HangTimeout>,
    /// How long a new worker may take until it serves
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = humantime::parse_duration)]
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
    fn place(&self) -> Place {
        let given = self.control.clone().or_else(|| variable("WEIR_CONTROL").map(PathBuf::from));
        given.map_or_else(|| Place::Usual(control::usual_path()), Place::Given)
    }
}

#[derive(Debug, Args)]
struct Stop {
    #[command(flatten)]
    control: Control,
    /// Return when it has ended; fail unless all that was in flight was finished
    #[arg(long)]
    wait: bool,
}

impl Stop {
    const fn request(&self) -> Request {
        if self.wait { Request::Finish } else { Request::Stop }
    }
}

#[derive(Debug, Args)]
struct Demo {
    /// Where the balancer listens
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// Where the admin port listens
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9090")]
    admin: SocketAddr,
    /// How many origins
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=64))]
    backends: u16,
    #[command(flatten)]
    control: Control,
}

#[derive(Debug, Args)]
struct Origin {
    /// Listen on this port
    #[arg(long)]
    port: u16,
    /// Listen on this address
    #[arg(long, value_name = "IP", default_value = "127.0.0.1")]
    address: std::net::IpAddr,
    /// What it calls itself in its answers
    #[arg(long, default_value = "origin")]
    name: String,
    /// How long it waits before each answer, such as 2s
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = humantime::parse_duration)]
    latency: Duration,
    /// Answer 500 to everything, the health check included
    #[arg(long)]
    fail: bool,
    /// The status of its answers
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u16).range(200..=599))]
    status: u16,
}

fn main() -> ExitCode {
    let cli = Cli::try_parse().unwrap_or_else(|error| wrong_usage(&error));
    match cli.command {
        Command::Run(flags) => supervise_with_log(|log| run(flags, log)),
        Command::Demo(flags) => supervise_with_log(|log| run_demo(&flags, log)),
        Command::Origin(flags) => with_log(Logging::Queued, |_log| run_origin(flags)),
        Command::Worker(flags) => work_with_log(|log| work(&flags, log)),
        Command::UpgradeCheck(flags) => with_log(Logging::OfTrial, |_log| check_upgrade(&flags)),
        Command::Reload(flags) => logging::at_once(|| ask(&flags, Request::Reload)),
        Command::Status(flags) => logging::at_once(|| ask(&flags, Request::Status)),
        Command::Stop(flags) => logging::at_once(|| ask(&flags.control, flags.request())),
        Command::Check(flags) => logging::at_once(|| check(&flags)),
        Command::Completions(flags) => logging::at_once(|| completions(&flags)),
    }
}

/// Signals are held before the log starts a thread, which inherits that.
fn supervise_with_log(supervise: impl FnOnce(&Log) -> Result<(), String>) -> ExitCode {
    match supervisor::hold_signals() {
        Ok(()) => with_log(Logging::Queued, supervise),
        Err(error) => logging::complain(&no_signals(&error)),
    }
}

/// The same, of a worker.
fn work_with_log(work: impl FnOnce(&Log) -> Result<(), String>) -> ExitCode {
    match supervisor::hold_worker_signals() {
        Ok(()) => with_log(Logging::OfWorker, work),
        Err(error) => logging::complain(&no_signals(&error)),
    }
}

fn run(flags: Run, log: &Log) -> Result<(), String> {
    let (file, overrides) = (flags.file(), flags.overriding.overrides());
    given::warn_of_unread_variables();
    supervise(Options {
        // The worker is told the same flags, and finds the same environment.
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
    format!("weir: cannot watch for signals: {error}")
}

fn check_upgrade(flags: &Run) -> Result<(), String> {
    // Both are for the supervisor that asks, which reads standard output.
    match supervisor::understands(
        io::stdin().lock(),
        &loader(flags.file(), flags.overriding.overrides()),
    ) {
        Ok(word) => say(word),
        Err(why) => say(&why).and(Err(String::new())),
    }
}

fn supervise(options: Options) -> Result<(), String> {
    supervisor::run(options).map_err(|error| error.to_string())
}

/// This binary, as a worker.
fn program(flags: Vec<OsString>) -> Result<Program, String> {
    let arguments = [OsString::from("worker")].into_iter().chain(flags).collect();
    Program::this(arguments).map_err(|error| format!("weir: cannot find itself: {error}"))
}

fn work(flags: &Run, log: &Log) -> Result<(), String> {
    worker::set_process_name();
    let (file, overrides) = (flags.file(), flags.overriding.overrides());
    // The supervisor was told why and tells the operator.
    let load = |text: Option<&[u8]>| load(file.as_deref(), text, &overrides);
    worker::run(load, flags.ready_timeout, log).map_err(|_told| String::new())
}

fn ask(flags: &Control, request: Request) -> Result<(), String> {
    let place = flags.place();
    let answer = control::ask(place.path(), request).map_err(|error| {
        let at = place.path().display();
        let help = control::help_for(&error);
        format!("weir: no balancer answers at {at}: {error} (help: {help})")
    })?;
    if answer.done { say(&answer.text) } else { Err(answer.text) }
}

/// What is set to nothing counts as not set.
fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

fn completions(flags: &Completions) -> Result<(), String> {
    let mut script = Vec::new();
    clap_complete::generate(flags.shell, &mut Cli::command(), "weir", &mut script);
    say(String::from_utf8_lossy(&script).trim_end())
}

fn say(line: &str) -> Result<(), String> {
    writeln!(io::stdout(), "{line}").map_err(|error| format!("weir: cannot print: {error}"))
}

fn run_demo(flags: &Demo, log: &Log) -> Result<(), String> {
    let origins = demo::start(usize::from(flags.backends))
        .map_err(|error| format!("weir: the demo's origins cannot start: {error}"))?;
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
        ready: Some(Box::new(move || say_beside(hint))),
    })
}

/// Prints on a thread of its own: the supervisor must not wait for whoever reads it.
fn say_beside(text: String) {
    let print = move || {
        let _nobody_reads = say(&text);
    };
    if let Err(error) = thread::Builder::new().name("hint".to_owned()).spawn(print) {
        log::warn!("the hint is not printed: error=\"{error}\"");
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
    demo::run(listener, options).map_err(|error| format!("weir: the origin failed: {error}"))
}
