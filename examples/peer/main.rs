//! A peer for interoperability and speed: serves and drives `schema/bench.capnp`.
//!
//! ```text
//! peer server ADDRESS                                      prints `listening PORT`, and serves until it is killed
//! peer client ADDRESS check                                prints one line of JSON, as do the others
//! peer client ADDRESS MODE COUNT INFLIGHT BYTES [HELD]     makes COUNT calls
//! peer client ADDRESS idle COUNT                           opens COUNT connections
//! peer client ADDRESS paced COUNT SECONDS                  makes a call a second over each of COUNT connections
//! ```
//!
//! | MODE | a call is |
//! | --- | --- |
//! | `latency`, `throughput` | an echo of BYTES, with INFLIGHT under way |
//! | `pipeline` | an echo on what comes of eight calls that are not waited for |
//! | `callback` | an echo that the server asks us for |
//! | `churn` | an object that the server makes and we drop |
//! | `stream` | a push of BYTES into a stream |
//! | `conns` | an echo; one at a time from each of INFLIGHT threads, each with a connection of its own |
//! | `callers` | an echo; one at a time from each of INFLIGHT threads, all with the same client |
//! | `outstanding` | an echo, with INFLIGHT under way, while HELD more calls wait for ever |
//! | `exports` | an object made and dropped by one of HELD objects that we hold, with INFLIGHT under way |
//!
//! Before `server` or `client`, `--strict` has each stage of a connection driven by its own thread alone, and
//! `--polling MICROS` says for how long input is looked for before a thread sleeps (0: not at all): what these are worth
//! is found by comparing `peer` with itself.
//!
//! `idle` makes one call over each of its connections, prints its line, and keeps them open until its standard
//! input ends. `paced` does the same, and prints another line when it has made its calls. `benches/peers/compare` runs all of this, beside programs with the same command line that stand on
//! other implementations.

use std::error::Error;
use std::process::ExitCode;

use std::time::Duration;

use capnp_threads::{Capability, Pool, Threads};

mod check;
mod client;
#[path = "../generated/mod.rs"]
mod generated;
mod idle;
mod server;
mod setup;

use generated::bench_capnp::bench;
use setup::Setup;

const USAGE: &str = "usage: peer [--strict] [--polling MICROS] server ADDRESS
       peer [--strict] [--polling MICROS] client ADDRESS MODE [COUNT [INFLIGHT BYTES [HELD]]]";
/// How many objects a client may hold: more than by default, since `exports` is about many.
const EXPORTS: usize = 1 << 20;
/// How many connections the server takes: more than by default, since `idle` is about many.
const CONNECTIONS: usize = 20_000;
/// How many bytes of each kind a client may have the server hold.
const LARGE: usize = 512 << 20;

/// What the parts of this program return.
type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Takes the options that the arguments begin with.
fn setup(args: &mut &[&str]) -> Result<Setup> {
    let mut setup = Setup::default();
    loop {
        match *args {
            ["--strict", rest @ ..] => {
                setup.threads = Threads::Strict;
                *args = rest;
            }
            ["--polling", micros, rest @ ..] => {
                setup.limits.polling = Duration::from_micros(micros.parse()?);
                *args = rest;
            }
            _ => return Ok(setup),
        }
    }
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("{e}");
            ExitCode::FAILURE
        }
    }
}

fn run(mut args: &[&str]) -> Result<()> {
    let setup = setup(&mut args)?;
    let measure = |address: &str, mode: &str, count: &str, inflight: &str, bytes: &str, held: &str| {
        client::Work::parse(mode, count, inflight, bytes, held)?.run(setup.clone(), address)
    };
    match *args {
        ["server", address] => serve(setup, address),
        ["client", address, "check", ..] => check::run(&setup, address),
        ["client", address, "idle", count, ..] => idle::run(&setup, address, count),
        ["client", address, "paced", count, seconds] => idle::run_paced(&setup, address, count, seconds),
        ["client", address, mode, count, inflight, bytes] => {
            measure(address, mode, count, inflight, bytes, "0")
        }
        ["client", address, mode, count, inflight, bytes, held] => {
            measure(address, mode, count, inflight, bytes, held)
        }
        _ => Err(USAGE.into()),
    }
}

/// Serves each connection with an object of its own, so that connections do not wait for each other.
fn serve(mut setup: Setup, address: &str) -> Result<()> {
    setup.limits.exports = EXPORTS;
    setup.limits.connections = CONNECTIONS;
    // So many calls are kept outstanding by one client that trusts this server, and is trusted.
    setup.limits.call_words = LARGE / 8;
    setup.limits.answer_bytes = LARGE;
    setup.limits.send_bytes = LARGE;
    capnp_threads::set_process_memory(4 * LARGE);
    let vat = setup
        .vat()
        .bootstrap_with(|_| Ok(bench::Client::with_pool(server::Bench::default(), Pool::in_place())));
    let listener = vat.listen(address)?;
    println!("listening {}", listener.local_addr().port());
    Ok(listener.wait()?)
}
