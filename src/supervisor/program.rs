//! Which binary is run.
//!
//! A reload and an upgrade take what is on disk. They follow the path as it was given, anew each time:
//! behind a symbolic link there may be another binary by then. `/proc/self/exe` names the file that the
//! link led to at the start, which may be old or gone.
//!
//! A replacement for a worker that died takes the binary that the worker ran. What is on disk may hang,
//! refuse the configuration, or be a version that the operator has not tried yet.

use std::env;
use std::ffi::{CString, OsStr, OsString};
use std::fs;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use rustix::fs::{Mode, OFlags, open};
use rustix::process::Pid;

/// The binary of this process. It can be executed even if its file was removed.
const RUNNING: &str = "/proc/self/exe";

/// Where the new image finds the state of the previous one, where it finds that one's binary, and
/// why the previous one had to continue after all. Images of other versions write and read them, so
/// the names stay.
pub(super) const EXEC_STATE: &str = "WEIR_RESUME";
pub(super) const PREVIOUS_EXE: &str = "WEIR_FORMER";
pub(super) const ROLLED_BACK: &str = "WEIR_WENT_BACK";
/// All of them. They are for the next image of a supervisor alone.
pub(super) const VARIABLES: [&str; 3] = [EXEC_STATE, PREVIOUS_EXE, ROLLED_BACK];
/// How a worker is started: the binary's path and the arguments of its command line. The path and
/// not the running image, so that a reload starts what is on disk by then.
#[derive(Debug, Clone)]
pub struct Program {
    /// Where the binary is; its links are not followed.
    pub path: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
}

/// Which binary is started.
#[derive(Debug, Clone)]
pub(super) enum Image {
    /// The one that is on disk now.
    OnDisk,
    /// The one that this process runs: known to work.
    Running,
    /// The binary that the last worker ran, which is known to serve. Its file may have been removed.
    Served(Arc<OwnedFd>),
}

impl Image {
    /// The one that a worker runs.
    pub(super) fn of(worker: Pid) -> Self {
        let path = format!("/proc/{}/exe", worker.as_raw_nonzero());
        match open(&path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()) {
            Ok(file) => Self::Served(Arc::new(file)),
            Err(error) => {
                log::debug!("binary of a worker not kept: path={path} error=\"{error}\"");
                Self::Running
            }
        }
    }

    /// Where a new process finds it, which has the descriptors of this one until its exec.
    fn path(&self, on_disk: &Path) -> PathBuf {
        match self {
            Self::OnDisk => on_disk.to_owned(),
            Self::Running => PathBuf::from(RUNNING),
            Self::Served(file) => PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd())),
        }
    }
}

impl Program {
    /// This program, by the path it was started with.
    ///
    /// # Errors
    /// The system does not say what runs.
    pub fn this(arguments: Vec<OsString>) -> io::Result<Self> {
        let given = env::args_os().next();
        let running = fs::metadata(RUNNING)?;
        let is_running = |path: &PathBuf| {
            fs::metadata(path)
                .is_ok_and(|found| (found.dev(), found.ino()) == (running.dev(), running.ino()))
        };
        let path = given.and_then(|given| as_given(&given)).filter(is_running);
        let path = path.map_or_else(env::current_exe, Ok)?;
        Ok(Self { path, arguments })
    }

    /// A command that runs it, without what only a supervisor finds in its environment.
    pub(super) fn command(&self, image: &Image) -> Command {
        let mut command = Command::new(image.path(&self.path));
        command.arg0(&self.path);
        VARIABLES.iter().for_each(|variable| {
            command.env_remove(variable);
        });
        command
    }
}

/// The arguments of this image, for the next one.
pub(super) fn arguments() -> io::Result<Vec<CString>> {
    env::args_os().map(|argument| Ok(CString::new(argument.into_vec())?)).collect()
}

/// The environment of this image, with these variables in place of those that it got itself.
pub(super) fn environment(ours: &[(&str, String)]) -> io::Result<Vec<CString>> {
    let kept = env::vars_os().filter(|(name, _)| !VARIABLES.iter().any(|ours| name == ours));
    let kept = kept.map(|(name, value)| [name.into_vec(), value.into_vec()]);
    let ours =
        ours.iter().map(|(name, value)| [name.as_bytes().to_vec(), value.as_bytes().to_vec()]);
    kept.chain(ours).map(|pair| Ok(CString::new(pair.join(&b'='))?)).collect()
}

/// The absolute path that a shell means by the first word of a command line.
fn as_given(word: &OsStr) -> Option<PathBuf> {
    if word.as_bytes().contains(&b'/') {
        return std::path::absolute(Path::new(word)).ok();
    }
    let path = env::var_os("PATH")?;
    let found = env::split_paths(&path).map(|directory| directory.join(word)).find(|path| {
        fs::metadata(path)
            .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    })?;
    std::path::absolute(found).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_word_of_a_command_line_is_read_as_a_shell_reads_it() {
        let here = env::current_dir().unwrap();
        assert_eq!(as_given(OsStr::new("bin/weir")), Some(here.join("bin/weir")));
        assert_eq!(as_given(OsStr::new("/opt/weir")), Some(PathBuf::from("/opt/weir")));
        let shell = as_given(OsStr::new("sh")).unwrap();
        assert!(shell.is_absolute() && shell.ends_with("sh"), "{}", shell.display());
        assert_eq!(as_given(OsStr::new("no-such-program-anywhere")), None);
    }

    #[test]
    fn a_started_process_gets_none_of_the_variables_of_an_image() {
        let program = Program { path: PathBuf::from("/opt/weir"), arguments: Vec::new() };
        let command = program.command(&Image::Running);
        assert_eq!(command.get_program(), "/proc/self/exe");
        let removed: Vec<_> = command.get_envs().filter(|(_, value)| value.is_none()).collect();
        assert_eq!(removed.len(), VARIABLES.len());
        assert_eq!(program.command(&Image::OnDisk).get_program(), "/opt/weir");
    }

    #[test]
    fn the_next_image_gets_its_variables_once() {
        let next = environment(&[(EXEC_STATE, "5".to_owned())]).unwrap();
        let ours = |name: &str| {
            next.iter().filter(|it| it.to_bytes().starts_with(name.as_bytes())).count()
        };
        assert!(next.contains(&CString::new("WEIR_RESUME=5").unwrap()));
        assert_eq!((ours("WEIR_RESUME="), ours("WEIR_FORMER="), ours("PATH=")), (1, 0, 1));
        assert!(environment(&[(EXEC_STATE, "a\0b".to_owned())]).is_err());
    }
}
