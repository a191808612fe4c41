//! A server and a client in processes of their own, and what they took.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use crate::Result;

/// What the client does.
pub(crate) struct Work {
    pub(crate) mode: &'static str,
    pub(crate) inflight: &'static str,
    pub(crate) bytes: &'static str,
}

/// What that took: of time for each call; of the rest in all, at the client and at the server.
pub(crate) struct Taken {
    pub(crate) microseconds: f64,
    pub(crate) allocations: [f64; 2],
    /// None, unless they were traced.
    pub(crate) system_calls: [f64; 2],
}

impl Work {
    /// Makes so many calls, with a new server.
    pub(crate) fn run(&self, calls: usize, traced: bool) -> Result<Taken> {
        let traces = ["client", "server"].map(trace_file);
        let [to_client, to_server] = &traces;
        let mut server = start(&["server"], traced.then_some(to_server))?;
        let mut said = BufReader::new(server.stdout.take().ok_or("its output is piped")?);
        let mut address = String::new();
        said.read_line(&mut address)?;

        let args = ["client", address.trim(), self.mode, &calls.to_string(), self.inflight, self.bytes];
        let client = start(&args, traced.then_some(to_client))?.wait_with_output()?;
        // Its standard input ends, and so does the server.
        drop(server.stdin.take());
        let mut at_server = String::new();
        said.read_to_string(&mut at_server)?;
        if !(client.status.success() && server.wait()?.success()) {
            return Err(format!("{}: a process failed", self.mode).into());
        }

        let output = String::from_utf8(client.stdout)?;
        let (figures, at_client) = output.trim().rsplit_once('\n').ok_or("two lines of output")?;
        let system_calls = match traced {
            true => [calls_in(to_client)?, calls_in(to_server)?],
            false => [0.0; 2],
        };
        let allocations = [at_client.trim().parse()?, at_server.trim().parse()?];
        Ok(Taken { microseconds: 1e6 / figure(figures, "per_second")?, allocations, system_calls })
    }
}

/// Starts this program anew, under `strace` if its calls are to be counted.
fn start(args: &[&str], trace_to: Option<&PathBuf>) -> Result<Child> {
    let program = std::env::current_exe()?;
    let mut command = match trace_to {
        Some(file) => {
            let mut strace = Command::new("strace");
            strace.args(["-f", "-c", "-o"]).arg(file).arg(program);
            strace
        }
        None => Command::new(program),
    };
    Ok(command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?)
}

pub(crate) fn has_strace() -> bool {
    let version = Command::new("strace").arg("-V").stdout(Stdio::null()).stderr(Stdio::null()).status();
    version.is_ok_and(|status| status.success())
}

fn trace_file(side: &str) -> PathBuf {
    std::env::temp_dir().join(format!("capnp-threads-{}-{side}.strace", std::process::id()))
}

/// How many system calls a summary of `strace` tells of: the fourth column, in the lines that name one.
fn calls_in(file: &PathBuf) -> Result<f64> {
    let summary = fs::read_to_string(file)?;
    fs::remove_file(file)?;
    let columns = summary.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let named = columns.filter(|columns| columns.len() >= 5 && columns.last() != Some(&"total"));
    Ok(named.filter_map(|columns| columns[3].parse::<f64>().ok()).sum())
}

/// A figure in a line of JSON.
fn figure(line: &str, name: &str) -> Result<f64> {
    let (_, value) = line.split_once(&format!("\"{name}\":")).ok_or("the line has the figure")?;
    Ok(value.split([',', '}']).next().unwrap_or_default().parse()?)
}
