//! Networks of a test's own, with settings of the kernel that other tests must not have.

use std::env;
use std::process::Command;

/// Set for a test that runs in a network of its own.
const INSIDE: &str = "WEIR_TEST_NETWORK";

/// Runs the test of this full name again, in a network of its own where the shell command `setting` was run.
/// Whether this is that run.
#[track_caller]
pub(crate) fn is_in_network_with(setting: &str, test: &str) -> bool {
    if env::var_os(INSIDE).is_some() {
        return true;
    }
    let script = format!("ip link set lo up && {setting} && exec \"$@\"");
    let by = || {
        let mut command = Command::new("unshare");
        command.args(["--net", "sh", "-c", &script, "sh"]);
        command
    };
    if !by().arg("true").output().is_ok_and(|ended| ended.status.success()) {
        eprintln!("skipped: no network can be made here (unshare needs root)");
        return false;
    }
    let mut again = by();
    again.arg(env::current_exe().expect("its path")).args(["--exact", test, "--nocapture"]);
    let ended = again.env(INSIDE, "1").output().expect("starting it");
    let (out, error) =
        (String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
    assert!(ended.status.success() && out.contains("1 passed"), "{out}\n{error}");
    false
}
