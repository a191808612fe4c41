//! Whole calls between two processes, over TCP on the loopback: what one takes of time, and, on each side, of
//! allocations and system calls.
//!
//! ```text
//! cargo bench --bench whole             all modes of the example `peer`
//! cargo bench --bench whole -- MODE     one
//! ```
//!
//! The processes are this program again, with the sources of `peer` in it and an allocator that counts. What two runs
//! of different length differ by is what the calls took: so neither start nor end is counted. System calls are
//! counted by `strace`, if it is there, in runs of their own: it slows all down, so fewer messages may share one.

#[path = "../parts/allocations.rs"]
mod allocations;
#[path = "../../examples/peer/client.rs"]
mod client;
#[path = "../../examples/generated/mod.rs"]
mod generated;
mod processes;
#[path = "../../examples/peer/server.rs"]
mod server;
#[path = "../../examples/peer/setup.rs"]
mod setup;

use std::error::Error;
use std::io;

use capnp_threads::{Capability, Pool, Vat};
use generated::bench_capnp::bench;
use processes::{has_strace, Taken, Work};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Mode, how many calls are under way, and bytes in each.
const MODES: [(&str, &str, &str); 7] = [
    ("latency", "1", "16"),
    ("throughput", "64", "16"),
    ("pipeline", "1", "16"),
    ("callback", "1", "16"),
    ("churn", "64", "16"),
    ("stream", "1", "65536"),
    ("callers", "64", "16"),
];

/// So many calls, and twice as many. `peer` warms up with a tenth as many before, which count too.
const CALLS: usize = 5_000;

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["server"] => serve(),
        ["client", address, mode, count, inflight, bytes] => {
            client::Work::parse(mode, count, inflight, bytes, "0")?.run(setup::Setup::default(), address)?;
            println!("{}", allocations::so_far());
            Ok(())
        }
        [mode] => measure(|name| name == mode),
        _ => measure(|_| true),
    }
}

/// Serves until the standard input ends.
fn serve() -> Result<()> {
    let vat = Vat::new()
        .bootstrap_with(|_| Ok(bench::Client::with_pool(server::Bench::default(), Pool::in_place())));
    let listener = vat.listen("127.0.0.1:0")?;
    println!("{}", listener.local_addr());
    io::copy(&mut io::stdin(), &mut io::sink())?;
    println!("{}", allocations::so_far());
    Ok(())
}

fn measure(wanted: impl Fn(&str) -> bool) -> Result<()> {
    println!("{:<12} {:>10} {:>24} {:>24}", "for a call", "", "allocations", "system calls");
    println!("{:<12} {:>10} {:>24} {:>24}", "", "us", "client server", "client server");
    for (mode, inflight, bytes) in MODES.into_iter().filter(|(mode, ..)| wanted(mode)) {
        let work = Work { mode, inflight, bytes };
        let taken = one_call(&work, false)?;
        let [at_client, at_server] = taken.allocations.map(|n| format!("{n:.2}"));
        let [from_client, from_server] = match has_strace() {
            true => one_call(&work, true)?.system_calls.map(|n| format!("{n:.2}")),
            false => ["-"; 2].map(String::from),
        };
        println!(
            "{mode:<12} {:>10.2} {at_client:>17} {at_server:>6} {from_client:>17} {from_server:>6}",
            taken.microseconds
        );
    }
    Ok(())
}

/// What one call takes, by the difference between two runs.
fn one_call(work: &Work, traced: bool) -> Result<Taken> {
    let few = work.run(CALLS, traced)?;
    let many = work.run(2 * CALLS, traced)?;
    let calls = (CALLS + CALLS / 10) as f64;
    let each = |few: [f64; 2], many: [f64; 2]| [0, 1].map(|side| (many[side] - few[side]) / calls);
    Ok(Taken {
        microseconds: many.microseconds,
        allocations: each(few.allocations, many.allocations),
        system_calls: each(few.system_calls, many.system_calls),
    })
}
