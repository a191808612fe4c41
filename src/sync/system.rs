//! What the system says of its limits on threads and memory mappings: the text of `/proc` and of the control groups.

use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

/// How many mappings a thread has: its stack, its signal stack, and a guard page of each.
const MAPPINGS: u64 = 4;

/// What one of the system's limits allows, and what of that is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Quota {
    limit: u64,
    taken: u64,
}

impl Quota {
    /// What may still be taken, if an eighth of the limit is spared.
    fn room(self) -> u64 {
        (self.limit - self.limit / 8).saturating_sub(self.taken)
    }
}

/// How many threads more this process may have, by all limits of the system that can be read.
pub(super) fn room_for_threads() -> usize {
    let mappings = number("/proc/sys/vm/max_map_count").and_then(|limit| {
        let taken = count_lines(Path::new("/proc/self/maps"))?;
        Some(Quota { limit, taken }.room() / MAPPINGS)
    });
    let of_system =
        ["/proc/sys/kernel/pid_max", "/proc/sys/kernel/threads-max"].into_iter().filter_map(|path| {
            let taken = threads_of_all(&text("/proc/loadavg")?)?;
            Some(Quota { limit: number(path)?, taken }.room())
        });
    let of_user = text("/proc/self/limits").and_then(|limits| {
        // Threads of the user's other processes count too, but nobody tells how many those are.
        let taken = threads_of_process(&text("/proc/self/status")?)?;
        Some(Quota { limit: process_limit(&limits)?, taken }.room())
    });
    let of_groups = text("/proc/self/cgroup").map_or(Vec::new(), |groups| pid_groups(&groups));
    let of_groups = of_groups.into_iter().filter_map(|group| {
        let (limit, taken) = (number(group.join("pids.max"))?, number(group.join("pids.current"))?);
        Some(Quota { limit, taken }.room())
    });
    let room = mappings.into_iter().chain(of_system).chain(of_user).chain(of_groups).min();
    room.and_then(|room| usize::try_from(room).ok()).unwrap_or(usize::MAX)
}

fn text(path: impl AsRef<Path>) -> Option<String> {
    fs::read_to_string(path).ok()
}

/// `None` too for a limit of `max`, which is none.
fn number(path: impl AsRef<Path>) -> Option<u64> {
    text(path)?.trim().parse().ok()
}

/// Counts lines of a file, however long that is, in little memory.
fn count_lines(path: &Path) -> Option<u64> {
    let mut file = File::open(path).ok()?;
    let mut buffer = vec![0; 1 << 16];
    let mut lines = 0;
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Some(lines),
            Ok(n) => lines += buffer[..n].iter().filter(|byte| **byte == b'\n').count() as u64,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
    }
}

/// Of `0.20 0.18 0.12 1/80 11206`, the 80.
fn threads_of_all(loadavg: &str) -> Option<u64> {
    loadavg.split_whitespace().nth(3)?.split_once('/')?.1.parse().ok()
}

fn threads_of_process(status: &str) -> Option<u64> {
    status.lines().find_map(|line| line.strip_prefix("Threads:"))?.trim().parse().ok()
}

/// The soft limit on the user's processes, of `/proc/self/limits`.
fn process_limit(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max processes"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// The directories of the control groups that this process is in and that may limit its threads: its own, and all above.
fn pid_groups(groups: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else {
            continue;
        };
        let root = match controllers {
            "" => Path::new("/sys/fs/cgroup"),
            _ if controllers.split(',').any(|name| name == "pids") => Path::new("/sys/fs/cgroup/pids"),
            _ => continue,
        };
        let group = root.join(path.trim_start_matches('/'));
        found.extend(group.ancestors().take_while(|above| above.starts_with(root)).map(Path::to_owned));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_eighth_of_a_limit_is_spared() {
        assert_eq!(Quota { limit: 800, taken: 100 }.room(), 600);
        assert_eq!(Quota { limit: 800, taken: 701 }.room(), 0);
        assert_eq!(Quota { limit: u64::MAX, taken: 0 }.room(), u64::MAX - u64::MAX / 8);
    }

    #[test]
    fn what_the_system_says_is_read() {
        assert_eq!(threads_of_all("0.92 2.36 1.85 5/118 29302\n"), Some(118));
        assert_eq!(threads_of_all("0.92 2.36"), None);
        assert_eq!(threads_of_process("Name:\tx\nThreads:\t17\nSigQ:\t0/96364\n"), Some(17));
        let limits = "Limit                     Soft Limit           Hard Limit           Units     \n\
                      Max stack size            8388608              unlimited            bytes     \n\
                      Max processes             96364                100000               processes \n";
        assert_eq!(process_limit(limits), Some(96364));
        assert_eq!(
            process_limit("Max processes             unlimited            unlimited  processes\n"),
            None
        );
    }

    #[test]
    fn groups_of_both_versions_are_found_with_all_above() {
        let groups = pid_groups("9:name=systemd:/x\n8:cpu,pids:/a/b\n4:memory:/y\n0::/c\n");
        let paths: Vec<_> = groups.iter().map(|path| path.to_str().unwrap().trim_end_matches('/')).collect();
        let version_1 = ["/sys/fs/cgroup/pids/a/b", "/sys/fs/cgroup/pids/a", "/sys/fs/cgroup/pids"];
        assert_eq!(paths[..3], version_1);
        assert_eq!(paths[3..], ["/sys/fs/cgroup/c", "/sys/fs/cgroup"]);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_thread_takes_as_many_mappings_as_are_counted_for_it() {
        const THREADS: u64 = 64;
        let mappings = || count_lines(Path::new("/proc/self/maps")).unwrap();
        assert!(mappings() > 0 && room_for_threads() > 0);
        let (go, wait) = crossbeam_channel::bounded::<()>(0);
        let ready = std::sync::Arc::new(std::sync::Barrier::new(THREADS as usize + 1));
        let before = mappings();
        let threads: Vec<_> = (0..THREADS)
            .map(|_| {
                let (ready, wait) = (ready.clone(), wait.clone());
                std::thread::spawn(move || {
                    ready.wait();
                    // It ends when the sender is gone.
                    let _ = wait.recv();
                })
            })
            .collect();
        ready.wait();
        let taken = mappings() - before;
        drop(go);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        // Other tests run beside this one.
        assert!(taken < (MAPPINGS + 1) * THREADS, "{taken}");
    }
}
