//! Tests of what a whole process has: each runs in a process of its own, which is this test program again.

use std::process::Command;

/// Set in the process of a test's own.
const ALONE: &str = "CAPNP_THREADS_TEST_ALONE";

/// Runs `body`, as what the test of that name is about, in a process in which nothing else runs. Its limits are set by
/// the program `prlimit`.
#[track_caller]
pub fn alone(test: &str, limits: &[&str], body: impl FnOnce()) {
    if std::env::var_os(ALONE).is_some() {
        return body();
    }
    let output = Command::new("prlimit")
        .args(limits)
        .arg(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture"])
        .env(ALONE, test)
        .output()
        .unwrap();
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}\n{}\n{}", output.status, said(&output.stdout), said(&output.stderr));
    assert!(said(&output.stdout).contains("1 passed"), "there is no test {test}");
}
