//! The resident memory of a process, from `/proc`.

use std::fs;
use std::time::{Duration, Instant};

use crate::Result;

/// How much memory a process had, to see how much it has grown since.
pub(crate) struct Memory {
    process: u32,
    before: f64,
}

/// How long between two looks at a process whose memory is to settle.
const INTERVAL: Duration = Duration::from_millis(100);

impl Memory {
    /// Notes how much a process has now; the peak counts from now on.
    pub(crate) fn of(process: u32) -> Result<Self> {
        // 5 sets the peak to what there is now.
        fs::write(format!("/proc/{process}/clear_refs"), "5")?;
        Ok(Memory { process, before: megabytes(process, "VmRSS:")? })
    }

    /// By how many MB the process has grown.
    pub(crate) fn grown(&self) -> Result<f64> {
        Ok(megabytes(self.process, "VmRSS:")? - self.before)
    }

    /// By how many MB it had grown when it was largest.
    pub(crate) fn peak(&self) -> Result<f64> {
        Ok(megabytes(self.process, "VmHWM:")? - self.before)
    }

    /// Waits until the process has grown by less than `goal` MB, for at most so long; by how much then.
    pub(crate) fn settled_below(&self, goal: f64, timeout: Duration) -> Result<f64> {
        let deadline = Instant::now() + timeout;
        loop {
            let grown = self.grown()?;
            if grown < goal || Instant::now() > deadline {
                return Ok(grown);
            }
            std::thread::sleep(INTERVAL);
        }
    }
}

/// A line of the process's status that is in kB.
fn megabytes(process: u32, name: &str) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let line = line.ok_or_else(|| format!("the server has ended: its status has no {name}"))?;
    let kilobytes = line.split_whitespace().next().ok_or("a line of the status has a number")?;
    Ok(kilobytes.parse::<f64>()? * 1024.0 / 1e6)
}
